//! The families of towers, a file a family: what its `config.json` means, and where its tensors lie on disk.
//!
//! A family adds no code to the towers: it fills in an [`ImageTowerConfig`] or a [`TextTowerConfig`] and a table of names.
//! To add one, write its file and list it in [`IMAGE_FAMILIES`] or [`TEXT_FAMILIES`].

mod albert;
mod bert;
mod clip_text;
mod deberta;
mod dinov2;
mod distilbert;
mod keys;
mod modernbert;
mod mpnet;
mod vit;

use std::path::Path;

use serde_json::Value;

use crate::ModelError;
use crate::image_tower::ImageTowerConfig;
use crate::names::Names;
use crate::text_tower::TextTowerConfig;
use keys::Keys;

/// A family of towers whose config is `C`.
pub(crate) struct Family<C: 'static> {
    /// The `model_type`s that are of this family.
    pub model_types: &'static [&'static str],
    /// Its tensors on disk.
    pub names: Names,
    /// Reads its `config.json`.
    config: fn(&Keys<'_>) -> Result<C, ModelError>,
}

/// Every image tower.
const IMAGE_FAMILIES: &[&Family<ImageTowerConfig>] = &[&vit::VIT, &vit::DEIT, &dinov2::DINOV2];

/// Every text tower.
const TEXT_FAMILIES: &[&Family<TextTowerConfig>] = &[
    &bert::BERT,
    &bert::ROBERTA,
    &bert::ELECTRA,
    &mpnet::MPNET,
    &distilbert::DISTILBERT,
    &albert::ALBERT,
    &modernbert::MODERNBERT,
    &deberta::DEBERTA_V2,
    &clip_text::CLIP,
    &clip_text::SIGLIP,
];

/// Reads an image tower's config; `path` is named in errors.
pub(crate) fn image_config(json: &Value, path: &Path) -> Result<(&'static Names, ImageTowerConfig), ModelError> {
    read(json, path, "image", IMAGE_FAMILIES)
}

/// Reads a text tower's config; `path` is named in errors.
pub(crate) fn text_config(json: &Value, path: &Path) -> Result<(&'static Names, TextTowerConfig), ModelError> {
    read(json, path, "text", TEXT_FAMILIES)
}

fn read<C>(
    json: &Value,
    path: &Path,
    kind: &'static str,
    families: &[&'static Family<C>],
) -> Result<(&'static Names, C), ModelError> {
    let keys = Keys { json, path };
    let found = keys.text("model_type", "(none)")?;
    let family = families.iter().find(|family| family.model_types.contains(&found));
    let family = family.ok_or_else(|| ModelError::UnsupportedFamily {
        path: path.to_owned(),
        kind,
        found: found.to_owned(),
        supported: families.iter().flat_map(|family| family.model_types).copied().collect::<Vec<_>>().join(", "),
    })?;
    Ok((&family.names, (family.config)(&keys)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use serde_json::json;

    use super::*;

    #[test]
    fn an_absent_key_has_the_default_of_the_config_class() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/text_families/defaults.json");
        let all: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for whole in all {
            let bare = json!({ "model_type": whole["model_type"] });
            let read = |config| text_config(config, &path).unwrap().1;
            assert_eq!(read(&bare), read(&whole), "{}", whole["model_type"]);
        }
    }

    #[test]
    fn what_a_text_family_cannot_do_is_refused_by_name() {
        let rope = json!({ "full_attention": { "rope_type": "yarn", "rope_theta": 1.0 } });
        for (config, expected) in [
            (json!({ "model_type": "deberta-v2", "conv_kernel_size": 3 }), "`conv_kernel_size`"),
            (json!({ "model_type": "deberta-v2", "pos_att_type": "p2c" }), "`pos_att_type` without"),
            (json!({ "model_type": "albert", "inner_group_num": 2 }), "`inner_group_num` is 2"),
            (json!({ "model_type": "albert", "num_hidden_groups": 13 }), "`num_hidden_groups` is 13"),
            (json!({ "model_type": "mpnet", "relative_attention_num_buckets": 16 }), "the reference counts in 32"),
            (json!({ "model_type": "mpnet", "max_position_embeddings": 2 }), "`max_position_embeddings` is only 2"),
            (json!({ "model_type": "modernbert", "rope_parameters": rope }), "`rope_type` is `yarn`"),
            (json!({ "model_type": "modernbert", "layer_types": ["full_attention"] }), "1 entries for 22 layers"),
            (json!({ "model_type": "modernbert", "classifier_pooling": "max" }), "`classifier_pooling` is `max`"),
            (json!({ "model_type": "distilbert", "activation": "mish" }), "`activation` is `\"mish\"`"),
            (json!({ "model_type": "electra", "is_decoder": true }), "`is_decoder` is true"),
            (json!({ "model_type": "gpt2" }), "modernbert, deberta-v2, clip_text_model, siglip_text_model"),
        ] {
            let error = text_config(&config, Path::new("config.json")).map(drop).unwrap_err().to_string();
            assert!(error.contains(expected), "{config}: {error}");
        }
    }
}
