//! Image processor files of Hugging Face: `preprocessor_config.json` (transformers 4), `processor_config.json`
//! (transformers 5), timm's `config.json`, and open_clip's `open_clip_config.json`.
//!
//! Keys that change no pixel of an image that is RGB already, or only segmentation maps (`do_convert_rgb`,
//! `do_reduce_labels`), are not looked at.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{DataError, nearest};
use crate::image_processor::defaults::{
    CONVNEXT_CROP_SHARE, CROP_SIDE, IMAGENET_STANDARD, KNOWN, class_defaults, convnext, defaults_to_square,
    of_model_type,
};
use crate::image_processor::{ImageProcessor, Order, Steps};
use crate::image_processor::{open_clip as open_clip_config, timm as timm_config};
use crate::images::resize_geometry::{CenterCrop, Resize};
use crate::images::resize_pillow::Filter;

/// A side longer than this is a mistake (or an attack), not an image size: the decoder's own limit.
const MAX_SIDE_PX: u64 = 16_384;

/// See [`ImageProcessor::from_dir`].
pub(crate) fn from_dir(dir: &Path) -> Result<ImageProcessor, DataError> {
    let model = dir.join("config.json");
    let nested = dir.join("processor_config.json");
    if let Some(mut config) = read_object(&nested)?
        && let Some(Value::Object(processor)) = config.remove("image_processor")
    {
        return parse(&nested, &processor, &model);
    }
    let config = read_object(&model)?;
    let open_clip = dir.join("open_clip_config.json");
    if !config.as_ref().is_some_and(|config| config.contains_key("model_type"))
        && let Some(config) = read_object(&open_clip)?
    {
        return open_clip_config::parse(&open_clip, &config);
    }
    if let Some(Value::Object(pretrained)) = config.as_ref().and_then(|config| config.get("pretrained_cfg")) {
        return timm_config::parse(&model, pretrained);
    }
    let flat = dir.join("preprocessor_config.json");
    if let Some(processor) = read_object(&flat)? {
        return parse(&flat, &processor, &model);
    }
    let config = config.ok_or_else(|| DataError::Processor {
        path: dir.to_owned(),
        key: "image processor".to_owned(),
        found: "missing".to_owned(),
        expected:
            "`preprocessor_config.json`, `processor_config.json`, or a tower's `config.json` to choose defaults by"
                .to_owned(),
    })?;
    let tower = tower(&config);
    let model_type = tower.get("model_type").and_then(Value::as_str).unwrap_or("vit");
    let image_size = tower.get("image_size").and_then(Value::as_u64).filter(|&size| (1..=MAX_SIDE_PX).contains(&size));
    // DINOv2 was trained at 518 pixels and is used at 224 with interpolated positions.
    let image_size = image_size.filter(|_| !model_type.starts_with("dinov2"));
    Ok(ImageProcessor::standard(model_type, image_size.map(|size| size as u32)))
}

/// The image tower's part of a model's config.
fn tower(config: &Map<String, Value>) -> &Map<String, Value> {
    config.get("vision_config").and_then(Value::as_object).unwrap_or(config)
}

fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, DataError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataError::Read { path: path.to_owned(), source }),
    };
    let object = serde_json::from_slice(&bytes);
    object
        .map(Some)
        .map_err(|error| DataError::Malformed { path: path.to_owned(), reason: format!("not a JSON object: {error}") })
}

/// The processor that a file's object describes; `model` is the config whose `model_type` tells the type if the file
/// does not.
fn parse(path: &Path, config: &Map<String, Value>, model: &Path) -> Result<ImageProcessor, DataError> {
    if let Some(Value::Object(pretrained)) = config.get("pretrained_cfg") {
        return timm_config::parse(path, pretrained);
    }
    let reader = Reader { path, config };
    let family = match reader.family()? {
        Some(family) => family,
        None => {
            let config = read_object(model)?;
            let model_type = config.as_ref().and_then(|config| tower(config).get("model_type")?.as_str());
            // The first files of ViT and DeiT named no type.
            of_model_type(model_type.unwrap_or("vit"))
        }
    };
    let defaults = class_defaults(family);
    let filter = match reader.get("resample") {
        None => defaults.filter,
        Some(code) => code.as_u64().and_then(Filter::from_code).ok_or_else(|| {
            reader.error(
                "resample",
                code,
                "a Pillow filter: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming",
            )
        })?,
    };
    let (resize, own_crop) = reader.resize_and_own_crop(family, &defaults)?;
    let crop = if reader.flag("do_center_crop", defaults.crop.is_some())? {
        if own_crop.is_some() {
            return Err(reader.error("do_center_crop", &json!(true), "`false`: this processor crops while it resizes"));
        }
        let (height, width) = match (reader.crop()?, defaults.crop) {
            (Some(size), _) => size,
            (None, Some(crop)) => (crop.height, crop.width),
            (None, None) => (CROP_SIDE, CROP_SIDE),
        };
        Some(CenterCrop::new(height, width))
    } else {
        own_crop
    };
    let rescale =
        if reader.flag("do_rescale", true)? { Some(reader.number("rescale_factor", 1.0 / 255.0)?) } else { None };
    let (mean, std) = defaults.normalize.unwrap_or(IMAGENET_STANDARD);
    let (mean, std) = (reader.channels("image_mean", mean)?, reader.channels("image_std", std)?);
    if std.contains(&0.0) {
        return Err(reader.error("image_std", &json!(std), "numbers other than 0"));
    }
    let normalize = reader.flag("do_normalize", true)?.then_some((mean, std));
    let efficientnet = family == "EfficientNet";
    let minus_one = efficientnet && reader.flag("rescale_offset", false)? && rescale.is_some();
    let std_again = (efficientnet && reader.flag("include_top", true)?).then_some(std);
    if reader.flag("do_pad", false)? {
        return Err(reader.error("do_pad", &json!(true), "`false`"));
    }
    if crop.is_none() && !matches!(resize, Some(Resize::Exact { .. })) {
        let size = reader.get("size").cloned().unwrap_or(Value::Null);
        let expected = "`height` and `width`, or a centre crop after it, so that all outputs have one size";
        return Err(reader.error("size", &size, expected));
    }
    if defaults.order == Order::RescaleFirst {
        if crop.is_some() {
            return Err(reader.error("do_center_crop", &json!(true), "`false` for this processor"));
        }
        if !matches!(filter, Filter::Bilinear | Filter::Bicubic) {
            return Err(reader.error(
                "resample",
                &json!(filter.code()),
                "2 (bilinear) or 3 (bicubic) for this processor",
            ));
        }
    }
    let steps = Steps { resize, filter, crop, rescale, minus_one, normalize, std_again, ..defaults };
    Ok(ImageProcessor::new(path.to_owned(), family.to_owned(), false, steps))
}

/// Values of a file's object, with errors that name it.
pub(crate) struct Reader<'a> {
    pub(crate) path: &'a Path,
    pub(crate) config: &'a Map<String, Value>,
}

impl Reader<'_> {
    /// The value of a key; `null` counts as absent, as in transformers.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn error(&self, key: &str, found: &Value, expected: &str) -> DataError {
        DataError::Processor {
            path: PathBuf::from(self.path),
            key: key.to_owned(),
            found: format!("`{found}`"),
            expected: expected.to_owned(),
        }
    }

    /// The type without prefix and suffixes, if the file names one.
    fn family(&self) -> Result<Option<&'static str>, DataError> {
        let key =
            if self.get("image_processor_type").is_some() { "image_processor_type" } else { "feature_extractor_type" };
        let Some(value) = self.get(key) else { return Ok(None) };
        let name = value.as_str().unwrap_or("");
        let stem = name.trim_end_matches("Fast").trim_end_matches("Pil");
        let stem = stem.trim_end_matches("ImageProcessor").trim_end_matches("FeatureExtractor");
        if stem == "Siglip2" {
            let expected = "a processor that gives all images one size; `naflex` checkpoints give each its own. Take a \
                            checkpoint with a `SiglipImageProcessor`, such as `google/siglip2-base-patch16-224`";
            return Err(self.error(key, value, expected));
        }
        if stem == "TimmWrapper" {
            return Err(self.error(key, value, "`pretrained_cfg` beside it, or in the `config.json` of a timm model"));
        }
        KNOWN.into_iter().find(|known| *known == stem).map(Some).ok_or_else(|| {
            let known = KNOWN.map(|known| format!("{known}ImageProcessor"));
            let hint = nearest(name, known.iter().map(String::as_str)).filter(|_| !name.is_empty());
            let hint = hint.map_or(String::new(), |name| format!(" (did you mean `{name}`?)"));
            self.error(key, value, &format!("one of {}{hint}", known.join(", ")))
        })
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, DataError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.error(key, other, "true or false")),
        }
    }

    pub(crate) fn side(&self, key: &str, value: &Value) -> Result<u32, DataError> {
        let side = value.as_u64().filter(|side| (1..=MAX_SIDE_PX).contains(side));
        side.map(|side| side as u32).ok_or_else(|| self.error(key, value, "a whole number of pixels from 1 to 16384"))
    }

    /// The resize, and the crop that ConvNext's resize contains.
    fn resize_and_own_crop(
        &self,
        family: &str,
        defaults: &Steps,
    ) -> Result<(Option<Resize>, Option<CenterCrop>), DataError> {
        if !self.flag("do_resize", defaults.resize.is_some())? {
            return Ok((None, None));
        }
        // The old files of some classes gave one number for the shortest edge.
        let square = self.flag("default_to_square", defaults_to_square(family))?;
        let resize = self.resize(square)?;
        if family != "ConvNext" {
            return Ok((resize.or(defaults.resize), None));
        }
        match resize {
            None => Ok((defaults.resize, None)),
            Some(Resize::ShortestEdge { edge, .. }) => {
                let share = self.number("crop_pct", CONVNEXT_CROP_SHARE)?;
                // Far outside this range no image is left, or an enormous one.
                if !(0.01..=100.0).contains(&share) {
                    return Err(self.error("crop_pct", &json!(share), "the share of the image to keep, such as 0.875"));
                }
                let (resize, crop) = convnext(edge, share);
                Ok((Some(resize), crop))
            }
            Some(_) => Err(self.error("size", self.get("size").unwrap_or(&Value::Null), "`shortest_edge`")),
        }
    }

    fn resize(&self, square: bool) -> Result<Option<Resize>, DataError> {
        let Some(size) = self.get("size") else { return Ok(None) };
        let resize = match size {
            Value::Number(_) => {
                let side = self.side("size", size)?;
                if square {
                    Resize::Exact { height: side, width: side }
                } else {
                    Resize::ShortestEdge { edge: side, longest: None }
                }
            }
            Value::Array(sides) if sides.len() == 2 => {
                Resize::Exact { height: self.side("size", &sides[0])?, width: self.side("size", &sides[1])? }
            }
            Value::Object(sides) => {
                let get = |key: &str| sides.get(key).filter(|value| !value.is_null());
                match (get("height"), get("width"), get("shortest_edge"), get("longest_edge")) {
                    (Some(height), Some(width), None, None) => Resize::Exact {
                        height: self.side("size.height", height)?,
                        width: self.side("size.width", width)?,
                    },
                    (None, None, Some(edge), longest) => Resize::ShortestEdge {
                        edge: self.side("size.shortest_edge", edge)?,
                        longest: longest.map(|longest| self.side("size.longest_edge", longest)).transpose()?,
                    },
                    _ => {
                        return Err(self.error(
                            "size",
                            size,
                            "`height` and `width`, or `shortest_edge` (and `longest_edge`)",
                        ));
                    }
                }
            }
            other => return Err(self.error("size", other, "a number, two numbers, or a table of sides")),
        };
        Ok(Some(resize))
    }

    /// Height and width.
    fn crop(&self) -> Result<Option<(u32, u32)>, DataError> {
        let Some(size) = self.get("crop_size") else { return Ok(None) };
        match size {
            Value::Number(_) => self.side("crop_size", size).map(|side| Some((side, side))),
            Value::Array(sides) if sides.len() == 2 => {
                Ok(Some((self.side("crop_size", &sides[0])?, self.side("crop_size", &sides[1])?)))
            }
            Value::Object(sides) => match (sides.get("height"), sides.get("width")) {
                (Some(height), Some(width)) => {
                    Ok(Some((self.side("crop_size.height", height)?, self.side("crop_size.width", width)?)))
                }
                _ => Err(self.error("crop_size", size, "`height` and `width`")),
            },
            other => Err(self.error("crop_size", other, "a number or `height` and `width`")),
        }
    }

    pub(crate) fn number(&self, key: &str, default: f64) -> Result<f64, DataError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => {
                value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| self.error(key, value, "a number"))
            }
        }
    }

    /// One number a channel, or one for all.
    pub(crate) fn channels(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3], DataError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let numbers: Option<Vec<f64>> = match value {
            Value::Array(values) => values.iter().map(Value::as_f64).collect(),
            other => other.as_f64().map(|number| vec![number; 3]),
        };
        numbers
            .and_then(|numbers| <[f64; 3]>::try_from(numbers).ok())
            .filter(|numbers| numbers.iter().all(|number| number.is_finite()))
            .ok_or_else(|| self.error(key, value, "three numbers"))
    }
}
