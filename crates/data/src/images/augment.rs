//! Random views of training images: crop, flip, colour. A view is a pure function of (seed, epoch, image), so a resumed
//! run sees what an uninterrupted one does.
//!
//! The operations are those of torchvision 0.29's transforms on Pillow images, byte for byte, with one exception: the
//! shift of the hue is not rounded to 8 bits on the way. The random numbers are not torch's.

use serde::{Deserialize, Serialize};

use crate::images::pixel_ops::{Colour, flip_horizontally};
use crate::images::rand_augment::{MAX_MAGNITUDE, RandOperation};
use crate::images::rgb_image::RgbImage;
use crate::random::{VIEW_STREAM, mix};

/// Attempts at a random crop before a centre crop is used (`RandomResizedCrop.get_params`).
const CROP_TRIES: usize = 10;

/// `[data.augment]`: random changes to training images. A step without its key is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Smallest and largest fraction of the image's area that a random crop keeps, such as [0.9, 1.0] (open_clip) or
    /// [0.08, 1.0] (torchvision's `RandomResizedCrop`). The crop replaces the processor's own resize and crop. Default:
    /// no random crop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_scale: Option<[f64; 2]>,
    /// Smallest and largest aspect ratio of the crop, width over height. Default [0.75, 1.3333] (`RandomResizedCrop`).
    pub crop_ratio: [f64; 2],
    /// Probability of a horizontal flip, from 0 to 1. Default 0, because captions mention left and right.
    pub flip: f64,
    /// Strength `x` of random brightness: the factor is from `1 - x` to `1 + x`, at least 0 (`ColorJitter`). Default 0.
    pub brightness: f64,
    /// Strength of random contrast, as for `brightness`. Default 0.
    pub contrast: f64,
    /// Strength of random saturation, as for `brightness`. Default 0.
    pub saturation: f64,
    /// Largest random shift of the hue, as a fraction of the colour circle, from 0 to 0.5 (`ColorJitter`). Default 0.
    pub hue: f64,
    /// Number of RandAugment operations per image (Cubuk et al., arXiv:1909.13719), without rotation, shear and
    /// sharpness. Default 0; torchvision's default is 2.
    pub rand_ops: usize,
    /// Magnitude of these operations, from 0 to 30. Default 9, as in torchvision.
    pub rand_magnitude: f64,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            crop_scale: None,
            crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
            flip: 0.0,
            brightness: 0.0,
            contrast: 0.0,
            saturation: 0.0,
            hue: 0.0,
            rand_ops: 0,
            rand_magnitude: 9.0,
        }
    }
}

impl Augment {
    /// The view of image `index` in `epoch`: a pure function of (seed, epoch, index).
    #[must_use]
    pub fn view(&self, seed: u64, epoch: u64, index: usize) -> View {
        View { augment: *self, draws: Draws { key: mix(seed, &[VIEW_STREAM, epoch, index as u64]), drawn: 0 } }
    }

    /// The first key with an invalid value, and what was expected; `None` if all are valid.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let is_rising = |[low, high]: [f64; 2]| low > 0.0 && low <= high && high.is_finite();
        let strengths = [("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation)];
        if self.crop_scale.is_some_and(|scale| !is_rising(scale) || scale[1] > 1.0) {
            return Some(("crop_scale", "two ascending fractions above 0 and at most 1"));
        }
        if !is_rising(self.crop_ratio) {
            return Some(("crop_ratio", "two ascending numbers above 0"));
        }
        if !(0.0..=1.0).contains(&self.flip) {
            return Some(("flip", "a probability from 0 to 1"));
        }
        if let Some((key, _)) = strengths.into_iter().find(|(_, value)| !(0.0..f64::MAX).contains(value)) {
            return Some((key, "a finite number of 0 or more"));
        }
        if !(0.0..=0.5).contains(&self.hue) {
            return Some(("hue", "a fraction of the colour circle from 0 to 0.5"));
        }
        (!(0.0..=MAX_MAGNITUDE).contains(&self.rand_magnitude)).then_some(("rand_magnitude", "a number from 0 to 30"))
    }

    /// The steps in words, for display.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut words = Vec::new();
        if let Some([low, high]) = self.crop_scale {
            words.push(format!("random crop of {low} to {high} of the area"));
        }
        if self.flip > 0.0 {
            words.push(format!("flip {} of the images", self.flip));
        }
        for (name, strength) in [
            ("brightness", self.brightness),
            ("contrast", self.contrast),
            ("saturation", self.saturation),
            ("hue", self.hue),
        ] {
            if strength > 0.0 {
                words.push(format!("{name} by {strength}"));
            }
        }
        if self.rand_ops > 0 {
            words.push(format!("{} of RandAugment's operations at magnitude {}", self.rand_ops, self.rand_magnitude));
        }
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    }
}

/// A rectangle in an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rect {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

/// The random changes to one image in one epoch. The crop is drawn first, then the other changes.
#[derive(Clone, Debug)]
pub struct View {
    augment: Augment,
    draws: Draws,
}

impl View {
    /// The random crop of `image`, at its own resolution; `None` if the view has none.
    pub(crate) fn crop(&mut self, image: &RgbImage) -> Option<RgbImage> {
        let scale = self.augment.crop_scale?;
        let rect = self.draws.rect((image.width, image.height), scale, self.augment.crop_ratio);
        let stride = image.width as usize * 3;
        let rows = image.data.chunks_exact(stride.max(1)).skip(rect.y as usize).take(rect.height as usize);
        let columns = rect.x as usize * 3..(rect.x + rect.width) as usize * 3;
        let data = rows.flat_map(|row| &row[columns.clone()]).copied().collect();
        Some(RgbImage { width: rect.width, height: rect.height, data })
    }

    /// Width and height of the smallest random crop of an image of `size` (width, height); `None` if the view has none.
    pub(crate) fn smallest_crop(&self, (width, height): (u32, u32)) -> Option<(f64, f64)> {
        let [least, _] = self.augment.crop_scale?;
        let [narrowest, widest] = self.augment.crop_ratio;
        let (width, height) = (f64::from(width), f64::from(height));
        let area = least * width * height;
        // An elongated image gets a centre crop, which has its shorter side.
        let least_width = (area * narrowest).sqrt().min(width).min(height * widest);
        let least_height = (area / widest).sqrt().min(height).min(width / narrowest);
        Some((least_width, least_height))
    }

    /// Applies flip, colour jitter and RandAugment in place.
    pub(crate) fn alter(&mut self, image: &mut RgbImage) {
        let Augment { flip, brightness, contrast, saturation, hue, rand_ops, rand_magnitude, .. } = self.augment;
        if self.draws.unit() < flip {
            flip_horizontally(image);
        }
        let mut jitters =
            [(Colour::Brightness, brightness), (Colour::Contrast, contrast), (Colour::Saturation, saturation)]
                .map(|(colour, strength)| (colour, strength, (1.0 - strength).max(0.0), 1.0 + strength))
                .to_vec();
        jitters.push((Colour::Hue, hue, -hue, hue));
        self.draws.shuffle(&mut jitters);
        for (colour, strength, low, high) in jitters {
            let amount = self.draws.between(low, high);
            if strength > 0.0 {
                colour.apply(image, amount);
            }
        }
        for _ in 0..rand_ops {
            self.draws.rand_augment(image, rand_magnitude);
        }
    }
}

/// The random numbers of a view, drawn in order from a key.
#[derive(Clone, Debug)]
struct Draws {
    key: u64,
    drawn: u64,
}

impl Draws {
    /// Uniform in [0, 1), with 53 random bits.
    fn unit(&mut self) -> f64 {
        self.drawn += 1;
        (mix(self.key, &[self.drawn]) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..count`.
    fn below(&mut self, count: u32) -> u32 {
        ((self.unit() * f64::from(count)) as u32).min(count.saturating_sub(1))
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }

    /// The rectangle of a random crop (`RandomResizedCrop.get_params`).
    fn rect(&mut self, (width, height): (u32, u32), scale: [f64; 2], ratio: [f64; 2]) -> Rect {
        let area = f64::from(width) * f64::from(height);
        for _ in 0..CROP_TRIES {
            let target = area * self.between(scale[0], scale[1]);
            let aspect = self.between(ratio[0].ln(), ratio[1].ln()).exp();
            let w = (target * aspect).sqrt().round_ties_even() as u32;
            let h = (target / aspect).sqrt().round_ties_even() as u32;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let (y, x) = (self.below(height - h + 1), self.below(width - w + 1));
                return Rect { x, y, width: w, height: h };
            }
        }
        let own = f64::from(width) / f64::from(height.max(1));
        let part = |side: f64| (side.round_ties_even() as u32).max(1);
        let (w, h) = if own < ratio[0] {
            (width, part(f64::from(width) / ratio[0]).min(height))
        } else if own > ratio[1] {
            (part(f64::from(height) * ratio[1]).min(width), height)
        } else {
            (width, height)
        };
        Rect { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h }
    }

    /// Applies one operation of `RandAugment`.
    fn rand_augment(&mut self, image: &mut RgbImage, magnitude: f64) {
        let operation = self.below(RandOperation::ALL.len() as u32) as usize;
        RandOperation::ALL[operation].apply(image, magnitude, self.unit() < 0.5);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> RgbImage {
        let data = (0..width * height * 3).map(|at| (at * 37 % 251) as u8).collect();
        RgbImage { width, height, data }
    }

    fn altered(augment: Augment, epoch: u64, index: usize) -> RgbImage {
        let mut view = augment.view(7, epoch, index);
        let picture = picture(60, 40);
        let mut image = view.crop(&picture).unwrap_or(picture);
        view.alter(&mut image);
        image
    }

    #[test]
    fn view_is_reproducible() {
        let augment = Augment {
            crop_scale: Some([0.2, 1.0]),
            flip: 0.5,
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.4,
            hue: 0.1,
            rand_ops: 2,
            ..Augment::default()
        };
        for index in 0..20 {
            assert_eq!(altered(augment, 3, index), altered(augment, 3, index));
            assert_ne!(altered(augment, 3, index), altered(augment, 4, index));
            assert_ne!(altered(augment, 3, index), altered(augment, 3, index + 1));
        }
    }

    #[test]
    fn default_changes_nothing() {
        assert_eq!(altered(Augment::default(), 0, 0), picture(60, 40));
        assert_eq!(Augment::default().describe(), "none");
    }

    #[test]
    fn flips_at_rate() {
        let always = altered(Augment { flip: 1.0, ..Augment::default() }, 0, 0);
        let original = picture(60, 40);
        for (row, flipped) in original.data.chunks_exact(180).zip(always.data.chunks_exact(180)) {
            let expected: Vec<u8> = row.chunks_exact(3).rev().flatten().copied().collect();
            assert_eq!(flipped, expected);
        }
        let flips =
            (0..2000).filter(|&index| altered(Augment { flip: 0.3, ..Augment::default() }, 0, index) != original);
        let rate = flips.count() as f64 / 2000.0;
        // Five standard errors.
        assert!((rate - 0.3).abs() < 5.0 * (0.3 * 0.7 / 2000.0f64).sqrt(), "{rate}");
    }

    #[test]
    fn crops_are_uniform() {
        let (scale, ratio) = ([0.25, 0.75], [3.0 / 4.0, 4.0 / 3.0]);
        let (mut areas, mut shapes) = (Vec::new(), Vec::new());
        for index in 0..4000 {
            let mut draws = Augment::default().view(1, 0, index).draws;
            let rect = draws.rect((1000, 1000), scale, ratio);
            assert!(rect.x + rect.width <= 1000 && rect.y + rect.height <= 1000, "{rect:?}");
            areas.push(f64::from(rect.width) * f64::from(rect.height) / 1e6);
            shapes.push((f64::from(rect.width) / f64::from(rect.height)).ln());
        }
        // Sides are whole pixels, so the bounds hold to within a pixel.
        assert!(areas.iter().all(|area| (0.249..=0.751).contains(area)));
        assert!(shapes.iter().all(|shape| shape.abs() <= (4.0f64 / 3.0).ln() + 3e-3));
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        // Uniform: means of 0.5 and 0, within five standard errors. Crops of 0.75 that are too wide are drawn again:
        // less than 1%.
        assert!((mean(&areas) - 0.5).abs() < 5.0 * 0.5 / (12.0f64 * 4000.0).sqrt() + 0.005, "{}", mean(&areas));
        assert!(mean(&shapes).abs() < 5.0 * 0.575 / (12.0f64 * 4000.0).sqrt(), "{}", mean(&shapes));
        areas.sort_by(f64::total_cmp);
        assert!((areas[1000] - 0.375).abs() < 0.02 && (areas[3000] - 0.625).abs() < 0.02);
    }

    #[test]
    fn falls_back_to_centre_crop() {
        let rect = Augment::default().view(1, 0, 0).draws.rect((1000, 10), [1.0, 1.0], [3.0 / 4.0, 4.0 / 3.0]);
        assert_eq!(rect, Rect { x: 493, y: 0, width: 13, height: 10 });
    }

    #[test]
    fn colour_operations() {
        let one = |pixel: [u8; 3], colour: Colour, amount| {
            let mut image = RgbImage { width: 1, height: 1, data: pixel.to_vec() };
            colour.apply(&mut image, amount);
            image.data
        };
        assert_eq!(one([100, 50, 200], Colour::Brightness, 1.5), [150, 75, 255]);
        assert_eq!(one([100, 50, 200], Colour::Saturation, 0.0), [82, 82, 82]);
        assert_eq!(one([100, 50, 200], Colour::Contrast, 0.0), [82, 82, 82]);
        assert_eq!(one([255, 0, 0], Colour::Hue, 1.0 / 3.0), [0, 255, 0]);
        assert_eq!(one([10, 200, 90], Colour::Hue, 0.0), [10, 200, 90]);
        assert_eq!(one([10, 200, 90], Colour::Hue, -1.0 / 3.0), [200, 90, 10]);
    }

    #[test]
    fn names_invalid_key() {
        let problem = |augment: Augment| augment.problem().map(|(key, _)| key);
        assert_eq!(problem(Augment::default()), None);
        assert_eq!(problem(Augment { crop_scale: Some([0.5, 1.5]), ..Augment::default() }), Some("crop_scale"));
        assert_eq!(problem(Augment { crop_ratio: [2.0, 1.0], ..Augment::default() }), Some("crop_ratio"));
        assert_eq!(problem(Augment { flip: 2.0, ..Augment::default() }), Some("flip"));
        assert_eq!(problem(Augment { contrast: f64::NAN, ..Augment::default() }), Some("contrast"));
        assert_eq!(problem(Augment { hue: 0.6, ..Augment::default() }), Some("hue"));
        assert_eq!(problem(Augment { rand_magnitude: 31.0, ..Augment::default() }), Some("rand_magnitude"));
    }
}
