//! Image processing: resize, centre crop, rescale, normalise, as the reference's image processors do it with Pillow
//! and numpy.

pub(crate) mod defaults;
pub(crate) mod hf_config;
pub(crate) mod open_clip;
pub(crate) mod timm;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::DataError;
use crate::image_processor::{defaults as processor_family, hf_config as processor_config};
use crate::images::augment::View;
use crate::images::decode::RgbImage;
use crate::images::resize_geometry::{CenterCrop, CropStyle, Resize, Span};
use crate::images::resize_pillow::{Filter, Window, resize, resize_window};
use crate::images::resize_torch::resize_float;

/// Mean and standard deviation of each channel.
pub(crate) type Statistics = ([f64; 3], [f64; 3]);

/// The steps; `None` leaves one out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Steps {
    pub(crate) order: Order,
    pub(crate) resize: Option<Resize>,
    pub(crate) filter: Filter,
    pub(crate) crop: Option<CenterCrop>,
    pub(crate) rescale: Option<f64>,
    /// Takes one off after rescaling (`rescale_offset` of EfficientNet).
    pub(crate) minus_one: bool,
    pub(crate) normalize: Option<Statistics>,
    /// Divides by these once more (`include_top` of EfficientNet).
    pub(crate) std_again: Option<[f64; 3]>,
}

impl Steps {
    /// Resize, crop, to the unit interval, normalise: the order of torchvision's transforms and of most processors.
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
}

/// An image on its way to the output: resized and cropped, what is missing still to be padded.
struct Frame {
    content: RgbImage,
    rows: Span,
    columns: Span,
    fill: [u8; 3],
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Bytes are resized, as all processors but one do.
    ResizeBytes,
    /// Rescaled values are resized in single precision (`DINOv3ViTImageProcessor`). Only an exact resize, no crop.
    RescaleFirst,
}

/// Turns an RGB image into a tower's input.
#[derive(Clone, Debug)]
pub struct ImageProcessor {
    path: PathBuf,
    /// The processor type without `ImageProcessor`.
    family: String,
    is_default: bool,
    steps: Steps,
    /// The value of each byte in each channel: after all steps, or with [`Order::RescaleFirst`] after rescaling.
    values: Box<[[f32; 256]; 3]>,
}

impl ImageProcessor {
    /// Reads `processor_config.json` (its `image_processor`), timm's `config.json` (its `pretrained_cfg`) or
    /// `preprocessor_config.json` in `dir`: the first there is, as transformers does.
    ///
    /// A directory with none but with a tower's `config.json` gets the processing of that tower type's published
    /// checkpoints at the tower's `image_size`; [`Self::is_default`] then says so.
    ///
    /// # Errors
    /// [`DataError::Processor`] for a type or value that is not supported, [`DataError::Malformed`] for broken JSON.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, DataError> {
        processor_config::from_dir(dir.as_ref())
    }

    /// The processing of the published checkpoints of a tower's `model_type` (those unknown here as `vit`), for
    /// `image_size` pixels if given.
    #[must_use]
    pub fn standard(model_type: &str, image_size: Option<u32>) -> Self {
        let (family, steps) = processor_family::standard(model_type);
        let processor = Self::new(PathBuf::new(), family.to_owned(), true, steps);
        match image_size {
            Some(image_size) => processor.with_image_size(image_size),
            None => processor,
        }
    }

    pub(crate) fn new(path: PathBuf, family: String, is_default: bool, steps: Steps) -> Self {
        let mut values = Box::new([[0.0; 256]; 3]);
        for (channel, values) in values.iter_mut().enumerate() {
            for (byte, value) in values.iter_mut().enumerate() {
                *value = steps.value(byte as u8, channel);
            }
        }
        Self { path, family, is_default, steps, values }
    }

    /// The same processing for an output of `image_size` x `image_size`: a resize before a crop is scaled by the same
    /// factor, so that the crop keeps its share.
    #[must_use]
    pub fn with_image_size(&self, image_size: u32) -> Self {
        let mut steps = self.steps;
        let (height, width) = self.output_size();
        let factor = |side: u32| f64::from(image_size) / f64::from(side.max(1));
        steps.resize = steps.resize.map(|resize| resize.scaled((factor(height), factor(width))));
        steps.crop = steps.crop.map(|crop| CenterCrop { height: image_size, width: image_size, ..crop });
        Self::new(self.path.clone(), self.family.clone(), self.is_default, steps)
    }

    /// Height and width of the output.
    #[must_use]
    pub fn output_size(&self) -> (u32, u32) {
        match (self.steps.crop, self.steps.resize) {
            (Some(crop), _) => (crop.height, crop.width),
            (None, Some(Resize::Exact { height, width })) => (height, width),
            // The constructors admit no processor without a fixed output.
            (None, _) => (0, 0),
        }
    }

    /// Whether no file described the processing and the tower type's standard was taken.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.is_default
    }

    /// Type, steps and output in words, for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        let steps = &self.steps;
        let mut words = Vec::new();
        if let Some(resize) = steps.resize {
            words.push(format!("{} ({})", resize.describe(), format!("{:?}", steps.filter).to_lowercase()));
        }
        if let Some(crop) = steps.crop {
            words.push(format!("crop the middle {}x{}", crop.width, crop.height));
        }
        match steps.rescale {
            Some(factor) if (factor * 255.0 - 1.0).abs() < 1e-6 => {}
            Some(factor) => words.push(format!("multiply bytes by {factor}")),
            None => words.push("leave bytes as they are".to_owned()),
        }
        if steps.minus_one {
            words.push("take 1 off".to_owned());
        }
        if let Some((mean, std)) = steps.normalize {
            words.push(format!("normalise by mean {mean:?}, std {std:?}"));
        }
        if let Some(std) = steps.std_again {
            words.push(format!("divide by {std:?}"));
        }
        format!("{}: {}", self.family, words.join(", "))
    }

    /// Processes one image to `[3, height, width]`, flat.
    #[must_use]
    pub fn process(&self, image: &RgbImage) -> Vec<f32> {
        match self.steps.order {
            Order::ResizeBytes => self.values_of(&self.framed(image)),
            Order::RescaleFirst => self.process_rescaled(image),
        }
    }

    /// The same of a random view of the image. A crop replaces the processor's own resize and crop; the rest happens to
    /// bytes, at the size of the output where the processor resizes bytes.
    #[must_use]
    pub fn process_view(&self, image: &RgbImage, mut view: View) -> Vec<f32> {
        let cropped = view.crop(image);
        if self.steps.order == Order::RescaleFirst {
            let mut image = cropped.unwrap_or_else(|| image.clone());
            view.alter(&mut image);
            return self.process_rescaled(&image);
        }
        let mut frame = match cropped {
            Some(cropped) => {
                let (height, width) = self.output_size();
                let whole = |len| Span { start: 0, len, pad: 0 };
                let content = resize(&cropped, width, height, self.steps.filter);
                Frame { content, rows: whole(height), columns: whole(width), fill: [0; 3] }
            }
            None => self.framed(image),
        };
        view.alter(&mut frame.content);
        self.values_of(&frame)
    }

    /// Resized and cropped. Pixels outside the crop are never computed.
    fn framed(&self, image: &RgbImage) -> Frame {
        let (out_height, out_width) = self.output_size();
        let (height, width) = (image.height.max(1), image.width.max(1));
        let (height, width) = self.steps.resize.map_or((height, width), |resize| resize.target(height, width));
        let whole = |len| Span { start: 0, len, pad: 0 };
        let (rows, columns, fill) = match self.steps.crop {
            Some(crop) => (crop.span(height, out_height), crop.span(width, out_width), crop.fill()),
            None => (whole(out_height), whole(out_width), [0; 3]),
        };
        let window = Window { x: columns.start, y: rows.start, width: columns.len, height: rows.len };
        Frame { content: resize_window(image, width, height, self.steps.filter, window), rows, columns, fill }
    }

    /// Padded, rescaled and normalised: `[3, height, width]`, flat.
    fn values_of(&self, frame: &Frame) -> Vec<f32> {
        let (out_height, out_width) = self.output_size();
        let Frame { content, rows, columns, fill } = frame;
        let plane = out_height as usize * out_width as usize;
        let mut out = Vec::with_capacity(plane * 3);
        let pixels = content.data.as_chunks::<3>().0;
        for (channel, values) in self.values.iter().enumerate() {
            if columns.len == out_width && rows.len == out_height {
                out.extend(pixels.iter().map(|pixel| values[usize::from(pixel[channel])]));
                continue;
            }
            // The reference pads before it rescales and normalises.
            out.resize(plane * (channel + 1), values[usize::from(fill[channel])]);
            let padded = &mut out[plane * channel..];
            for (row, pixels) in pixels.chunks_exact((columns.len as usize).max(1)).enumerate() {
                let start = (row + rows.pad as usize) * out_width as usize + columns.pad as usize;
                for (value, pixel) in padded[start..].iter_mut().zip(pixels) {
                    *value = values[usize::from(pixel[channel])];
                }
            }
        }
        out
    }

    /// [`Order::RescaleFirst`].
    fn process_rescaled(&self, image: &RgbImage) -> Vec<f32> {
        let (height, width) = self.output_size();
        let mut out = resize_float(image, &self.values, width, height, self.steps.filter);
        if let Some((mean, std)) = self.steps.normalize {
            for (channel, plane) in out.chunks_exact_mut((height as usize * width as usize).max(1)).enumerate() {
                let (mean, std) = (mean[channel] as f32, std[channel] as f32);
                plane.iter_mut().for_each(|value| *value = (*value - mean) / std);
            }
        }
        out
    }

    /// A hash of everything that changes the output, for the key of a feature cache.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        // Changes when the meaning of the steps below changes, or the arithmetic of decoding or resizing.
        hasher.update(b"dualenc image processing 2");
        let Steps { order, resize, filter, crop, normalize, .. } = &self.steps;
        hasher.update(format!("{order:?} {resize:?} {filter:?} {crop:?} {normalize:?}").as_bytes());
        for value in self.values.iter().flatten() {
            hasher.update(&value.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// The object of a `preprocessor_config.json` that makes the reference do the same, but for what
    /// [`Self::export_difference`] names.
    ///
    /// ConvNext's and timm's processing is written as that of a processor with the same steps: the one's rule depends
    /// on the size, and the other's file is the `config.json` of a timm model.
    #[must_use]
    pub fn to_preprocessor_json(&self) -> Value {
        let steps = &self.steps;
        let (height, width) = self.output_size();
        let size = match steps.resize {
            Some(Resize::ShortestEdge { edge, longest: None }) => json!({"shortest_edge": edge}),
            Some(Resize::ShortestEdge { edge, longest: Some(longest) }) => {
                json!({"shortest_edge": edge, "longest_edge": longest})
            }
            Some(Resize::Exact { height, width }) => json!({"height": height, "width": width}),
            Some(Resize::KeepRatio { height, width, inside }) => {
                json!({"shortest_edge": if inside { height.min(width) } else { height.max(width) }})
            }
            None => json!({"height": height, "width": width}),
        };
        let family = match self.family.as_str() {
            "ConvNext" | "TimmWrapper" => {
                if steps.crop.is_some() {
                    "CLIP"
                } else {
                    "ViT"
                }
            }
            family => family,
        };
        let (mean, std) = steps.normalize.unwrap_or(([0.0; 3], steps.std_again.unwrap_or([1.0; 3])));
        let mut file = json!({
            "image_processor_type": format!("{family}ImageProcessor"),
            "do_convert_rgb": true,
            "do_resize": steps.resize.is_some(),
            "size": size,
            "resample": steps.filter.code(),
            "do_center_crop": steps.crop.is_some(),
            "crop_size": {"height": height, "width": width},
            "do_rescale": steps.rescale.is_some(),
            "rescale_factor": steps.rescale.unwrap_or(1.0 / 255.0),
            "do_normalize": steps.normalize.is_some(),
            "image_mean": mean,
            "image_std": std,
        });
        if family == "EfficientNet" {
            file["rescale_offset"] = json!(steps.minus_one);
            file["include_top"] = json!(steps.std_again.is_some());
        }
        file
    }

    /// In what the file of [`Self::to_preprocessor_json`] makes the reference process images otherwise: `None` for all
    /// processors but timm's, some of whose transforms no image processor of transformers can express.
    #[must_use]
    pub fn export_difference(&self) -> Option<&'static str> {
        match (self.steps.resize, self.steps.crop) {
            (Some(Resize::KeepRatio { .. }), _) => {
                Some("timm's resize to a rectangle is written as one of the shorter side, its borders as a crop")
            }
            (_, Some(CenterCrop { style: CropStyle::Torchvision { .. }, .. })) => {
                Some("where the middle falls between two pixels, transformers may crop one pixel beside")
            }
            _ => None,
        }
    }
}

impl Steps {
    /// What a byte becomes, see [`ImageProcessor::values`].
    fn value(&self, byte: u8, channel: usize) -> f32 {
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
}
