//! DINOv2 (Oquab et al., 2024), with and without registers (Darcet et al., 2024): LayerScale in every block; its
//! `pooler_output` is the class token itself. The giant model has a SwiGLU MLP.

use dualenc_kernels::Activation;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::transformer::config::{EncoderConfig, NormOrder};
use crate::vision::image_tower::ImageTowerConfig;
use crate::vision::position_interpolation::Interpolation;
use crate::vision::vit_config::{Positions, VisionTransformerConfig};
use crate::weights::layout::Layout::{Leading, LeadingVector, Patches, Same};
use crate::weights::matrix::Part;
use crate::weights::name_table::Kind::{Linear, LinearPart, Norm, Tensor};
use crate::weights::name_table::{Names, Row, concat};

pub(super) const DINOV2: Family<ImageTowerConfig> = Family {
    model_types: &["dinov2"],
    flag: None,
    names: Names { rows: ROWS, prefixes: PREFIXES, probe: "embeddings.patch_embeddings" },
    config: |keys| config(keys, false),
};

pub(super) const DINOV2_SWIGLU: Family<ImageTowerConfig> = Family {
    flag: Some(|keys| keys.or("use_swiglu_ffn", false)),
    names: Names { rows: SWIGLU_ROWS, prefixes: PREFIXES, probe: "embeddings.patch_embeddings" },
    ..DINOV2
};

pub(super) const REGISTERS: Family<ImageTowerConfig> =
    Family { model_types: &["dinov2_with_registers"], config: |keys| config(keys, true), ..DINOV2 };

pub(super) const REGISTERS_SWIGLU: Family<ImageTowerConfig> =
    Family { model_types: &["dinov2_with_registers"], config: |keys| config(keys, true), ..DINOV2_SWIGLU };

const PREFIXES: &[&str] = &["", "dinov2.", "dinov2_with_registers.", "backbone."];

const ROWS: &[Row] = &concat::<{ SHARED.len() + 2 }>(
    SHARED,
    &[
        ("encoder.blocks.{n}.mlp.up", "encoder.layer.{n}.mlp.fc1", Linear),
        ("encoder.blocks.{n}.mlp.down", "encoder.layer.{n}.mlp.fc2", Linear),
    ],
);

const SWIGLU_ROWS: &[Row] = &concat::<{ SHARED.len() + 3 }>(
    SHARED,
    &[
        ("encoder.blocks.{n}.mlp.gate", "encoder.layer.{n}.mlp.weights_in", LinearPart(Part { index: 0, of: 2 })),
        ("encoder.blocks.{n}.mlp.up", "encoder.layer.{n}.mlp.weights_in", LinearPart(Part { index: 1, of: 2 })),
        ("encoder.blocks.{n}.mlp.down", "encoder.layer.{n}.mlp.weights_out", Linear),
    ],
);

const SHARED: &[Row] = &[
    ("patch.weight", "embeddings.patch_embeddings.projection.weight", Tensor(Patches)),
    ("patch.bias", "embeddings.patch_embeddings.projection.bias", Tensor(Same)),
    ("class_token", "embeddings.cls_token", Tensor(LeadingVector(2))),
    ("registers", "embeddings.register_tokens", Tensor(Leading(1))),
    ("mask_token", "embeddings.mask_token", Tensor(Same)),
    ("positions", "embeddings.position_embeddings", Tensor(Leading(1))),
    ("encoder.blocks.{n}.attention_norm", "encoder.layer.{n}.norm1", Norm),
    ("encoder.blocks.{n}.attention.query", "encoder.layer.{n}.attention.attention.query", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.layer.{n}.attention.attention.key", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.layer.{n}.attention.attention.value", Linear),
    ("encoder.blocks.{n}.attention.output", "encoder.layer.{n}.attention.output.dense", Linear),
    ("encoder.blocks.{n}.attention_scale", "encoder.layer.{n}.layer_scale1.lambda1", Tensor(Same)),
    ("encoder.blocks.{n}.mlp_norm", "encoder.layer.{n}.norm2", Norm),
    ("encoder.blocks.{n}.mlp_scale", "encoder.layer.{n}.layer_scale2.lambda1", Tensor(Same)),
    ("final_norm", "layernorm", Norm),
];

fn config(keys: &Keys<'_>, registers: bool) -> Result<ImageTowerConfig, ModelError> {
    let (width, heads) = keys.width_and_heads("hidden_size", "num_attention_heads")?;
    let (image_size, patch_size) = keys.image_and_patch(224, if registers { 16 } else { 14 })?;
    let depth = keys.or("num_hidden_layers", 12)?;
    let mlp_width = (width as f64 * keys.or("mlp_ratio", 4.0)?) as usize;
    let gated_mlp = keys.or("use_swiglu_ffn", false)?;
    // As in the reference: two thirds of the width of the plain MLP, rounded up to a multiple of 8.
    let mlp_width = if gated_mlp { (mlp_width * 2 / 3).next_multiple_of(8) } else { mlp_width };
    let qkv_bias = keys.or("qkv_bias", true)?;
    let activation = if gated_mlp { Activation::Silu } else { keys.activation("hidden_act", Activation::Gelu)? };
    let encoder = EncoderConfig {
        activation,
        gated_mlp,
        norm_order: NormOrder::Pre,
        norm_epsilon: keys.or("layer_norm_eps", 1e-6)?,
        layer_scale: Some(keys.or("layerscale_value", 1.0)?),
        query_bias: qkv_bias,
        key_bias: qkv_bias,
        value_bias: qkv_bias,
        hidden_dropout: keys.or("hidden_dropout_prob", 0.0)?,
        attention_dropout: keys.or("attention_probs_dropout_prob", 0.0)?,
        // That of every block (`Dinov2Layer` of modeling_dinov2.py).
        drop_path: keys.drop_path(0.0)?,
        init_std: keys.or("initializer_range", 0.02)?,
        ..EncoderConfig::plain(width, depth, heads, mlp_width)
    };
    let plain = VisionTransformerConfig {
        mask_token: registers || keys.or("use_mask_token", true)?,
        ..VisionTransformerConfig::plain(encoder, image_size, patch_size)
    };
    Ok(ImageTowerConfig::Transformer(if registers {
        VisionTransformerConfig {
            registers: keys.or("num_register_tokens", 4)?,
            positions: Positions::Learned(Interpolation::BicubicAntialias),
            ..plain
        }
    } else {
        plain
    }))
}
