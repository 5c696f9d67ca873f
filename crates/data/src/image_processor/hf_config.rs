//! Processor files of transformers: `preprocessor_config.json` (version 4), and the `image_processor` of
//! `processor_config.json` (version 5).
//!
//! Keys that change no pixel of an RGB image (`do_convert_rgb`), or only segmentation maps (`do_reduce_labels`), are
//! ignored.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::did_you_mean::nearest;
use crate::error::DataError;
use crate::image_processor::defaults::{
    CONVNEXT_CROP_FRACTION, CROP_SIDE, IMAGENET_STANDARD, KNOWN, class_defaults, convnext, defaults_to_square,
    of_model_type,
};
use crate::image_processor::json_reader::{JsonReader, read_object};
use crate::image_processor::steps::{Description, Order, Steps};
use crate::image_processor::timm;
use crate::images::filter::Filter;
use crate::images::resize_geometry::{CenterCrop, Resize};

/// The processing that the `object` in `path` describes. If it names no type, the `model_type` in the config
/// `model_config` decides.
pub(crate) fn parse(path: &Path, object: &Map<String, Value>, model_config: &Path) -> Result<Description, DataError> {
    if let Some(Value::Object(pretrained)) = object.get("pretrained_cfg") {
        return timm::parse(path, pretrained);
    }
    let reader = JsonReader { path, object };
    let family = match named_family(&reader)? {
        Some(family) => family,
        None => {
            let config = read_object(model_config)?;
            let model_type = config.as_ref().and_then(|config| tower(config).get("model_type")?.as_str());
            // The first files of ViT and DeiT named no type.
            of_model_type(model_type.unwrap_or("vit"))
        }
    };
    let defaults = class_defaults(family);
    let filter = filter(&reader, defaults.filter)?;
    let (resize, own_crop) = resize_and_own_crop(&reader, family, &defaults)?;
    let crop = center_crop(&reader, own_crop, &defaults)?;
    let rescale =
        if reader.flag("do_rescale", true)? { Some(reader.number("rescale_factor", 1.0 / 255.0)?) } else { None };
    let statistics = reader.statistics("image_mean", "image_std", defaults.normalize.unwrap_or(IMAGENET_STANDARD))?;
    let normalize = reader.flag("do_normalize", true)?.then_some(statistics);
    let efficientnet = family == "EfficientNet";
    let minus_one = efficientnet && reader.flag("rescale_offset", false)? && rescale.is_some();
    let std_again = (efficientnet && reader.flag("include_top", true)?).then_some(statistics.1);
    let steps = Steps { resize, filter, crop, rescale, minus_one, normalize, std_again, ..defaults };
    refuse_unsupported(&reader, &steps)?;
    Ok(Description { family, steps, is_default: false })
}

/// The image tower's part of a model's config.
pub(crate) fn tower(config: &Map<String, Value>) -> &Map<String, Value> {
    config.get("vision_config").and_then(Value::as_object).unwrap_or(config)
}

/// The processor type without prefix and suffixes, if the file names one.
fn named_family(reader: &JsonReader<'_>) -> Result<Option<&'static str>, DataError> {
    let key =
        if reader.get("image_processor_type").is_some() { "image_processor_type" } else { "feature_extractor_type" };
    let Some(value) = reader.get(key) else { return Ok(None) };
    let name = value.as_str().unwrap_or("");
    let stem = name.trim_end_matches("Fast").trim_end_matches("Pil");
    let stem = stem.trim_end_matches("ImageProcessor").trim_end_matches("FeatureExtractor");
    if stem == "Siglip2" {
        let expected = "a processor with one output size; those of `naflex` checkpoints depend on the image. Use a \
                        checkpoint with a `SiglipImageProcessor`, such as `google/siglip2-base-patch16-224`";
        return Err(reader.error(key, value, expected));
    }
    if stem == "TimmWrapper" {
        return Err(reader.error(key, value, "`pretrained_cfg` beside it, or in the `config.json` of a timm model"));
    }
    KNOWN.into_iter().find(|known| *known == stem).map(Some).ok_or_else(|| {
        let known = KNOWN.map(|known| format!("{known}ImageProcessor"));
        let hint = nearest(name, known.iter().map(String::as_str)).filter(|_| !name.is_empty());
        let hint = hint.map_or(String::new(), |name| format!(" (did you mean `{name}`?)"));
        reader.error(key, value, &format!("one of {}{hint}", known.join(", ")))
    })
}

fn filter(reader: &JsonReader<'_>, default: Filter) -> Result<Filter, DataError> {
    let Some(code) = reader.get("resample") else { return Ok(default) };
    code.as_u64().and_then(Filter::from_code).ok_or_else(|| {
        let known = Filter::ALL.map(|filter| format!("{} {}", filter.code(), filter.name()));
        reader.error("resample", code, &format!("a Pillow filter: {}", known.join(", ")))
    })
}

/// The resize, and the crop that is part of ConvNext's resize.
fn resize_and_own_crop(
    reader: &JsonReader<'_>,
    family: &str,
    defaults: &Steps,
) -> Result<(Option<Resize>, Option<CenterCrop>), DataError> {
    if !reader.flag("do_resize", defaults.resize.is_some())? {
        return Ok((None, None));
    }
    // The old files of some classes gave one number for the shortest edge.
    let square = reader.flag("default_to_square", defaults_to_square(family))?;
    let resize = reader.get("size").map(|size| resize(reader, size, square)).transpose()?;
    if family != "ConvNext" {
        return Ok((resize.or(defaults.resize), None));
    }
    match resize {
        None => Ok((defaults.resize, None)),
        Some(Resize::ShortestEdge { edge, .. }) => {
            let (resize, crop) = convnext(edge, reader.crop_fraction(CONVNEXT_CROP_FRACTION)?);
            Ok((Some(resize), crop))
        }
        Some(_) => Err(reader.error("size", reader.get("size").unwrap_or(&Value::Null), "`shortest_edge`")),
    }
}

/// The resize that `size` describes; one number means both sides if `square`, else the shortest edge.
fn resize(reader: &JsonReader<'_>, size: &Value, square: bool) -> Result<Resize, DataError> {
    match size {
        Value::Number(_) => {
            let side = reader.side("size", size)?;
            Ok(if square {
                Resize::Exact { height: side, width: side }
            } else {
                Resize::ShortestEdge { edge: side, longest: None }
            })
        }
        Value::Array(sides) if sides.len() == 2 => {
            Ok(Resize::Exact { height: reader.side("size", &sides[0])?, width: reader.side("size", &sides[1])? })
        }
        Value::Object(sides) => {
            let get = |key: &str| sides.get(key).filter(|value| !value.is_null());
            match (get("height"), get("width"), get("shortest_edge"), get("longest_edge")) {
                (Some(height), Some(width), None, None) => Ok(Resize::Exact {
                    height: reader.side("size.height", height)?,
                    width: reader.side("size.width", width)?,
                }),
                (None, None, Some(edge), longest) => Ok(Resize::ShortestEdge {
                    edge: reader.side("size.shortest_edge", edge)?,
                    longest: longest.map(|longest| reader.side("size.longest_edge", longest)).transpose()?,
                }),
                _ => {
                    let expected = "`height` and `width`, or `shortest_edge` (and `longest_edge`)";
                    Err(reader.error("size", size, expected))
                }
            }
        }
        other => Err(reader.error("size", other, "a number, two numbers, or a table of sides")),
    }
}

fn center_crop(
    reader: &JsonReader<'_>,
    own_crop: Option<CenterCrop>,
    defaults: &Steps,
) -> Result<Option<CenterCrop>, DataError> {
    if !reader.flag("do_center_crop", defaults.crop.is_some())? {
        return Ok(own_crop);
    }
    if own_crop.is_some() {
        return Err(reader.error("do_center_crop", &json!(true), "`false`: this processor crops while it resizes"));
    }
    let (height, width) = match (crop_size(reader)?, defaults.crop) {
        (Some(size), _) => size,
        (None, Some(crop)) => (crop.height, crop.width),
        (None, None) => (CROP_SIDE, CROP_SIDE),
    };
    Ok(Some(CenterCrop::new(height, width)))
}

/// Height and width.
fn crop_size(reader: &JsonReader<'_>) -> Result<Option<(u32, u32)>, DataError> {
    let Some(size) = reader.get("crop_size") else { return Ok(None) };
    match size {
        Value::Number(_) => reader.side("crop_size", size).map(|side| Some((side, side))),
        Value::Array(sides) if sides.len() == 2 => {
            Ok(Some((reader.side("crop_size", &sides[0])?, reader.side("crop_size", &sides[1])?)))
        }
        Value::Object(sides) => match (sides.get("height"), sides.get("width")) {
            (Some(height), Some(width)) => {
                Ok(Some((reader.side("crop_size.height", height)?, reader.side("crop_size.width", width)?)))
            }
            _ => Err(reader.error("crop_size", size, "`height` and `width`")),
        },
        other => Err(reader.error("crop_size", other, "a number or `height` and `width`")),
    }
}

/// Refuses padding, outputs of varying size, and what the float resize cannot do.
fn refuse_unsupported(reader: &JsonReader<'_>, steps: &Steps) -> Result<(), DataError> {
    if reader.flag("do_pad", false)? {
        return Err(reader.error("do_pad", &json!(true), "`false`"));
    }
    if steps.crop.is_none() && !matches!(steps.resize, Some(Resize::Exact { .. })) {
        let size = reader.get("size").cloned().unwrap_or(Value::Null);
        let expected = "`height` and `width`, or a centre crop, so that all outputs have one size";
        return Err(reader.error("size", &size, expected));
    }
    if steps.order == Order::RescaleFirst {
        if steps.crop.is_some() {
            return Err(reader.error("do_center_crop", &json!(true), "`false` for this processor"));
        }
        if !matches!(steps.filter, Filter::Bilinear | Filter::Bicubic) {
            let expected = "2 (bilinear) or 3 (bicubic) for this processor";
            return Err(reader.error("resample", &json!(steps.filter.code()), expected));
        }
    }
    Ok(())
}
