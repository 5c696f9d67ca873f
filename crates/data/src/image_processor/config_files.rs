//! Which file of a model directory describes its image processing.

use std::path::Path;

use serde_json::Value;

use crate::error::DataError;
use crate::image_processor::json_reader::{MAX_SIDE_PX, read_object};
use crate::image_processor::steps::Description;
use crate::image_processor::{defaults, hf_config, open_clip, timm};

/// Reads the first file there is, in the order of transformers, or takes the defaults of the tower's `config.json`.
pub(crate) fn read(dir: &Path) -> Result<Description, DataError> {
    let model = dir.join("config.json");
    let nested = dir.join("processor_config.json");
    if let Some(mut config) = read_object(&nested)?
        && let Some(Value::Object(processor)) = config.remove("image_processor")
    {
        return hf_config::parse(&nested, &processor, &model);
    }
    let config = read_object(&model)?;
    let open_clip = dir.join("open_clip_config.json");
    if !config.as_ref().is_some_and(|config| config.contains_key("model_type"))
        && let Some(config) = read_object(&open_clip)?
    {
        return open_clip::parse(&open_clip, &config);
    }
    if let Some(Value::Object(pretrained)) = config.as_ref().and_then(|config| config.get("pretrained_cfg")) {
        return timm::parse(&model, pretrained);
    }
    let flat = dir.join("preprocessor_config.json");
    if let Some(processor) = read_object(&flat)? {
        return hf_config::parse(&flat, &processor, &model);
    }
    let config = config.ok_or_else(|| DataError::Processor {
        path: dir.to_owned(),
        key: "image processor".to_owned(),
        found: "missing".to_owned(),
        expected: "`preprocessor_config.json`, `processor_config.json`, or a tower's `config.json` with a `model_type`"
            .to_owned(),
    })?;
    let tower = hf_config::tower(&config);
    let model_type = tower.get("model_type").and_then(Value::as_str).unwrap_or("vit");
    let image_size = tower.get("image_size").and_then(Value::as_u64).filter(|size| (1..=MAX_SIDE_PX).contains(size));
    // DINOv2 was trained at 518 pixels and is used at 224 with interpolated positions.
    let image_size = image_size.filter(|_| !model_type.starts_with("dinov2"));
    let standard = defaults::standard(model_type);
    Ok(match image_size {
        Some(size) => Description { steps: standard.steps.with_image_size(size as u32), ..standard },
        None => standard,
    })
}
