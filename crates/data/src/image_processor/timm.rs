//! The evaluation transform of a timm model from the `pretrained_cfg` of its `config.json`
//! (`TimmWrapperImageProcessor` of transformers; `data/config.py` and `transforms_imagenet_eval` of timm 1.0).

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::DataError;
use crate::image_processor::defaults::IMAGENET_DEFAULT;
use crate::image_processor::hf_config::Reader;
use crate::image_processor::{ImageProcessor, Steps};
use crate::images::resize_geometry::{CenterCrop, CropStyle, Resize};
use crate::images::resize_pillow::Filter;

/// `DEFAULT_CROP_PCT` of timm.
const CROP_SHARE: f64 = 0.875;

/// Height and width where the file gives no `input_size`.
const INPUT_SIDE: u32 = 224;

/// timm's names of Pillow's filters.
const FILTERS: [(&str, Filter); 6] = [
    ("nearest", Filter::Nearest),
    ("lanczos", Filter::Lanczos),
    ("bilinear", Filter::Bilinear),
    ("bicubic", Filter::Bicubic),
    ("box", Filter::Box),
    ("hamming", Filter::Hamming),
];

/// The processor that `pretrained_cfg` describes.
pub(crate) fn parse(path: &Path, config: &Map<String, Value>) -> Result<ImageProcessor, DataError> {
    let reader = Reader { path, config };
    let (height, width) = match reader.get("input_size") {
        None => (INPUT_SIDE, INPUT_SIDE),
        Some(Value::Array(sides)) if sides.len() == 3 && sides[0] == json!(3) => {
            (reader.side("input_size", &sides[1])?, reader.side("input_size", &sides[2])?)
        }
        Some(other) => return Err(reader.error("input_size", other, "3 channels, height, width: `[3, 224, 224]`")),
    };
    let filter = match reader.get("interpolation") {
        None => Filter::Bicubic,
        Some(name) => {
            let known = FILTERS.iter().find(|(known, _)| name.as_str() == Some(known));
            known.map(|(_, filter)| *filter).ok_or_else(|| {
                let names = FILTERS.map(|(name, _)| format!("`{name}`"));
                reader.error("interpolation", name, &format!("one of {}", names.join(", ")))
            })?
        }
    };
    let mean = reader.channels("mean", IMAGENET_DEFAULT.0)?;
    let std = reader.channels("std", IMAGENET_DEFAULT.1)?;
    if std.contains(&0.0) {
        return Err(reader.error("std", &json!(std), "numbers other than 0"));
    }
    let share = match reader.number("crop_pct", CROP_SHARE)? {
        // Falsy in Python, so the default there too.
        0.0 => CROP_SHARE,
        share => share,
    };
    // Far outside this range no image is left, or an enormous one.
    if !(0.01..=100.0).contains(&share) {
        return Err(reader.error("crop_pct", &json!(share), "the share of the image to keep, such as 0.9"));
    }
    let scaled = |side: u32| ((f64::from(side) / share).floor() as u32).max(1);
    let (scaled_height, scaled_width) = (scaled(height), scaled(width));
    let black = [0; 3];
    let (resize, fill) = match reader.get("crop_mode").map(|mode| mode.as_str().unwrap_or("")) {
        Some("squash") => (Resize::Exact { height: scaled_height, width: scaled_width }, black),
        Some("border") => {
            let fill = mean.map(|mean| (mean * 255.0).round_ties_even() as u8);
            (Resize::KeepRatio { height: scaled_height, width: scaled_width, inside: true }, fill)
        }
        None | Some("center") if scaled_height == scaled_width => {
            (Resize::ShortestEdge { edge: scaled_height, longest: None }, black)
        }
        None | Some("center") => {
            (Resize::KeepRatio { height: scaled_height, width: scaled_width, inside: false }, black)
        }
        Some(other) => return Err(reader.error("crop_mode", &json!(other), "`center`, `squash` or `border`")),
    };
    // A crop that takes nothing away is left out, as then nothing tells it from a plain resize.
    let crop = CenterCrop { height, width, style: CropStyle::Torchvision { fill } };
    let crop = (resize != Resize::Exact { height, width }).then_some(crop);
    let steps = Steps::usual(resize, filter, crop, (mean, std));
    Ok(ImageProcessor::new(path.to_owned(), "TimmWrapper".to_owned(), false, steps))
}
