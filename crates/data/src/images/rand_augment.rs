//! The operations of RandAugment (Cubuk et al., arXiv:1909.13719) that need no resampling, with torchvision's ranges.

use crate::images::pixel_ops::{Colour, auto_contrast, equalize, map_channels, translate};
use crate::images::rgb_image::RgbImage;

/// Largest magnitude: torchvision's `num_magnitude_bins` minus one.
pub(crate) const MAX_MAGNITUDE: f64 = 30.0;

/// An operation of torchvision's `RandAugment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RandOperation {
    Identity,
    Brightness,
    Contrast,
    Saturation,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
    TranslateX,
    TranslateY,
}

impl RandOperation {
    /// All operations. Their order decides what a draw means, so it is part of every run.
    pub(crate) const ALL: [Self; 10] = [
        Self::Identity,
        Self::Brightness,
        Self::Contrast,
        Self::Saturation,
        Self::Posterize,
        Self::Solarize,
        Self::AutoContrast,
        Self::Equalize,
        Self::TranslateX,
        Self::TranslateY,
    ];

    /// Changes `image` in place. `magnitude` is from 0 to [`MAX_MAGNITUDE`]; `negative` reverses the operations that
    /// have a direction.
    pub(crate) fn apply(self, image: &mut RgbImage, magnitude: f64, negative: bool) {
        // The ends of torchvision's ranges. Posterising keeps 8 to 4 bits.
        let signed = |end: f32| if negative { -in_range(0.0, end, magnitude) } else { in_range(0.0, end, magnitude) };
        let factor = || 1.0 + signed(0.9);
        let shift = |side: u32| signed((150.0 / 331.0 * f64::from(side)) as f32) as i64;
        match self {
            Self::Identity => {}
            Self::Brightness => Colour::Brightness.apply(image, factor()),
            Self::Contrast => Colour::Contrast.apply(image, factor()),
            Self::Saturation => Colour::Saturation.apply(image, factor()),
            Self::Posterize => {
                let bits = 8 - (magnitude / MAX_MAGNITUDE * 4.0).round_ties_even() as u32;
                image.data.iter_mut().for_each(|value| *value &= (0xffu32 << (8 - bits)) as u8);
            }
            Self::Solarize => {
                let threshold = in_range(255.0, 0.0, magnitude);
                let solarize = |value: &mut u8| {
                    if f64::from(*value) >= threshold {
                        *value = 255 - *value;
                    }
                };
                image.data.iter_mut().for_each(solarize);
            }
            Self::AutoContrast => map_channels(image, auto_contrast),
            Self::Equalize => map_channels(image, equalize),
            Self::TranslateX => translate(image, shift(image.width), 0),
            Self::TranslateY => translate(image, 0, shift(image.height)),
        }
    }
}

/// The value at `magnitude` of a range, as `torch.linspace` computes it for 31 magnitudes: a step in single precision,
/// times a number of steps from the nearer end, rounded once (a fused multiplication and addition). Other roundings
/// change pixels: a threshold of 170 and one just above it differ in every pixel of 170.
fn in_range(start: f32, end: f32, magnitude: f64) -> f64 {
    let step = f64::from((end - start) / MAX_MAGNITUDE as f32);
    let value = if magnitude < MAX_MAGNITUDE / 2.0 {
        f64::from(start) + step * magnitude
    } else {
        f64::from(end) - step * (MAX_MAGNITUDE - magnitude)
    };
    f64::from(value as f32)
}

/// Equality with torchvision. The expected pixels are from `scripts/goldens/augment.py`.
#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use safetensors::SafeTensors;
    use serde_json::Value;

    use super::*;
    use crate::images::decode::decode;
    use crate::images::decode::limits::Limits;
    use crate::images::pixel_ops::flip_horizontally;

    fn golden(name: &str) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/augment")).join(name)
    }

    fn picture(name: &str) -> RgbImage {
        let bytes = std::fs::read(golden(&format!("{name}.png"))).unwrap();
        decode(&bytes, &Limits::default()).unwrap()
    }

    /// Applies an operation by its name in the goldens, such as `contrast_0.3`.
    fn apply(image: &mut RgbImage, operation: &str) {
        let (name, parameters) = operation.split_once('_').unwrap_or((operation, ""));
        let number = || parameters.parse::<f64>().unwrap();
        match name {
            "flip" => flip_horizontally(image),
            "autocontrast" => map_channels(image, auto_contrast),
            "equalize" => map_channels(image, equalize),
            "brightness" => Colour::Brightness.apply(image, number()),
            "contrast" => Colour::Contrast.apply(image, number()),
            "saturation" => Colour::Saturation.apply(image, number()),
            "hue" | "turn" => Colour::Hue.apply(image, number()),
            "translate" => {
                let (x, y) = parameters.split_once('_').unwrap();
                translate(image, x.parse().unwrap(), y.parse().unwrap());
            }
            other => panic!("unknown operation {other}"),
        }
    }

    #[test]
    fn operations_equal_torchvision() {
        let bytes = std::fs::read(golden("expected.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let (mut cases, mut failures) = (0, Vec::new());
        for (name, expected) in tensors.tensors() {
            let (source, operation) = name.split_once('/').unwrap();
            let mut image = picture(source);
            apply(&mut image, operation);
            let differences = || image.data.iter().zip(expected.data()).map(|(a, b)| a.abs_diff(*b));
            let worst = differences().max().unwrap();
            let mean = differences().map(f64::from).sum::<f64>() / expected.data().len() as f64;
            // A shift by `colorsys`, in double precision: one level of rounding. The hue of torchvision is rounded to
            // 255 units of 6 levels each: half a unit for the hue of the pixel, one for the shift, which is truncated,
            // one where the circle is passed, of 256 units; and a level each for saturation and result.
            let allowed = match operation.split_once('_') {
                Some(("turn", _)) => (1, 0.1),
                Some(("hue", _)) => (17, 2.0),
                _ => (0, 0.0),
            };
            if worst > allowed.0 || mean > allowed.1 {
                failures.push(format!("{name}: off by {worst}, {mean:.2} on average"));
            }
            cases += 1;
        }
        assert!(failures.is_empty(), "{failures:#?}");
        assert_eq!(cases, 3 * (3 + 3 * 6 + 2 * 7 + 5));
    }

    /// The CRC-32 of zlib.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
        })
    }

    #[test]
    fn every_magnitude_equals_torchvision() {
        let expected: Value = serde_json::from_slice(&std::fs::read(golden("rand_augment.json")).unwrap()).unwrap();
        let (mut cases, mut failures) = (0, Vec::new());
        for (name, sums) in expected.as_object().unwrap() {
            let (source, operation) = name.split_once('/').unwrap();
            let operation = match operation {
                "Color" => RandOperation::Saturation,
                other => RandOperation::ALL.into_iter().find(|it| format!("{it:?}") == other).unwrap(),
            };
            let sums: Vec<u64> = sums.as_array().unwrap().iter().map(|sum| sum.as_u64().unwrap()).collect();
            for (at, &sum) in sums.iter().enumerate() {
                let (magnitude, negative) = match sums.len() {
                    62 => (at / 2, at % 2 == 1),
                    _ => (at, false),
                };
                let mut image = picture(source);
                operation.apply(&mut image, magnitude as f64, negative);
                if u64::from(crc32(&image.data)) != sum {
                    failures.push(format!("{name} at {magnitude}, negative: {negative}"));
                }
                cases += 1;
            }
        }
        assert!(failures.is_empty(), "{failures:#?}");
        assert_eq!(cases, 3 * (5 * 62 + 2 * 31 + 2));
    }
}
