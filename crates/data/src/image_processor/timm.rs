//! The evaluation transform of a timm model from the `pretrained_cfg` of its `config.json`
//! (`TimmWrapperImageProcessor` of transformers; `data/config.py` and `transforms_imagenet_eval` of timm 1.0).

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::DataError;
use crate::image_processor::defaults::IMAGENET_DEFAULT;
use crate::image_processor::json_reader::JsonReader;
use crate::image_processor::steps::{Description, Steps};
use crate::images::filter::Filter;
use crate::images::resize_geometry::{CenterCrop, CropStyle, Resize};

/// `DEFAULT_CROP_PCT` of timm.
const CROP_FRACTION: f64 = 0.875;

/// Height and width where the file has no `input_size`.
const INPUT_SIDE: u32 = 224;

/// The processing that the `pretrained_cfg` in `path` describes.
pub(crate) fn parse(path: &Path, object: &Map<String, Value>) -> Result<Description, DataError> {
    let reader = JsonReader { path, object };
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
            let named = Filter::ALL.into_iter().find(|filter| name.as_str() == Some(filter.name()));
            named.ok_or_else(|| {
                let names = Filter::ALL.map(|filter| format!("`{}`", filter.name()));
                reader.error("interpolation", name, &format!("one of {}", names.join(", ")))
            })?
        }
    };
    let (mean, std) = reader.statistics("mean", "std", IMAGENET_DEFAULT)?;
    // 0 is falsy in Python, so the default there too.
    let fraction = match reader.get("crop_pct").and_then(Value::as_f64) {
        Some(0.0) => CROP_FRACTION,
        _ => reader.crop_fraction(CROP_FRACTION)?,
    };
    let scaled = |side: u32| ((f64::from(side) / fraction).floor() as u32).max(1);
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
    // A crop that removes nothing is dropped: the steps then equal those of a plain resize.
    let crop = CenterCrop { height, width, style: CropStyle::Torchvision { fill } };
    let crop = (resize != Resize::Exact { height, width }).then_some(crop);
    let steps = Steps::usual(resize, filter, crop, (mean, std));
    Ok(Description { family: "TimmWrapper", steps, is_default: false })
}
