//! DINOv3's vision transformers (Siméoni et al., 2025): rotary positions of the patches, registers, LayerScale; its
//! `pooler_output` is the class token.

use dualenc_kernels::Activation;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::transformer::config::{EncoderConfig, NormOrder};
use crate::vision::image_tower::ImageTowerConfig;
use crate::vision::vit_config::{Positions, VisionTransformerConfig};
use crate::weights::layout::Layout::{Leading, LeadingVector, Patches, Same};
use crate::weights::name_table::Kind::{Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const DINOV3: Family<ImageTowerConfig> = Family {
    model_types: &["dinov3_vit"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "model.", "backbone."], probe: "embeddings.patch_embeddings" },
    config,
};

const ROWS: &[Row] = &[
    ("patch.weight", "embeddings.patch_embeddings.weight", Tensor(Patches)),
    ("patch.bias", "embeddings.patch_embeddings.bias", Tensor(Same)),
    ("class_token", "embeddings.cls_token", Tensor(LeadingVector(2))),
    ("registers", "embeddings.register_tokens", Tensor(Leading(1))),
    ("mask_token", "embeddings.mask_token", Tensor(LeadingVector(2))),
    ("encoder.blocks.{n}.attention_norm", "layer.{n}.norm1", Norm),
    ("encoder.blocks.{n}.attention.query", "layer.{n}.attention.q_proj", Linear),
    ("encoder.blocks.{n}.attention.key", "layer.{n}.attention.k_proj", Linear),
    ("encoder.blocks.{n}.attention.value", "layer.{n}.attention.v_proj", Linear),
    ("encoder.blocks.{n}.attention.output", "layer.{n}.attention.o_proj", Linear),
    ("encoder.blocks.{n}.attention_scale", "layer.{n}.layer_scale1.lambda1", Tensor(Same)),
    ("encoder.blocks.{n}.mlp_norm", "layer.{n}.norm2", Norm),
    ("encoder.blocks.{n}.mlp.gate", "layer.{n}.mlp.gate_proj", Linear),
    ("encoder.blocks.{n}.mlp.up", "layer.{n}.mlp.up_proj", Linear),
    ("encoder.blocks.{n}.mlp.down", "layer.{n}.mlp.down_proj", Linear),
    ("encoder.blocks.{n}.mlp_scale", "layer.{n}.layer_scale2.lambda1", Tensor(Same)),
    ("final_norm", "norm", Norm),
];

fn config(keys: &Keys<'_>) -> Result<ImageTowerConfig, ModelError> {
    let (width, heads): (usize, usize) = (keys.or("hidden_size", 384)?, keys.or("num_attention_heads", 6)?);
    if heads == 0 || !width.is_multiple_of(4 * heads) {
        return Err(keys.problem(format!(
            "`hidden_size` {width} is not a multiple of 4 times `num_attention_heads` {heads}, which its rotary \
             positions need"
        )));
    }
    let (image_size, patch_size) = keys.image_and_patch(224, 16)?;
    let (depth, mlp_width) = (keys.or("num_hidden_layers", 12)?, keys.or("intermediate_size", 1536)?);
    let encoder = EncoderConfig {
        activation: keys.activation("hidden_act", Activation::Gelu)?,
        norm_order: NormOrder::Pre,
        norm_epsilon: keys.or("layer_norm_eps", 1e-5)?,
        layer_scale: Some(keys.or("layerscale_value", 1.0)?),
        query_bias: keys.or("query_bias", true)?,
        key_bias: keys.or("key_bias", false)?,
        value_bias: keys.or("value_bias", true)?,
        output_bias: keys.or("proj_bias", true)?,
        mlp_bias: keys.or("mlp_bias", true)?,
        gated_mlp: keys.or("use_gated_mlp", false)?,
        attention_dropout: keys.or("attention_dropout", 0.0)?,
        // That of every block (`DINOv3ViTLayer` of modeling_dinov3_vit.py).
        drop_path: keys.drop_path(0.0)?,
        init_std: keys.or("initializer_range", 0.02)?,
        ..EncoderConfig::plain(width, depth, heads, mlp_width)
    };
    Ok(ImageTowerConfig::Transformer(VisionTransformerConfig {
        registers: keys.or("num_register_tokens", 0)?,
        mask_token: true,
        positions: Positions::Rotary(keys.or("rope_theta", 100.0)?),
        ..VisionTransformerConfig::plain(encoder, image_size, patch_size)
    }))
}
