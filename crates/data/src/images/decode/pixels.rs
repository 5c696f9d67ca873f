//! Conversion of decoded samples to 8-bit RGB, inside one buffer, and orientation.

use ::image::ColorType;

use crate::images::decode::whole::Whole;
use crate::images::rgb_image::RgbImage;

/// Samples as a decoder writes them, in native byte order, rows from top to bottom.
pub(crate) struct Raw {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// At least 3 bytes per pixel are allocated; the samples are at the start.
    pub(crate) data: Vec<u8>,
    pub(crate) color: ColorType,
    /// The value of EXIF's orientation, 1 if there is none.
    pub(crate) orientation: u32,
    /// What it was before it was reduced while it was decoded; `None` if it was not.
    pub(crate) whole: Option<Whole>,
}

impl Raw {
    /// The image in RGB and upright; `None` for a colour type that is none of 8 or 16 bits.
    pub(crate) fn into_rgb(self) -> Option<RgbImage> {
        let Self { width, height, mut data, color, orientation, whole: _ } = self;
        let pixels = width as usize * height as usize;
        match color {
            ColorType::Rgb8 => data.truncate(3 * pixels),
            ColorType::L8 => map(&mut data, pixels, |[v]| [v; 3]),
            ColorType::La8 => map(&mut data, pixels, |[v, a]| [over_white(v, a); 3]),
            ColorType::Rgba8 => map(&mut data, pixels, on_white),
            ColorType::L16 => map(&mut data, pixels, |[a, b]| [nearest_level(u16::from_ne_bytes([a, b])); 3]),
            ColorType::La16 => map(&mut data, pixels, |[v, w, a, b]| [over_white(high([v, w]), high([a, b])); 3]),
            ColorType::Rgb16 => map(&mut data, pixels, |[r, s, g, h, b, c]| [high([r, s]), high([g, h]), high([b, c])]),
            ColorType::Rgba16 => map(&mut data, pixels, |[r, s, g, h, b, c, a, d]| {
                on_white([high([r, s]), high([g, h]), high([b, c]), high([a, d])])
            }),
            _ => return None,
        }
        Some(oriented(RgbImage { width, height, data }, orientation))
    }
}

/// Replaces `pixels` samples of `N` bytes by RGB in place.
fn map<const N: usize>(data: &mut Vec<u8>, pixels: usize, rgb: impl Fn([u8; N]) -> [u8; 3]) {
    let move_one = |data: &mut [u8], pixel: usize| {
        let mut sample = [0; N];
        sample.copy_from_slice(&data[N * pixel..N * (pixel + 1)]);
        data[3 * pixel..3 * pixel + 3].copy_from_slice(&rgb(sample));
    };
    if N >= 3 {
        // What is written lies before what is read next; where samples shrink to pixels, from the front.
        (0..pixels).for_each(|pixel| move_one(data, pixel));
        data.truncate(3 * pixels);
    } else {
        data.resize(3 * pixels, 0);
        (0..pixels).rev().for_each(|pixel| move_one(data, pixel));
    }
}

/// Turns and flips as EXIF's orientation says (CIPA DC-008, `Orientation`). Other values than 2 to 8 mean upright.
fn oriented(mut image: RgbImage, orientation: u32) -> RgbImage {
    let (width, height) = (image.width as usize, image.height as usize);
    if width == 0 || height == 0 {
        return image;
    }
    let flip_rows = |data: &mut [u8]| {
        data.chunks_exact_mut(3 * width).for_each(|row| row.as_chunks_mut::<3>().0.reverse());
    };
    match orientation {
        2 => flip_rows(&mut image.data),
        3 => image.data.as_chunks_mut::<3>().0.reverse(),
        4 => {
            image.data.as_chunks_mut::<3>().0.reverse();
            flip_rows(&mut image.data);
        }
        5..=8 => {
            // The new row is an old column: from the left in 5 and 6, from the bottom in 6 and 7.
            let (from_right, from_bottom) = (matches!(orientation, 7 | 8), matches!(orientation, 6 | 7));
            let pixels = image.data.as_chunks::<3>().0;
            let mut turned = Vec::with_capacity(image.data.len());
            for column in 0..width {
                let column = if from_right { width - 1 - column } else { column };
                for row in 0..height {
                    let row = if from_bottom { height - 1 - row } else { row };
                    turned.extend_from_slice(&pixels[row * width + column]);
                }
            }
            return RgbImage { width: image.height, height: image.width, data: turned };
        }
        _ => {}
    }
    image
}

/// The high byte of a 16-bit sample.
const fn high(sample: [u8; 2]) -> u8 {
    (u16::from_ne_bytes(sample) >> 8) as u8
}

/// The nearest 8-bit level: 65535 = 257 * 255.
pub(crate) const fn nearest_level(value: u16) -> u8 {
    ((value as u32 + 128) / 257) as u8
}

/// A pixel over opaque white.
pub(crate) const fn on_white([r, g, b, a]: [u8; 4]) -> [u8; 3] {
    [over_white(r, a), over_white(g, a), over_white(b, a)]
}

/// One sample over opaque white, in the integer arithmetic of Pillow's `AlphaComposite.c`: 7 extra bits, and a division
/// by 255 in two shifts.
pub(crate) const fn over_white(value: u8, alpha: u8) -> u8 {
    const PRECISION_BITS: u32 = 7;
    if alpha == 0 {
        return 255;
    }
    // The general weights reduce to these for a background with alpha 255.
    let weight = (alpha as u32) << PRECISION_BITS;
    let white = (255 << PRECISION_BITS) - weight;
    let sum = value as u32 * weight + 255 * white + (0x80 << PRECISION_BITS);
    ((((sum >> 8) + sum) >> 8) >> PRECISION_BITS) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orientations_turn_and_flip() {
        // 1 2 3
        // 4 5 6
        let image = RgbImage { width: 3, height: 2, data: (1..=6).flat_map(|v| [v; 3]).collect() };
        let expected = [
            (1, 3, [1, 2, 3, 4, 5, 6]),
            (2, 3, [3, 2, 1, 6, 5, 4]),
            (3, 3, [6, 5, 4, 3, 2, 1]),
            (4, 3, [4, 5, 6, 1, 2, 3]),
            (5, 2, [1, 4, 2, 5, 3, 6]),
            (6, 2, [4, 1, 5, 2, 6, 3]),
            (7, 2, [6, 3, 5, 2, 4, 1]),
            (8, 2, [3, 6, 2, 5, 1, 4]),
            (9, 3, [1, 2, 3, 4, 5, 6]),
        ];
        for (orientation, width, levels) in expected {
            let turned = oriented(image.clone(), orientation);
            assert_eq!((turned.width, turned.height), (width, 6 / width), "{orientation}");
            assert_eq!(turned.data, levels.iter().flat_map(|&v| [v; 3]).collect::<Vec<u8>>(), "{orientation}");
        }
    }
}
