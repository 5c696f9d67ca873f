//! Image processing: resize, centre crop, rescale, normalise, as the reference's image processors do it with Pillow
//! and numpy.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::DataError;
use crate::image::RgbImage;
use crate::processor_config;
use crate::resize::{Filter, Window, resize_window};

/// What a resize aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resize {
    /// Both sides, whatever the aspect.
    Exact { height: u32, width: u32 },
    /// The shorter side, keeping the aspect; if the longer side would pass `longest`, that one instead.
    ShortestEdge { edge: u32, longest: Option<u32> },
}

/// The steps in order; `None` leaves one out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Steps {
    pub(crate) resize: Option<Resize>,
    pub(crate) filter: Filter,
    /// Height and width.
    pub(crate) crop: Option<(u32, u32)>,
    pub(crate) rescale: Option<f64>,
    /// Mean and standard deviation of each channel.
    pub(crate) normalize: Option<([f64; 3], [f64; 3])>,
}

/// Turns an RGB image into a tower's input.
#[derive(Clone, Debug)]
pub struct ImageProcessor {
    path: PathBuf,
    /// The processor type without `ImageProcessor`.
    family: String,
    is_default: bool,
    steps: Steps,
    /// The value of each byte in each channel after rescaling and normalising.
    values: Box<[[f32; 256]; 3]>,
}

impl ImageProcessor {
    /// Reads `processor_config.json` (its `image_processor`) or `preprocessor_config.json` in `dir`.
    ///
    /// A directory with neither but with a tower's `config.json` gets the processing of that tower type's published
    /// checkpoints at the tower's `image_size`; [`Self::is_default`] then says so.
    ///
    /// # Errors
    /// [`DataError::Processor`] for a type or value that is not supported, [`DataError::Malformed`] for broken JSON.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, DataError> {
        processor_config::from_dir(dir.as_ref())
    }

    /// The processing of the published checkpoints of a tower type (`vit`, `deit`, `dinov2`, `beit`,
    /// `clip_vision_model`, `siglip_vision_model`; others as `vit`), for `image_size` pixels if given.
    #[must_use]
    pub fn standard(model_type: &str, image_size: Option<u32>) -> Self {
        let (family, steps) = processor_config::defaults_for(model_type);
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
                // The reference multiplies in f64, rounds to f32, then normalises in f32 (image_transforms.py,
                // `rescale` and `normalize`).
                *value = match steps.rescale {
                    Some(factor) => (byte as f64 * factor) as f32,
                    None => byte as f32,
                };
                if let Some((mean, std)) = steps.normalize {
                    *value = (*value - mean[channel] as f32) / std[channel] as f32;
                }
            }
        }
        Self { path, family, is_default, steps, values }
    }

    /// The same processing for an output of `image_size` x `image_size`: a resize before a crop is scaled by the same
    /// factor, so that the crop keeps its share.
    #[must_use]
    pub fn with_image_size(&self, image_size: u32) -> Self {
        let mut steps = self.steps;
        let (crop_height, crop_width) = self.size();
        let scale = |side: u32, from: u32| {
            let scaled = (f64::from(side) * f64::from(image_size) / f64::from(from)).round();
            (scaled as u32).max(1)
        };
        steps.resize = steps.resize.map(|resize| match resize {
            Resize::Exact { height, width } => {
                Resize::Exact { height: scale(height, crop_height), width: scale(width, crop_width) }
            }
            Resize::ShortestEdge { edge, longest } => {
                let from = crop_height.min(crop_width);
                Resize::ShortestEdge { edge: scale(edge, from), longest: longest.map(|longest| scale(longest, from)) }
            }
        });
        steps.crop = steps.crop.map(|_| (image_size, image_size));
        Self::new(self.path.clone(), self.family.clone(), self.is_default, steps)
    }

    /// Height and width of the output.
    #[must_use]
    pub fn output_size(&self) -> (u32, u32) {
        self.size()
    }

    fn size(&self) -> (u32, u32) {
        match (self.steps.crop, self.steps.resize) {
            (Some(size), _) => size,
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

    /// The steps in words, for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut steps = Vec::new();
        let filter = format!("{:?}", self.steps.filter).to_lowercase();
        match self.steps.resize {
            Some(Resize::Exact { height, width }) => steps.push(format!("resize to {width}x{height} ({filter})")),
            Some(Resize::ShortestEdge { edge, longest: None }) => {
                steps.push(format!("resize the shorter side to {edge} ({filter})"));
            }
            Some(Resize::ShortestEdge { edge, longest: Some(longest) }) => {
                steps.push(format!("resize the shorter side to {edge}, the longer to at most {longest} ({filter})"));
            }
            None => {}
        }
        if let Some((height, width)) = self.steps.crop {
            steps.push(format!("crop the middle {width}x{height}"));
        }
        if let Some((mean, std)) = self.steps.normalize {
            steps.push(format!("normalise by mean {mean:?}, std {std:?}"));
        }
        steps.join(", ")
    }

    /// Processes one image to `[3, height, width]`, flat.
    #[must_use]
    pub fn process(&self, image: &RgbImage) -> Vec<f32> {
        let (out_height, out_width) = self.size();
        let (height, width) = self.resized(image);
        let rows = Crop::new(height, out_height);
        let columns = Crop::new(width, out_width);
        // Pixels outside the crop are never computed.
        let window = Window { x: columns.start, y: rows.start, width: columns.len, height: rows.len };
        let resized = resize_window(image, width, height, self.steps.filter, window);

        let plane = out_height as usize * out_width as usize;
        let mut out = Vec::with_capacity(plane * 3);
        let pixels = resized.data.as_chunks::<3>().0;
        for (channel, values) in self.values.iter().enumerate() {
            if columns.len == out_width && rows.len == out_height {
                out.extend(pixels.iter().map(|pixel| values[usize::from(pixel[channel])]));
                continue;
            }
            // The reference pads with zeros before it rescales and normalises.
            out.resize(plane * (channel + 1), values[0]);
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

    /// Height and width after the resize.
    fn resized(&self, image: &RgbImage) -> (u32, u32) {
        let (height, width) = (image.height.max(1), image.width.max(1));
        match self.steps.resize {
            None => (height, width),
            Some(Resize::Exact { height, width }) => (height, width),
            Some(Resize::ShortestEdge { edge, longest: None }) => {
                let (short, long) = (height.min(width), height.max(width));
                // `int(size * long / short)` of `get_resize_output_image_size`.
                let long = (f64::from(edge) * f64::from(long) / f64::from(short)) as u32;
                if width <= height { (long, edge) } else { (edge, long) }
            }
            Some(Resize::ShortestEdge { edge, longest: Some(longest) }) => {
                with_aspect_ratio(height, width, edge, longest)
            }
        }
    }

    /// A hash of everything that changes the output, for the key of a feature cache.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        // Changes when the meaning of the steps below changes, or the arithmetic of decoding or resizing.
        hasher.update(b"dualenc image processing 1");
        hasher.update(format!("{:?} {:?} {:?}", self.steps.resize, self.steps.filter, self.steps.crop).as_bytes());
        for value in self.values.iter().flatten() {
            hasher.update(&value.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// The object of a `preprocessor_config.json` that makes the reference do the same.
    #[must_use]
    pub fn to_preprocessor_json(&self) -> Value {
        let steps = &self.steps;
        let size = match steps.resize {
            Some(Resize::ShortestEdge { edge, longest: None }) => json!({"shortest_edge": edge}),
            Some(Resize::ShortestEdge { edge, longest: Some(longest) }) => {
                json!({"shortest_edge": edge, "longest_edge": longest})
            }
            Some(Resize::Exact { height, width }) => json!({"height": height, "width": width}),
            None => json!({"height": self.size().0, "width": self.size().1}),
        };
        let (height, width) = self.size();
        let (mean, std) = steps.normalize.unwrap_or(([0.0; 3], [1.0; 3]));
        json!({
            "image_processor_type": format!("{}ImageProcessor", self.family),
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
        })
    }
}

/// One axis of the reference's `center_crop`, which pads with zeros what is too small.
struct Crop {
    /// First kept position of the image.
    start: u32,
    /// Kept positions.
    len: u32,
    /// Zeros before them in the output.
    pad: u32,
}

impl Crop {
    const fn new(from: u32, to: u32) -> Self {
        if from >= to {
            Self { start: (from - to) / 2, len: to, pad: 0 }
        } else {
            Self { start: 0, len: from, pad: (to - from).div_ceil(2) }
        }
    }
}

/// `get_size_with_aspect_ratio` of transformers' `image_transforms.py`: height and width.
fn with_aspect_ratio(height: u32, width: u32, edge: u32, longest: u32) -> (u32, u32) {
    let (h, w) = (f64::from(height), f64::from(width));
    let (short, long) = (h.min(w), h.max(w));
    let mut exact = f64::from(edge);
    let mut size = edge;
    if long / short * exact > f64::from(longest) {
        exact = f64::from(longest) * short / long;
        // Python rounds halves to even.
        size = exact.round_ties_even() as u32;
    }
    let size = size.max(1);
    if (height <= width && height == size) || (width <= height && width == size) {
        (height, width)
    } else if width < height {
        (((exact * h / w) as u32).max(1), size)
    } else {
        (size, ((exact * w / h) as u32).max(1))
    }
}
