//! The evaluation transform of an open_clip model from its `open_clip_config.json` (`transform.py` of open_clip:
//! `PreprocessCfg`, `image_transform`).

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::DataError;
use crate::image_processor::defaults::OPENAI_CLIP;
use crate::image_processor::json_reader::JsonReader;
use crate::image_processor::steps::{Description, Steps};
use crate::images::filter::Filter;
use crate::images::resize_geometry::{CenterCrop, CropStyle, Resize};

/// Height and width where the file has none.
const SIDE: u32 = 224;

/// The processing that `model_cfg` and `preprocess_cfg` describe.
pub(crate) fn parse(path: &Path, config: &Map<String, Value>) -> Result<Description, DataError> {
    let empty = Map::new();
    let vision = config.get("model_cfg").and_then(|model| model.get("vision_cfg")).and_then(Value::as_object);
    let preprocess = config.get("preprocess_cfg").and_then(Value::as_object);
    let vision = JsonReader { path, object: vision.unwrap_or(&empty) };
    let reader = JsonReader { path, object: preprocess.unwrap_or(&empty) };
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
    let statistics = reader.statistics("mean", "std", OPENAI_CLIP)?;
    let steps = Steps::usual(resize, filter, crop, statistics);
    Ok(Description { family: "CLIP", steps, is_default: false })
}

/// Height and width, from one number or two.
fn sides(reader: &JsonReader<'_>, key: &str, size: &Value) -> Result<(u32, u32), DataError> {
    match size.as_array().map(Vec::as_slice) {
        Some([height, width]) => Ok((reader.side(key, height)?, reader.side(key, width)?)),
        _ => reader.side(key, size).map(|side| (side, side)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: &Value) -> Result<Steps, String> {
        let Value::Object(config) = config else { return Err("no object".to_owned()) };
        let description = parse(Path::new("open_clip_config.json"), config);
        description.map(|description| description.steps).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_override_clip_defaults() {
        let plain = read(&json!({ "model_cfg": { "vision_cfg": { "image_size": 336 } } })).unwrap();
        assert_eq!(plain.output_size(), (336, 336));
        let squash = json!({ "preprocess_cfg": {
            "size": [64, 96], "resize_mode": "squash", "interpolation": "bilinear", "mean": [0.5, 0.5, 0.5], "std": 0.5
        } });
        let squash = read(&squash).unwrap();
        assert_eq!(squash.output_size(), (64, 96));
        assert_eq!(squash.filter, Filter::Bilinear);
        let bare = read(&json!({})).unwrap();
        assert_eq!((bare.filter, bare.output_size()), (Filter::Bicubic, (224, 224)));
        assert_eq!(bare.normalize, Some(OPENAI_CLIP));
    }

    #[test]
    fn rejects_unsupported_values() {
        for (key, value) in [("resize_mode", "longest"), ("interpolation", "box")] {
            let text = read(&json!({ "preprocess_cfg": { key: value } })).map(drop).unwrap_err();
            assert!(text.contains(key) && text.contains(value), "{text}");
        }
    }
}
