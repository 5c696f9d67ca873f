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

    use super::*;

    #[test]
    fn an_absent_key_has_the_default_of_the_config_class() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/text_families/defaults.json");
        let all: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for whole in all {
            let bare = serde_json::json!({ "model_type": whole["model_type"] });
            let read = |config| text_config(config, &path).unwrap().1;
            assert_eq!(read(&bare), read(&whole), "{}", whole["model_type"]);
        }
    }
}
