//! The key of a feature cache, and counts of lookups.
//!
//! A key is the hash of a text with a version: canonical JSON of everything that features depend on. Tests pin the
//! text, so a renamed field of a tower's config cannot change keys unnoticed.

use dualenc_model::{ImageTower, Pooling, TextTower};
use serde::Serialize;
use serde_json::json;

use crate::config::Precision;
use crate::error::TrainError;

/// Part of every key. Raise it when the arithmetic of a tower's forward pass changes the bits of its outputs.
const ARITHMETIC: &[u8] = b"dualenc towers 1";

/// Version of [`describe`]. Raise it when the form of the text changes.
const DESCRIPTION_VERSION: u32 = 1;

/// How many features were computed, and how many were found in the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Features computed now.
    pub computed: usize,
    /// Features found in the cache.
    pub kept: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.computed += other.computed;
        self.kept += other.kept;
    }
}

/// Everything about an image tower that its features depend on, except its weights.
///
/// # Errors
/// [`TrainError::Usage`] when the tower's config has no JSON form.
pub(crate) fn describe_image_tower(tower: &ImageTower, precision: Precision) -> Result<String, TrainError> {
    describe("image", &tower.config(), tower.pooling(), precision)
}

/// Everything about a text tower that its features depend on, except its weights.
///
/// # Errors
/// [`TrainError::Usage`] when the tower's config has no JSON form.
pub(crate) fn describe_text_tower(tower: &TextTower, precision: Precision) -> Result<String, TrainError> {
    describe("text", tower.config(), tower.pooling(), precision)
}

/// JSON with sorted keys and no spaces.
fn describe(
    tower: &str,
    config: &impl Serialize,
    pooling: Pooling,
    precision: Precision,
) -> Result<String, TrainError> {
    let failed = |error: serde_json::Error| {
        TrainError::Usage(format!("the config of the {tower} tower has no JSON form: {error}"))
    };
    let mut description = json!({
        "version": DESCRIPTION_VERSION,
        "tower": tower,
        "config": serde_json::to_value(config).map_err(failed)?,
        "pooling": serde_json::to_value(pooling).map_err(failed)?,
        "precision": precision.name(),
    });
    // serde_json sorts by itself, unless another crate of the program turns its feature `preserve_order` on.
    description.sort_all_objects();
    Ok(description.to_string())
}

/// Starts the key of a tower's cache, from the fingerprint of its weights and its description. The weights alone are
/// not enough: activations and norms without parameters leave no trace in them, and neither does the pooling.
pub(crate) fn tower_key(fingerprint: &str, description: &str) -> blake3::Hasher {
    let mut key = blake3::Hasher::new();
    key.update(ARITHMETIC).update(fingerprint.as_bytes());
    key.update(&(description.len() as u64).to_le_bytes()).update(description.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::Device;
    use dualenc_model::{DualEncoder, ImageTowerConfig};

    use super::*;

    const IMAGE_DESCRIPTION: &str = concat!(
        r#"{"config":{"Transformer":{"class_token":true,"distillation_token":false,"encoder":{"activation":"gelu","#,
        r#""attention_dropout":0.0,"depth":1,"disentangled":null,"drops_attention_branch":true,"#,
        r#""drops_mlp_branch":true,"first_norm":true,"gated_mlp":false,"heads":4,"hidden_dropout":0.0,"#,
        r#""init_std":0.02,"key_bias":true,"layer_scale":null,"mlp_bias":true,"mlp_width":24,"#,
        r#""norm_bias":true,"norm_epsilon":1e-12,"#,
        r#""norm_order":"Pre","order":null,"output_bias":true,"query_bias":true,"relative":"None","#,
        r#""value_bias":true,"width":16},"#,
        r#""final_norm":"Tokens","first_norm":false,"image_size":24,"mask_token":false,"patch_bias":true,"#,
        r#""patch_size":6,"pooler":{"Dense":"Tanh"},"positions":{"Learned":"Bicubic"},"registers":0}},"#,
        r#""pooling":"Pooler","precision":"f32","tower":"image","version":1}"#,
    );

    const TEXT_DESCRIPTION: &str = concat!(
        r#"{"config":{"embedding_norm":true,"embedding_width":null,"encoder":{"activation":"gelu","#,
        r#""attention_dropout":0.1,"depth":2,"disentangled":null,"drops_attention_branch":true,"#,
        r#""drops_mlp_branch":true,"first_norm":true,"gated_mlp":false,"heads":4,"hidden_dropout":0.1,"#,
        r#""init_std":0.02,"key_bias":true,"layer_scale":null,"mlp_bias":true,"mlp_width":20,"#,
        r#""norm_bias":true,"norm_epsilon":1e-12,"#,
        r#""norm_order":"Post","order":null,"output_bias":true,"query_bias":true,"relative":"None","#,
        r#""value_bias":true,"width":12},"#,
        r#""first_position":0,"max_positions":40,"pad_id":0,"pad_to":null,"pooler":"First","position_table":true,"#,
        r#""relations":[],"type_vocab_size":2,"vocab_size":159},"pooling":"Pooler","precision":"bf16","tower":"text","#,
        r#""version":1}"#,
    );

    fn model() -> DualEncoder {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/dual/vit_bert");
        DualEncoder::from_pretrained(dir, &Device::flex()).unwrap()
    }

    fn key(fingerprint: &str, description: &str) -> blake3::Hash {
        tower_key(fingerprint, description).finalize()
    }

    /// A change here makes every cache be filled again: raise `DESCRIPTION_VERSION` and note it in the changelog.
    #[test]
    fn image_tower_description_is_pinned() {
        let description = describe_image_tower(&model().image_tower, Precision::F32).unwrap();
        assert_eq!(description, IMAGE_DESCRIPTION);
    }

    #[test]
    fn text_tower_description_is_pinned() {
        let description = describe_text_tower(&model().text_tower, Precision::Bf16).unwrap();
        assert_eq!(description, TEXT_DESCRIPTION);
    }

    #[test]
    fn key_depends_on_every_part() {
        let ImageTowerConfig::Transformer(config) = model().image_tower.config() else { panic!("a ViT") };
        let describe = |config: &_, pooling, precision| describe("image", config, pooling, precision).unwrap();
        let own = describe(&config, Pooling::Pooler, Precision::F32);
        let mut changed = config.clone();
        changed.encoder.norm_epsilon *= 2.0;
        let mut other_activation = config.clone();
        other_activation.encoder.activation = dualenc_model::Activation::QuickGelu;
        let keys = [
            key("weights", &own),
            key("other weights", &own),
            key("weights", &describe(&config, Pooling::Cls, Precision::F32)),
            key("weights", &describe(&config, Pooling::Pooler, Precision::Bf16)),
            key("weights", &describe(&changed, Pooling::Pooler, Precision::F32)),
            key("weights", &describe(&other_activation, Pooling::Pooler, Precision::F32)),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{at}");
        }
        assert_eq!(keys[0], key("weights", &own));
    }
}
