//! Flips, shifts, colour and histogram operations on 8-bit images, as torchvision defines them on Pillow images.

use crate::images::rgb_image::RgbImage;

/// A colour operation of `torchvision.transforms.functional` (`ImageEnhance` of Pillow).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    Brightness,
    Contrast,
    Saturation,
    Hue,
}

impl Colour {
    /// Changes `image` in place. `amount` is a factor; for the hue, a fraction of the colour circle.
    pub(crate) fn apply(self, image: &mut RgbImage, amount: f64) {
        let amount = amount as f32;
        let pixels = image.data.as_chunks_mut::<3>().0;
        match self {
            Self::Brightness => pixels.iter_mut().flatten().for_each(|value| *value = blend(0, *value, amount)),
            Self::Contrast => {
                let sum: u64 = pixels.iter().map(|pixel| u64::from(grey(*pixel))).sum();
                let mean = (sum as f64 / pixels.len().max(1) as f64 + 0.5) as u8;
                pixels.iter_mut().flatten().for_each(|value| *value = blend(mean, *value, amount));
            }
            Self::Saturation => pixels.iter_mut().for_each(|pixel| {
                let grey = grey(*pixel);
                *pixel = pixel.map(|value| blend(grey, value, amount));
            }),
            Self::Hue => pixels.iter_mut().for_each(|pixel| *pixel = turn_hue(*pixel, amount)),
        }
    }
}

/// `Image.blend` of Pillow, which truncates.
fn blend(from: u8, to: u8, amount: f32) -> u8 {
    (f32::from(from) + amount * (f32::from(to) - f32::from(from))).clamp(0.0, 255.0) as u8
}

/// The luma of Pillow (ITU-R 601-2, in 16-bit fixed point).
fn grey([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000) >> 16) as u8
}

/// Shifts the hue (of HSV) by a fraction of the colour circle. Pillow rounds hue and saturation to 8 bits, so
/// torchvision's pixels differ by up to 17 levels, and by less than 2 on average.
fn turn_hue(pixel: [u8; 3], turn: f32) -> [u8; 3] {
    let [r, g, b] = pixel.map(f32::from);
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let range = most - least;
    if range == 0.0 {
        return pixel;
    }
    let sextant = if most == r {
        (g - b) / range
    } else if most == g {
        (b - r) / range + 2.0
    } else {
        (r - g) / range + 4.0
    };
    let sextant = sextant + turn * 6.0;
    // Each channel falls and rises with its distance from the hue.
    let channel = |offset: f32| {
        let k = (offset + sextant).rem_euclid(6.0);
        (most - range * k.min(4.0 - k).clamp(0.0, 1.0)).round() as u8
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

pub(crate) fn flip_horizontally(image: &mut RgbImage) {
    for row in image.data.chunks_exact_mut((image.width as usize * 3).max(1)) {
        row.as_chunks_mut::<3>().0.reverse();
    }
}

/// Shifts the content by `dx` to the right and `dy` down, in pixels; the uncovered part is black.
pub(crate) fn translate(image: &mut RgbImage, dx: i64, dy: i64) {
    let (width, height) = (i64::from(image.width), i64::from(image.height));
    let mut moved = RgbImage::black(image.width, image.height);
    let pixels = image.data.as_chunks::<3>().0;
    for (place, pixel) in moved.data.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let (x, y) = (place as i64 % width - dx, place as i64 / width - dy);
        if (0..width).contains(&x) && (0..height).contains(&y) {
            *pixel = pixels[(y * width + x) as usize];
        }
    }
    *image = moved;
}

/// Maps each channel through the table that `table` computes from its histogram; `None` leaves the channel unchanged.
pub(crate) fn map_channels(image: &mut RgbImage, table: fn(&[u32; 256]) -> Option<[u8; 256]>) {
    let pixels = image.data.as_chunks_mut::<3>().0;
    for channel in 0..3 {
        let mut histogram = [0; 256];
        pixels.iter().for_each(|pixel| histogram[usize::from(pixel[channel])] += 1);
        if let Some(table) = table(&histogram) {
            pixels.iter_mut().for_each(|pixel| pixel[channel] = table[usize::from(pixel[channel])]);
        }
    }
}

/// The table of `ImageOps.autocontrast` without cutoff.
pub(crate) fn auto_contrast(histogram: &[u32; 256]) -> Option<[u8; 256]> {
    let low = histogram.iter().position(|&count| count > 0)?;
    let high = histogram.iter().rposition(|&count| count > 0)?;
    let scale = 255.0 / (high > low).then_some((high - low) as f64)?;
    Some(std::array::from_fn(|value| ((value as f64 - low as f64) * scale).clamp(0.0, 255.0) as u8))
}

/// The table of `ImageOps.equalize`.
pub(crate) fn equalize(histogram: &[u32; 256]) -> Option<[u8; 256]> {
    let last = *histogram.iter().rfind(|&&count| count > 0)?;
    let step = (histogram.iter().sum::<u32>() - last) / 255;
    if step == 0 {
        return None;
    }
    let mut sum = step / 2;
    Some(histogram.map(|count| {
        let value = (sum / step).min(255) as u8;
        sum += count;
        value
    }))
}
