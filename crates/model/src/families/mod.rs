//! The families of towers: what a family's `config.json` means, and how its tensors are named on disk.
//!
//! A family adds no code to the towers: it fills in an [`ImageTowerConfig`] or a [`TextTowerConfig`] and a table of
//! names. To add one, write its file and list it in `image/mod.rs` or `text/mod.rs`.
//!
//! - `absent`: towers with outputs from files.
//! - `config_reader`: reads keys of a `config.json`, with errors that name file, key and value.
//! - `family`: what each family declares.
//! - `image`, `text`: the families.

pub(crate) mod absent;
mod config_reader;
mod family;
mod image;
mod text;

use std::path::Path;

use serde_json::Value;

use crate::error::ModelError;
use crate::text::config::TextTowerConfig;
use crate::vision::image_tower::ImageTowerConfig;
use crate::weights::name_table::Names;
use absent::{NO_NAMES, absent_width};
use config_reader::Keys;
use family::Family;
use image::IMAGE_FAMILIES;
use text::TEXT_FAMILIES;

/// Reads the config of an image tower: its names on disk, and its architecture. `path` is for errors.
///
/// # Errors
/// [`ModelError::UnsupportedFamily`], or [`ModelError::Config`] if a key is malformed or not supported.
pub(crate) fn image_config(json: &Value, path: &Path) -> Result<(&'static Names, ImageTowerConfig), ModelError> {
    match absent_width(&Keys { json, path })? {
        Some(width) => Ok((&NO_NAMES, ImageTowerConfig::Absent { width })),
        None => read(json, path, "image", IMAGE_FAMILIES),
    }
}

/// Reads the config of a text tower, likewise.
///
/// # Errors
/// [`ModelError::UnsupportedFamily`], or [`ModelError::Config`] if a key is malformed or not supported.
pub(crate) fn text_config(json: &Value, path: &Path) -> Result<(&'static Names, TextTowerConfig), ModelError> {
    match absent_width(&Keys { json, path })? {
        Some(width) => Ok((&NO_NAMES, TextTowerConfig::absent(width))),
        None => read(json, path, "text", TEXT_FAMILIES),
    }
}

fn read<C>(
    json: &Value,
    path: &Path,
    kind: &'static str,
    families: &[&'static Family<C>],
) -> Result<(&'static Names, C), ModelError> {
    let keys = Keys { json, path };
    let found = keys.text("model_type", "(none)")?;
    for family in families.iter().filter(|family| family.model_types.contains(&found)) {
        if family.flag.map_or(Ok(true), |flag| flag(&keys))? {
            return Ok((&family.names, (family.config)(&keys)?));
        }
    }
    let unconditional = families.iter().filter(|family| family.flag.is_none());
    Err(ModelError::UnsupportedFamily {
        path: path.to_owned(),
        kind,
        found: found.to_owned(),
        supported: unconditional.flat_map(|family| family.model_types).copied().collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// For each config class in `tests/goldens/{section}`: a config without keys, and one with all defaults spelled
    /// out.
    fn defaults(section: &str) -> Vec<(Value, Value)> {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens");
        let text = std::fs::read_to_string(goldens.join(section).join("defaults.json")).unwrap();
        let all: Vec<Value> = serde_json::from_str(&text).unwrap();
        all.into_iter().map(|whole| (json!({ "model_type": whole["model_type"] }), whole)).collect()
    }

    #[test]
    fn absent_keys_have_defaults() {
        let path = Path::new("config.json");
        for (bare, whole) in defaults("text_families").into_iter().chain(defaults("text_decoders")) {
            let read = |config| text_config(config, path).unwrap().1;
            assert_eq!(read(&bare), read(&whole), "{}", whole["model_type"]);
        }
        for (bare, whole) in defaults("image_families") {
            let read = |config| image_config(config, path).unwrap().1;
            assert_eq!(read(&bare), read(&whole), "{}", whole["model_type"]);
        }
    }

    #[test]
    fn rejects_unsupported_image_configs() {
        for (config, expected) in [
            (json!({ "model_type": "vit", "hidden_size": 10 }), "`hidden_size` 10 is not a multiple"),
            (json!({ "model_type": "vit", "patch_size": [16, 8] }), "`patch_size` is [16, 8]"),
            (json!({ "model_type": "deit", "num_channels": 1 }), "`num_channels` is 1"),
            (json!({ "model_type": "dinov3_vit", "hidden_size": 36 }), "`hidden_size` 36 is not a multiple of 4 times"),
            (
                json!({
                    "model_type": "beit",
                    "use_relative_position_bias": true,
                    "use_shared_relative_position_bias": true,
                }),
                "only one is supported",
            ),
            (json!({ "model_type": "swin", "num_heads": [3] }), "`num_heads` [3]"),
            (json!({ "model_type": "resnet", "depths": [] }), "`depths` []"),
            (json!({ "model_type": "resnet", "layer_type": "wide" }), "supported: bottleneck, basic"),
            (json!({ "model_type": "convnext", "hidden_act": "mish" }), "`hidden_act` is `\"mish\"`"),
            (json!({ "model_type": "siglip2_vision_model" }), "not a supported image tower; supported: vit, deit"),
        ] {
            let error = image_config(&config, Path::new("config.json")).map(drop).unwrap_err().to_string();
            assert!(error.contains(expected), "{config}: {error}");
        }
    }

    #[test]
    fn rejects_unsupported_text_configs() {
        let rope = json!({ "full_attention": { "rope_type": "yarn", "rope_theta": 1.0 } });
        for (config, expected) in [
            (json!({ "model_type": "deberta-v2", "conv_kernel_size": 3 }), "`conv_kernel_size`"),
            (json!({ "model_type": "deberta-v2", "pos_att_type": "p2c" }), "`pos_att_type` without"),
            (json!({ "model_type": "albert", "inner_group_num": 2 }), "`inner_group_num` is 2"),
            (json!({ "model_type": "albert", "num_hidden_groups": 13 }), "`num_hidden_groups` is 13"),
            (json!({ "model_type": "mpnet", "relative_attention_num_buckets": 16 }), "expected at least 32"),
            (json!({ "model_type": "mpnet", "max_position_embeddings": 2 }), "`max_position_embeddings` is only 2"),
            (json!({ "model_type": "modernbert", "rope_parameters": rope }), "`rope_type` is `yarn`"),
            (json!({ "model_type": "modernbert", "layer_types": ["full_attention"] }), "1 entries for 22 layers"),
            (json!({ "model_type": "modernbert", "classifier_pooling": "max" }), "`classifier_pooling` is `max`"),
            (json!({ "model_type": "distilbert", "activation": "mish" }), "`activation` is `\"mish\"`"),
            (json!({ "model_type": "qwen3", "num_key_value_heads": 5 }), "not a multiple of `num_key_value_heads` 5"),
            (json!({ "model_type": "llama", "rope_scaling": { "type": "yarn" } }), "`rope_type` is `yarn`"),
            (json!({ "model_type": "llama", "rope_scaling": { "rope_type": "llama3" } }), "have no `factor`"),
            (json!({ "model_type": "mistral", "head_dim": 7 }), "`head_dim` is 7"),
            (json!({ "model_type": "mistral", "is_causal": false }), "not supported where `is_causal` is false"),
            (json!({ "model_type": "qwen2", "layer_types": vec!["sliding_attention"; 32] }), "there is no window"),
            (json!({ "model_type": "gemma3_text", "attn_logit_softcapping": 50.0 }), "`attn_logit_softcapping`"),
            (json!({ "model_type": "t5", "feed_forward_proj": "gated-mish" }), "`feed_forward_proj` is `gated-mish`"),
            (json!({ "model_type": "new", "pack_qkv": false }), "`pack_qkv` is false; supported: true"),
            (json!({ "model_type": "electra", "is_decoder": true }), "`is_decoder` is true"),
            (json!({ "model_type": "gpt2" }), "gemma3_text, t5, new, gte, clip_text_model, siglip_text_model"),
        ] {
            let error = text_config(&config, Path::new("config.json")).map(drop).unwrap_err().to_string();
            assert!(error.contains(expected), "{config}: {error}");
        }
    }
}
