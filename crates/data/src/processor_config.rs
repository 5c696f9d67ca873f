//! Image processor files of Hugging Face: `preprocessor_config.json` (transformers 4) and `processor_config.json`
//! (transformers 5), and what each processor type takes for granted.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{DataError, nearest};
use crate::processor::{ImageProcessor, Resize, Steps};
use crate::resize::Filter;

/// `IMAGENET_DEFAULT_MEAN` and `IMAGENET_DEFAULT_STD` of transformers (`image_utils.py`, also the next two).
const IMAGENET_DEFAULT: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const IMAGENET_STANDARD: ([f64; 3], [f64; 3]) = ([0.5; 3], [0.5; 3]);
const OPENAI_CLIP: ([f64; 3], [f64; 3]) = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]);

/// Processor types read here.
const KNOWN: [&str; 7] = ["ViT", "DeiT", "Beit", "CLIP", "Bit", "Siglip", "ChineseCLIP"];

/// A side longer than this is a mistake (or an attack), not an image size: the decoder's own limit.
const MAX_SIDE_PX: u64 = 16_384;

/// The class attributes of the processor type (`image_processing_pil_*.py` of transformers 5.23).
fn class_defaults(family: &str) -> Option<Steps> {
    let exact = |side| Some(Resize::Exact { height: side, width: side });
    let shortest = |edge| Some(Resize::ShortestEdge { edge, longest: None });
    let (resize, filter, crop, (mean, std)) = match family {
        "ViT" => (exact(224), Filter::Bilinear, None, IMAGENET_STANDARD),
        "DeiT" => (exact(256), Filter::Bicubic, Some((224, 224)), IMAGENET_STANDARD),
        "Beit" => (exact(224), Filter::Bicubic, None, IMAGENET_STANDARD),
        "Siglip" => (exact(224), Filter::Bicubic, None, IMAGENET_STANDARD),
        "CLIP" | "Bit" | "ChineseCLIP" => (shortest(224), Filter::Bicubic, Some((224, 224)), OPENAI_CLIP),
        _ => return None,
    };
    Some(Steps { resize, filter, crop, rescale: Some(1.0 / 255.0), normalize: Some((mean, std)) })
}

/// The processing of a tower that comes without a processor file: that of the published checkpoints of its type,
/// scaled to `image_size`.
///
/// DINOv2: shortest edge 256, crop 224, bicubic, ImageNet statistics. DeiT: 256, crop 224, ImageNet statistics. Others: the
/// class defaults of their processor.
pub(crate) fn defaults_for(model_type: &str) -> (&'static str, Steps) {
    let imagenet = Some((IMAGENET_DEFAULT.0, IMAGENET_DEFAULT.1));
    let class = |family| (family, class_defaults(family).unwrap_or(VIT));
    match model_type {
        "dinov2" | "dinov2_with_registers" => {
            let resize = Some(Resize::ShortestEdge { edge: 256, longest: None });
            ("Bit", Steps { resize, normalize: imagenet, ..class("Bit").1 })
        }
        "deit" => ("DeiT", Steps { normalize: imagenet, ..class("DeiT").1 }),
        "beit" => class("Beit"),
        "clip" | "clip_vision_model" | "chinese_clip_vision_model" => class("CLIP"),
        "siglip" | "siglip_vision_model" => class("Siglip"),
        _ => ("ViT", VIT),
    }
}

const VIT: Steps = Steps {
    resize: Some(Resize::Exact { height: 224, width: 224 }),
    filter: Filter::Bilinear,
    crop: None,
    rescale: Some(1.0 / 255.0),
    normalize: Some((IMAGENET_STANDARD.0, IMAGENET_STANDARD.1)),
};

/// See [`ImageProcessor::from_dir`].
pub(crate) fn from_dir(dir: &Path) -> Result<ImageProcessor, DataError> {
    let nested = dir.join("processor_config.json");
    if let Some(mut config) = read_object(&nested)?
        && let Some(Value::Object(processor)) = config.remove("image_processor")
    {
        return parse(&nested, &processor);
    }
    let flat = dir.join("preprocessor_config.json");
    if let Some(config) = read_object(&flat)? {
        return parse(&flat, &config);
    }
    let model = dir.join("config.json");
    let config = read_object(&model)?.ok_or_else(|| DataError::Processor {
        path: dir.to_owned(),
        key: "image processor".to_owned(),
        found: "missing".to_owned(),
        expected:
            "`preprocessor_config.json`, `processor_config.json`, or a tower's `config.json` to choose defaults by"
                .to_owned(),
    })?;
    let tower = match config.get("vision_config") {
        Some(Value::Object(vision)) => vision,
        _ => &config,
    };
    let model_type = tower.get("model_type").and_then(Value::as_str).unwrap_or("vit");
    let image_size = tower.get("image_size").and_then(Value::as_u64).filter(|&size| (1..=MAX_SIDE_PX).contains(&size));
    // DINOv2 was trained at 518 pixels and is used at 224 with interpolated positions.
    let image_size = image_size.filter(|_| !model_type.starts_with("dinov2"));
    Ok(ImageProcessor::standard(model_type, image_size.map(|size| size as u32)))
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

/// The processor that a file's object describes.
pub(crate) fn parse(path: &Path, config: &Map<String, Value>) -> Result<ImageProcessor, DataError> {
    let reader = Reader { path, config };
    let family = reader.family()?;
    let defaults = class_defaults(family).unwrap_or(VIT);
    // The old files of these classes gave one number for the shortest edge (`default_to_square = False`).
    let square = !matches!(family, "CLIP" | "Bit" | "ChineseCLIP" | "Siglip");

    let resize = if reader.flag("do_resize", defaults.resize.is_some())? {
        reader.resize(square)?.or(defaults.resize)
    } else {
        None
    };
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
    let crop = if reader.flag("do_center_crop", defaults.crop.is_some())? {
        // A class that does not crop by itself still has this size to crop to.
        Some(reader.crop()?.or(defaults.crop).unwrap_or((224, 224)))
    } else {
        None
    };
    let rescale = if reader.flag("do_rescale", true)? { Some(reader.rescale_factor()?) } else { None };
    let normalize = if reader.flag("do_normalize", true)? {
        let (mean, std) = defaults.normalize.unwrap_or(IMAGENET_STANDARD);
        let std = reader.channels("image_std", std)?;
        if std.contains(&0.0) {
            return Err(reader.error("image_std", &json!(std), "numbers other than 0"));
        }
        Some((reader.channels("image_mean", mean)?, std))
    } else {
        None
    };
    if crop.is_none() && !matches!(resize, Some(Resize::Exact { .. })) {
        let size = reader.get("size").cloned().unwrap_or(Value::Null);
        let expected = "`height` and `width`, or a centre crop after it, so that all outputs have one size";
        return Err(reader.error("size", &size, expected));
    }
    let steps = Steps { resize, filter, crop, rescale, normalize };
    Ok(ImageProcessor::new(path.to_owned(), family.to_owned(), false, steps))
}

struct Reader<'a> {
    path: &'a Path,
    config: &'a Map<String, Value>,
}

impl Reader<'_> {
    /// The value of a key; `null` counts as absent, as in transformers.
    fn get(&self, key: &str) -> Option<&Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }

    fn error(&self, key: &str, found: &Value, expected: &str) -> DataError {
        DataError::Processor {
            path: PathBuf::from(self.path),
            key: key.to_owned(),
            found: format!("`{found}`"),
            expected: expected.to_owned(),
        }
    }

    fn family(&self) -> Result<&'static str, DataError> {
        let key =
            if self.get("image_processor_type").is_some() { "image_processor_type" } else { "feature_extractor_type" };
        // The first files of ViT and DeiT named no type.
        let Some(value) = self.get(key) else { return Ok("ViT") };
        let name = value.as_str().unwrap_or("");
        let stem = name.trim_end_matches("Fast").trim_end_matches("Pil");
        let stem = stem.trim_end_matches("ImageProcessor").trim_end_matches("FeatureExtractor");
        KNOWN.into_iter().find(|known| *known == stem).ok_or_else(|| {
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

    fn side(&self, key: &str, value: &Value) -> Result<u32, DataError> {
        let side = value.as_u64().filter(|side| (1..=MAX_SIDE_PX).contains(side));
        side.map(|side| side as u32).ok_or_else(|| self.error(key, value, "a whole number of pixels from 1 to 16384"))
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

    fn rescale_factor(&self) -> Result<f64, DataError> {
        match self.get("rescale_factor") {
            None => Ok(1.0 / 255.0),
            Some(value) => value
                .as_f64()
                .filter(|factor| factor.is_finite())
                .ok_or_else(|| self.error("rescale_factor", value, "a number")),
        }
    }

    /// One number a channel, or one for all.
    fn channels(&self, key: &str, default: [f64; 3]) -> Result<[f64; 3], DataError> {
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
