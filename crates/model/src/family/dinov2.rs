//! DINOv2 (Oquab et al., 2024): LayerScale in every block; its `pooler_output` is the class token itself.

use super::Family;
use super::keys::Keys;
use crate::ModelError;
use crate::encoder::{EncoderConfig, NormOrder};
use crate::image_tower::ImageTowerConfig;
use crate::layers::Activation;
use crate::names::Kind::{Linear, Norm, Tensor};
use crate::names::Layout::{Leading, LeadingVector, Patches, Same};
use crate::names::{Names, Row};

pub(super) const DINOV2: Family<ImageTowerConfig> = Family {
    model_types: &["dinov2"],
    names: Names { rows: ROWS, prefixes: &["", "dinov2.", "backbone."], probe: "embeddings.patch_embeddings" },
    config,
};

const ROWS: &[Row] = &[
    ("patch.weight", "embeddings.patch_embeddings.projection.weight", Tensor(Patches)),
    ("patch.bias", "embeddings.patch_embeddings.projection.bias", Tensor(Same)),
    ("class_token", "embeddings.cls_token", Tensor(LeadingVector(2))),
    ("positions", "embeddings.position_embeddings", Tensor(Leading(1))),
    ("encoder.blocks.{n}.attention_norm", "encoder.layer.{n}.norm1", Norm),
    ("encoder.blocks.{n}.attention.query", "encoder.layer.{n}.attention.attention.query", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.layer.{n}.attention.attention.key", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.layer.{n}.attention.attention.value", Linear),
    ("encoder.blocks.{n}.attention.output", "encoder.layer.{n}.attention.output.dense", Linear),
    ("encoder.blocks.{n}.attention_scale", "encoder.layer.{n}.layer_scale1.lambda1", Tensor(Same)),
    ("encoder.blocks.{n}.mlp_norm", "encoder.layer.{n}.norm2", Norm),
    ("encoder.blocks.{n}.mlp.up", "encoder.layer.{n}.mlp.fc1", Linear),
    ("encoder.blocks.{n}.mlp.down", "encoder.layer.{n}.mlp.fc2", Linear),
    ("encoder.blocks.{n}.mlp_scale", "encoder.layer.{n}.layer_scale2.lambda1", Tensor(Same)),
    ("final_norm", "layernorm", Norm),
];

fn config(keys: &Keys<'_>) -> Result<ImageTowerConfig, ModelError> {
    let (width, heads) = keys.width_and_heads("hidden_size", "num_attention_heads")?;
    let (image_size, patch_size) = keys.image_and_patch(224, 14)?;
    if keys.or("use_swiglu_ffn", false)? {
        return Err(keys.problem("`use_swiglu_ffn` (DINOv2-giant) is not supported yet".to_owned()));
    }
    let depth = keys.or("num_hidden_layers", 12)?;
    let mlp_width = (width as f64 * keys.or("mlp_ratio", 4.0)?) as usize;
    let qkv_bias = keys.or("qkv_bias", true)?;
    Ok(ImageTowerConfig {
        encoder: EncoderConfig {
            activation: keys.activation("hidden_act", Activation::Gelu)?,
            norm_order: NormOrder::Pre,
            norm_epsilon: keys.or("layer_norm_eps", 1e-6)?,
            layer_scale: Some(keys.or("layerscale_value", 1.0)?),
            query_bias: qkv_bias,
            key_bias: qkv_bias,
            value_bias: qkv_bias,
            hidden_dropout: keys.or("hidden_dropout_prob", 0.0)?,
            attention_dropout: keys.or("attention_probs_dropout_prob", 0.0)?,
            init_std: keys.or("initializer_range", 0.02)?,
            ..EncoderConfig::plain(width, depth, heads, mlp_width)
        },
        image_size,
        patch_size,
        distillation_token: false,
        pooler: None,
    })
}
