//! Turns RGB images into an image tower's input, as the reference's image processors do with Pillow and numpy: resize,
//! centre crop, rescale, normalise. It reads no image files and writes none.
//!
//! This file has [`ImageProcessor`]. The others describe what it does:
//! - `steps`: the steps as plain data, and their canonical form for cache keys
//! - `config_files`: which file of a model directory describes the steps
//! - `hf_config`: the processor files of transformers
//! - `timm`: the `pretrained_cfg` of timm
//! - `open_clip`: the `open_clip_config.json` of open_clip
//! - `json_reader`: typed values of those files, with errors that name the key
//! - `defaults`: what each processor type and tower type assumes
//! - `processed`: processed images, as they wait for a tower
//! - `export`: the steps as a `preprocessor_config.json`

mod config_files;
mod defaults;
mod export;
mod hf_config;
mod json_reader;
mod open_clip;
pub(crate) mod processed;
mod steps;
mod timm;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::error::DataError;
use crate::image_processor::processed::{ByteValues, ProcessedImages};
use crate::image_processor::steps::{Description, Order, Steps};
use crate::images::augment::View;
use crate::images::decode::limits::Limits;
use crate::images::decode::whole::Whole;
use crate::images::filter::Filter;
use crate::images::resize_geometry::Span;
use crate::images::resize_pillow::{Window, resize, resize_box};
use crate::images::resize_torch::resize_float;
use crate::images::rgb_image::RgbImage;

/// Turns an RGB image into a tower's input.
#[derive(Clone, Debug)]
pub struct ImageProcessor {
    description: Description,
    /// The value of each byte in each channel: after all steps, or with [`Order::RescaleFirst`] after rescaling.
    values: Arc<ByteValues>,
    /// Which images are refused; it affects no output.
    limits: Limits,
    /// Whether large JPEGs are reduced while they are decoded.
    fast_decode: bool,
}

/// How many times as wide and as high as the resized image a JPEG remains that is reduced while it is decoded:
/// `reducing_gap` of Pillow's `Image.thumbnail`. `docs/PERFORMANCE.md` has the differences of pixels.
const LEAST_REDUCED: f64 = 2.0;

/// A resized and cropped image, before padding.
struct Frame {
    content: RgbImage,
    rows: Span,
    columns: Span,
    /// Colour of the padding.
    fill: [u8; 3],
}

impl ImageProcessor {
    /// Reads how to process images from a model directory: from `processor_config.json` (its `image_processor`),
    /// `open_clip_config.json`, timm's `config.json` (its `pretrained_cfg`) or `preprocessor_config.json`, whichever
    /// comes first in the order of transformers.
    ///
    /// A directory that has only a tower's `config.json` gets the processing of that tower type's published checkpoints
    /// at the tower's `image_size`, and [`Self::is_default`] is true.
    ///
    /// # Errors
    /// [`DataError::Processor`] for a missing file or an unsupported type or value, [`DataError::Malformed`] for
    /// invalid JSON, [`DataError::Read`] for an unreadable file.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, DataError> {
        config_files::read(dir.as_ref()).map(Self::new)
    }

    /// The processing of the published checkpoints of a tower's `model_type` (`vit` for unknown types), at `image_size`
    /// pixels if given.
    #[must_use]
    pub fn standard(model_type: &str, image_size: Option<u32>) -> Self {
        let processor = Self::new(defaults::standard(model_type));
        match image_size {
            Some(image_size) => processor.with_image_size(image_size),
            None => processor,
        }
    }

    /// The processor of an image tower that is absent, which no image reaches.
    #[must_use]
    pub fn absent() -> Self {
        Self::standard("vit", Some(1))
    }

    fn new(description: Description) -> Self {
        let mut values = Box::new([[0.0; 256]; 3]);
        for (channel, values) in values.iter_mut().enumerate() {
            for (byte, value) in values.iter_mut().enumerate() {
                *value = description.steps.value(byte as u8, channel);
            }
        }
        Self { description, values: values.into(), limits: Limits::default(), fast_decode: false }
    }

    fn steps(&self) -> &Steps {
        &self.description.steps
    }

    /// The same processing with an output of `image_size` x `image_size` pixels. A resize before a crop is scaled by
    /// the same factor, so that the crop keeps the same fraction of the image.
    #[must_use]
    pub fn with_image_size(&self, image_size: u32) -> Self {
        let description = Description { steps: self.steps().with_image_size(image_size), ..self.description };
        Self { limits: self.limits, fast_decode: self.fast_decode, ..Self::new(description) }
    }

    /// The same processing, for images within `limits`.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same processing of JPEGs that are decoded at a half, a quarter or an eighth of their size, where they remain
    /// at least twice as wide and as high as the resized image. Pixels differ a little.
    #[must_use]
    pub fn with_fast_decode(self, fast_decode: bool) -> Self {
        Self { fast_decode, ..self }
    }

    /// Whether any image is reduced: not where single pixels are taken, or pixels are rescaled before the resize.
    fn reduces(&self) -> bool {
        self.fast_decode && self.steps().order == Order::ResizeBytes && self.steps().filter != Filter::Nearest
    }

    /// Whether an image of the size `whole` may be decoded at the size `reduced`, each as (width, height), for the view
    /// `view` if there is one.
    pub(crate) fn may_reduce(&self, whole: (u32, u32), reduced: (u32, u32), view: Option<&View>) -> bool {
        if !self.reduces() {
            return false;
        }
        let (out_height, out_width) = self.output_size();
        let is_large = |(width, height): (f64, f64), (least_width, least_height): (u32, u32)| {
            width >= LEAST_REDUCED * f64::from(least_width) && height >= LEAST_REDUCED * f64::from(least_height)
        };
        if let Some(crop) = view.and_then(|view| view.smallest_crop(reduced)) {
            return is_large(crop, (out_width, out_height));
        }
        // Without a resize, the pixels of the crop are those of the file.
        let Some(resize) = self.steps().resize else { return false };
        let (height, width) = resize.target(whole.1.max(1), whole.0.max(1));
        is_large((reduced.0.into(), reduced.1.into()), (width, height))
    }

    /// The limits of the images that are loaded for this processor. They affect no pixel.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Height and width of the output in pixels.
    #[must_use]
    pub fn output_size(&self) -> (u32, u32) {
        self.steps().output_size()
    }

    /// Whether no file described the processing, so that the defaults of the tower type apply.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.description.is_default
    }

    /// Processor type and steps in words, for display.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{}: {}", defaults::shown_name(self.description.family), self.steps().describe())
    }

    /// Processes one image to `[3, height, width]`, flat.
    #[must_use]
    pub fn process(&self, image: &RgbImage) -> Vec<f32> {
        self.process_decoded(image, None, None).into_values()
    }

    /// Processes an image or one of its views. `whole`: the image before it was reduced.
    pub(crate) fn process_decoded(
        &self,
        image: &RgbImage,
        whole: Option<Whole>,
        view: Option<View>,
    ) -> ProcessedImages {
        match (view, self.steps().order) {
            (Some(view), _) => self.process_view_of(image, whole, view),
            (None, Order::ResizeBytes) => self.padded(self.framed(image, whole)),
            (None, Order::RescaleFirst) => self.process_rescaled(image),
        }
    }

    /// Processes a random view of an image to `[3, height, width]`, flat. The view's crop, if it has one, replaces the
    /// processor's own resize and crop. Its other changes apply to bytes: at the output size, or before the resize
    /// where the processor rescales first.
    #[must_use]
    pub fn process_view(&self, image: &RgbImage, view: View) -> Vec<f32> {
        self.process_view_of(image, None, view).into_values()
    }

    fn process_view_of(&self, image: &RgbImage, whole: Option<Whole>, mut view: View) -> ProcessedImages {
        let cropped = view.crop(image);
        if self.steps().order == Order::RescaleFirst {
            let mut image = cropped.unwrap_or_else(|| image.clone());
            view.alter(&mut image);
            return self.process_rescaled(&image);
        }
        let mut frame = match cropped {
            Some(cropped) => {
                let (height, width) = self.output_size();
                let content = resize(&cropped, width, height, self.steps().filter);
                Frame { content, rows: Span::whole(height), columns: Span::whole(width), fill: [0; 3] }
            }
            None => self.framed(image, whole),
        };
        view.alter(&mut frame.content);
        self.padded(frame)
    }

    /// Resizes and crops. Pixels outside the crop are never computed. An image that was reduced is resized as a box, so
    /// that each pixel of the result covers the same part of the whole image as without the reduction.
    fn framed(&self, image: &RgbImage, whole: Option<Whole>) -> Frame {
        let (out_height, out_width) = self.output_size();
        let Whole { size, per_pixel } = whole.unwrap_or(Whole { size: (image.width, image.height), per_pixel: 1 });
        let extent = (f64::from(size.0) / f64::from(per_pixel), f64::from(size.1) / f64::from(per_pixel));
        let (height, width) = (size.1.max(1), size.0.max(1));
        let (height, width) = self.steps().resize.map_or((height, width), |resize| resize.target(height, width));
        let (rows, columns, fill) = match self.steps().crop {
            Some(crop) => (crop.span(height, out_height), crop.span(width, out_width), crop.fill()),
            None => (Span::whole(out_height), Span::whole(out_width), [0; 3]),
        };
        let window = Window { x: columns.start, y: rows.start, width: columns.len, height: rows.len };
        let content = resize_box(image, extent, (width, height), self.steps().filter, window);
        Frame { content, rows, columns, fill }
    }

    /// Pads, as the reference does before it rescales and normalises.
    fn padded(&self, frame: Frame) -> ProcessedImages {
        let (height, width) = self.output_size();
        let Frame { content, rows, columns, fill } = frame;
        if columns.len == width && rows.len == height {
            return ProcessedImages::from_bytes(content, &self.values);
        }
        let row_bytes = width as usize * 3;
        let mut data = fill.repeat(height as usize * width as usize);
        let inner = data.chunks_exact_mut(row_bytes.max(1)).skip(rows.pad as usize);
        for (row, pixels) in inner.zip(content.data.chunks_exact((columns.len as usize * 3).max(1))) {
            row[columns.pad as usize * 3..][..pixels.len()].copy_from_slice(pixels);
        }
        ProcessedImages::from_bytes(RgbImage { width, height, data }, &self.values)
    }

    /// Processes as [`Order::RescaleFirst`] says.
    fn process_rescaled(&self, image: &RgbImage) -> ProcessedImages {
        let (height, width) = self.output_size();
        let mut out = resize_float(image, &self.values, width, height, self.steps().filter);
        if let Some((mean, std)) = self.steps().normalize {
            for (channel, plane) in out.chunks_exact_mut((height as usize * width as usize).max(1)).enumerate() {
                let (mean, std) = (mean[channel] as f32, std[channel] as f32);
                plane.iter_mut().for_each(|value| *value = (*value - mean) / std);
            }
        }
        ProcessedImages::from_values(out)
    }

    /// Bytes of a processed image while it waits for a tower.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        let (height, width) = self.output_size();
        let value = match self.steps().order {
            Order::ResizeBytes => size_of::<u8>(),
            Order::RescaleFirst => size_of::<f32>(),
        };
        3 * height as usize * width as usize * value
    }

    /// A hash of everything that affects the output, for the key of a feature cache on disk. It is the same in each
    /// release until the output changes.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut canonical = self.steps().canonical();
        if self.reduces() {
            canonical.push_str(&format!("; JPEGs reduced to {LEAST_REDUCED} times the size"));
        }
        *blake3::hash(canonical.as_bytes()).as_bytes()
    }

    /// The content of a `preprocessor_config.json` with which the reference processes images in the same way, except
    /// for what [`Self::export_difference`] says.
    ///
    /// The processing of ConvNext and timm is written as that of another type with the same steps: ConvNext's rule
    /// depends on the size, and timm's file is a timm model's `config.json`.
    #[must_use]
    pub fn to_preprocessor_json(&self) -> Value {
        export::preprocessor_json(self.description.family, self.steps())
    }

    /// How the reference differs with the file of [`Self::to_preprocessor_json`]; `None` if it does not. Only timm's
    /// transforms and reduced JPEGs differ: no image processor of transformers can express some of them.
    #[must_use]
    pub fn export_difference(&self) -> Option<&'static str> {
        let of_decoding =
            "transformers decodes whole images, and the run had `data.fast_decode`; values differ a little";
        export::difference(self.steps()).or(self.reduces().then_some(of_decoding))
    }
}
