//! The evaluation transform of an open_clip model from its `open_clip_config.json` (`transform.py` of open_clip:
//! `PreprocessCfg`, `image_transform`).

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::DataError;
use crate::image_processor::defaults::OPENAI_CLIP;
use crate::image_processor::hf_config::Reader;
use crate::image_processor::{ImageProcessor, Steps};
use crate::images::resize_geometry::{CenterCrop, CropStyle, Resize};
use crate::images::resize_pillow::Filter;

/// Side where the file gives none.
const SIDE: u32 = 224;

/// The processor that `model_cfg` and `preprocess_cfg` describe.
pub(crate) fn parse(path: &Path, config: &Map<String, Value>) -> Result<ImageProcessor, DataError> {
    let empty = Map::new();
    let vision = config.get("model_cfg").and_then(|model| model.get("vision_cfg")).and_then(Value::as_object);
    let preprocess = config.get("preprocess_cfg").and_then(Value::as_object);
    let vision = Reader { path, config: vision.unwrap_or(&empty) };
    let reader = Reader { path, config: preprocess.unwrap_or(&empty) };
    let (height, width) = match (reader.get("size"), vision.get("image_size")) {
        (Some(size), _) => sides(&reader, "size", size)?,
        (None, Some(size)) => sides(&vision, "image_size", size)?,
        (None, None) => (SIDE, SIDE),
    };
    let filter = match reader.get("interpolation").map(|name| name.as_str().unwrap_or_default()) {
        None | Some("bicubic" | "random") => Filter::Bicubic,
        Some("bilinear") => Filter::Bilinear,
        Some(other) => return Err(reader.error("interpolation", &other.into(), "`bicubic` or `bilinear`")),
    };
    let black = CropStyle::Torchvision { fill: [0; 3] };
    let (resize, crop) = match reader.get("resize_mode").map(|mode| mode.as_str().unwrap_or_default()) {
        Some("squash") => (Resize::Exact { height, width }, None),
        None | Some("shortest") if height == width => {
            (Resize::ShortestEdge { edge: height, longest: None }, Some(CenterCrop { height, width, style: black }))
        }
        other => {
            let found = other.unwrap_or("shortest").into();
            return Err(reader.error("resize_mode", &found, "`shortest` to a square, or `squash`"));
        }
    };
    let (mean, std) = (reader.channels("mean", OPENAI_CLIP.0)?, reader.channels("std", OPENAI_CLIP.1)?);
    if std.contains(&0.0) {
        return Err(reader.error("std", &std.to_vec().into(), "numbers other than 0"));
    }
    let steps = Steps::usual(resize, filter, crop, (mean, std));
    Ok(ImageProcessor::new(path.to_owned(), "CLIP".to_owned(), false, steps))
}

/// Height and width from one number or two.
fn sides(reader: &Reader<'_>, key: &str, size: &Value) -> Result<(u32, u32), DataError> {
    match size.as_array().map(Vec::as_slice) {
        Some([height, width]) => Ok((reader.side(key, height)?, reader.side(key, width)?)),
        _ => reader.side(key, size).map(|side| (side, side)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: &Value) -> Result<ImageProcessor, String> {
        let Value::Object(config) = config else { return Err("no object".to_owned()) };
        parse(Path::new("open_clip_config.json"), config).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_file_says_is_done_and_the_rest_is_clips() {
        let described = |config: Value| read(&config).unwrap().describe();
        let plain = read(&json!({ "model_cfg": { "vision_cfg": { "image_size": 336 } } })).unwrap();
        assert_eq!(plain.output_size(), (336, 336));
        let squash = json!({ "preprocess_cfg": {
            "size": [64, 96], "resize_mode": "squash", "interpolation": "bilinear", "mean": [0.5, 0.5, 0.5], "std": 0.5
        } });
        assert_eq!(read(&squash).unwrap().output_size(), (64, 96));
        assert!(described(squash).contains("(bilinear)"));
        let bare = described(json!({}));
        assert!(bare.contains("(bicubic)") && bare.contains("224x224") && bare.contains("0.48145466"), "{bare}");
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (key, value) in [("resize_mode", "longest"), ("interpolation", "box")] {
            let text = read(&json!({ "preprocess_cfg": { key: value } })).map(drop).unwrap_err();
            assert!(text.contains(key) && text.contains(value), "{text}");
        }
    }
}
