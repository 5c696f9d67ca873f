//! The steps of image processing as plain data: the parsers make them, the processor carries them out.

use crate::images::filter::Filter;
use crate::images::resize_geometry::{CenterCrop, CropStyle, Resize};

/// Version of [`Steps::canonical`]. Raise it when the meaning of a step changes, or the arithmetic of decoding,
/// resizing or normalising.
const VERSION: u32 = 4;

/// Mean and standard deviation of each channel.
pub(crate) type Statistics = ([f64; 3], [f64; 3]);

/// The type and the steps that a processor file, or a tower type's defaults, describe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Description {
    /// The processor type as transformers names it, without the suffix `ImageProcessor`.
    pub(crate) family: &'static str,
    pub(crate) steps: Steps,
    /// Whether no file described the steps and the defaults of the tower type were taken.
    pub(crate) is_default: bool,
}

/// The steps, in the order of the fields; `None` skips one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Steps {
    pub(crate) order: Order,
    pub(crate) resize: Option<Resize>,
    /// How the resize samples.
    pub(crate) filter: Filter,
    pub(crate) crop: Option<CenterCrop>,
    /// Multiplies the bytes.
    pub(crate) rescale: Option<f64>,
    /// Subtracts one after rescaling (`rescale_offset` of EfficientNet).
    pub(crate) minus_one: bool,
    /// Subtracts the mean, then divides by the standard deviation.
    pub(crate) normalize: Option<Statistics>,
    /// Divides by these once more (`include_top` of EfficientNet).
    pub(crate) std_again: Option<[f64; 3]>,
}

/// Which values are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Bytes, as in all processors but one.
    ResizeBytes,
    /// Rescaled values, in single precision (`DINOv3ViTImageProcessor`). Only an exact resize, no crop.
    RescaleFirst,
}

impl Steps {
    /// Resize, crop, rescale to the unit interval, normalise: the steps of torchvision's transforms and of most
    /// processors.
    pub(crate) const fn usual(
        resize: Resize,
        filter: Filter,
        crop: Option<CenterCrop>,
        statistics: Statistics,
    ) -> Self {
        Self {
            order: Order::ResizeBytes,
            resize: Some(resize),
            filter,
            crop,
            rescale: Some(1.0 / 255.0),
            minus_one: false,
            normalize: Some(statistics),
            std_again: None,
        }
    }

    /// Height and width of the output in pixels.
    pub(crate) fn output_size(&self) -> (u32, u32) {
        match (self.crop, self.resize) {
            (Some(crop), _) => (crop.height, crop.width),
            (None, Some(Resize::Exact { height, width })) => (height, width),
            // The parsers refuse steps without a fixed output size.
            (None, _) => (0, 0),
        }
    }

    /// The same steps with an output of `image_size` x `image_size` pixels.
    pub(crate) fn with_image_size(&self, image_size: u32) -> Self {
        let (height, width) = self.output_size();
        let factor = |side: u32| f64::from(image_size) / f64::from(side.max(1));
        Self {
            resize: self.resize.map(|resize| resize.scaled((factor(height), factor(width)))),
            crop: self.crop.map(|crop| CenterCrop { height: image_size, width: image_size, ..crop }),
            ..*self
        }
    }

    /// The steps in words, for display.
    pub(crate) fn describe(&self) -> String {
        let mut words = Vec::new();
        if let Some(resize) = self.resize {
            words.push(format!("{} ({})", resize.describe(), self.filter.name()));
        }
        if let Some(crop) = self.crop {
            words.push(format!("crop the middle {}x{}", crop.width, crop.height));
        }
        match self.rescale {
            Some(factor) if (factor * 255.0 - 1.0).abs() < 1e-6 => {}
            Some(factor) => words.push(format!("multiply bytes by {factor}")),
            None => words.push("leave bytes as they are".to_owned()),
        }
        if self.minus_one {
            words.push("take 1 off".to_owned());
        }
        if let Some((mean, std)) = self.normalize {
            words.push(format!("normalise by mean {mean:?}, std {std:?}"));
        }
        if let Some(std) = self.std_again {
            words.push(format!("divide by {std:?}"));
        }
        words.join(", ")
    }

    /// What `byte` becomes in `channel`: after all steps, or after rescaling where that comes before the resize.
    pub(crate) fn value(&self, byte: u8, channel: usize) -> f32 {
        if self.order == Order::RescaleFirst {
            // torch multiplies in single precision.
            return self.rescale.map_or(f32::from(byte), |factor| f32::from(byte) * factor as f32);
        }
        // The reference multiplies in f64, rounds to f32, then normalises in f32 (image_transforms.py, `rescale` and
        // `normalize`).
        let mut value = self.rescale.map_or(f32::from(byte), |factor| (f64::from(byte) * factor) as f32);
        if self.minus_one {
            value -= 1.0;
        }
        if let Some((mean, std)) = self.normalize {
            value = (value - mean[channel] as f32) / std[channel] as f32;
        }
        if let Some(std) = self.std_again {
            value /= std[channel] as f32;
        }
        value
    }

    /// The steps as a string that stays the same across releases as long as the output does. It is part of the key of
    /// features on disk, so it is written by hand: a renamed field must not change it, a changed value must.
    ///
    /// Numbers are in Rust's shortest decimal form that parses back to the same value.
    pub(crate) fn canonical(&self) -> String {
        // No `..`: a new field must be written here too.
        let Self { order, resize, filter, crop, rescale, minus_one, normalize, std_again } = *self;
        let order = match order {
            Order::ResizeBytes => "resize-rescale",
            Order::RescaleFirst => "rescale-resize",
        };
        let resize = match resize {
            None => "none".to_owned(),
            Some(Resize::Exact { height, width }) => format!("exact {height}x{width}"),
            Some(Resize::ShortestEdge { edge, longest: None }) => format!("shortest {edge}"),
            Some(Resize::ShortestEdge { edge, longest: Some(longest) }) => format!("shortest {edge} longest {longest}"),
            Some(Resize::KeepRatio { height, width, inside: false }) => format!("cover {height}x{width}"),
            Some(Resize::KeepRatio { height, width, inside: true }) => format!("fit {height}x{width}"),
        };
        let crop = match crop {
            None => "none".to_owned(),
            Some(CenterCrop { height, width, style: CropStyle::Transformers }) => {
                format!("{height}x{width} transformers")
            }
            Some(CenterCrop { height, width, style: CropStyle::Torchvision { fill: [r, g, b] } }) => {
                format!("{height}x{width} torchvision fill {r},{g},{b}")
            }
        };
        let channels = |[r, g, b]: [f64; 3]| format!("{r},{g},{b}");
        let rescale = rescale.map_or_else(|| "none".to_owned(), |factor| factor.to_string());
        let offset = if minus_one { "-1" } else { "none" };
        let normalize = normalize
            .map_or_else(|| "none".to_owned(), |(mean, std)| format!("mean {} std {}", channels(mean), channels(std)));
        let divide = std_again.map_or_else(|| "none".to_owned(), channels);
        format!(
            "dualenc image processing {VERSION}; order: {order}; resize: {resize}; filter: {}; crop: {crop}; \
             rescale: {rescale}; offset: {offset}; normalize: {normalize}; divide: {divide}",
            filter.name()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every step at once, unlike any real processor.
    fn full() -> Steps {
        Steps {
            order: Order::ResizeBytes,
            resize: Some(Resize::ShortestEdge { edge: 256, longest: Some(512) }),
            filter: Filter::Bicubic,
            crop: Some(CenterCrop { height: 224, width: 192, style: CropStyle::Torchvision { fill: [1, 2, 3] } }),
            rescale: Some(1.0 / 255.0),
            minus_one: true,
            normalize: Some(([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])),
            std_again: Some([0.5, 0.25, 1.0]),
        }
    }

    #[test]
    fn canonical_form_is_pinned() {
        // A change here invalidates every feature cache: note it in the changelog.
        assert_eq!(
            full().canonical(),
            "dualenc image processing 4; order: resize-rescale; resize: shortest 256 longest 512; filter: bicubic; \
             crop: 224x192 torchvision fill 1,2,3; rescale: 0.00392156862745098; offset: -1; \
             normalize: mean 0.48145466,0.4578275,0.40821073 std 0.26862954,0.26130258,0.27577711; \
             divide: 0.5,0.25,1"
        );
        let empty = Steps {
            order: Order::RescaleFirst,
            resize: None,
            filter: Filter::Nearest,
            crop: None,
            rescale: None,
            minus_one: false,
            normalize: None,
            std_again: None,
        };
        assert_eq!(
            empty.canonical(),
            "dualenc image processing 4; order: rescale-resize; resize: none; filter: nearest; crop: none; \
             rescale: none; offset: none; normalize: none; divide: none"
        );
    }

    #[test]
    fn canonical_form_covers_each_value() {
        let steps = full();
        let resize = |resize| Steps { resize: Some(resize), ..steps };
        let crop = |height, width, style| Steps { crop: Some(CenterCrop { height, width, style }), ..steps };
        let (mean, std) = full().normalize.unwrap();
        let fill = |fill| CropStyle::Torchvision { fill };
        let changed = |mut channels: [f64; 3], at: usize| {
            channels[at] += 0.125;
            channels
        };
        let mut all = vec![
            steps,
            Steps { order: Order::RescaleFirst, ..steps },
            Steps { resize: None, ..steps },
            resize(Resize::ShortestEdge { edge: 255, longest: Some(512) }),
            resize(Resize::ShortestEdge { edge: 256, longest: Some(511) }),
            resize(Resize::ShortestEdge { edge: 256, longest: None }),
            Steps { crop: None, ..steps },
            crop(223, 192, fill([1, 2, 3])),
            crop(224, 191, fill([1, 2, 3])),
            crop(224, 192, fill([0, 2, 3])),
            crop(224, 192, fill([1, 0, 3])),
            crop(224, 192, fill([1, 2, 0])),
            crop(224, 192, CropStyle::Transformers),
            Steps { rescale: None, ..steps },
            Steps { rescale: Some(1.0 / 256.0), ..steps },
            Steps { minus_one: false, ..steps },
            Steps { normalize: None, ..steps },
            Steps { std_again: None, ..steps },
        ];
        for (height, width) in [(256, 512), (512, 256)] {
            all.push(resize(Resize::Exact { height, width }));
            all.extend([true, false].map(|inside| resize(Resize::KeepRatio { height, width, inside })));
        }
        let filters = Filter::ALL.into_iter().filter(|&filter| filter != steps.filter);
        all.extend(filters.map(|filter| Steps { filter, ..steps }));
        for channel in 0..3 {
            all.push(Steps { normalize: Some((changed(mean, channel), std)), ..steps });
            all.push(Steps { normalize: Some((mean, changed(std, channel))), ..steps });
            all.push(Steps { std_again: steps.std_again.map(|std| changed(std, channel)), ..steps });
        }
        let distinct: std::collections::HashSet<String> = all.iter().map(Steps::canonical).collect();
        assert_eq!(distinct.len(), all.len());
    }
}
