//! ViT (Dosovitskiy et al., 2021) and DeiT (Touvron et al., 2021), which adds a distillation token.

use dualenc_kernels::Activation;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::transformer::config::{EncoderConfig, NormOrder};
use crate::vision::image_tower::ImageTowerConfig;
use crate::vision::vit_config::{Pooler, PoolerActivation, VisionTransformerConfig};
use crate::weights::layout::Layout::{Leading, LeadingVector, Patches, Same};
use crate::weights::name_table::Kind::{Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const VIT: Family<ImageTowerConfig> = Family {
    model_types: &["vit"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "vit."], probe: "embeddings.patch_embeddings" },
    config: |keys| config(keys, false),
};

pub(super) const DEIT: Family<ImageTowerConfig> = Family {
    model_types: &["deit"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "deit."], probe: "embeddings.patch_embeddings" },
    config: |keys| config(keys, true),
};

const ROWS: &[Row] = &[
    ("patch.weight", "embeddings.patch_embeddings.projection.weight", Tensor(Patches)),
    ("patch.bias", "embeddings.patch_embeddings.projection.bias", Tensor(Same)),
    ("class_token", "embeddings.cls_token", Tensor(LeadingVector(2))),
    ("distillation_token", "embeddings.distillation_token", Tensor(LeadingVector(2))),
    ("positions", "embeddings.position_embeddings", Tensor(Leading(1))),
    ("encoder.blocks.{n}.attention_norm", "encoder.layer.{n}.layernorm_before", Norm),
    ("encoder.blocks.{n}.attention.query", "encoder.layer.{n}.attention.attention.query", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.layer.{n}.attention.attention.key", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.layer.{n}.attention.attention.value", Linear),
    ("encoder.blocks.{n}.attention.output", "encoder.layer.{n}.attention.output.dense", Linear),
    ("encoder.blocks.{n}.mlp_norm", "encoder.layer.{n}.layernorm_after", Norm),
    ("encoder.blocks.{n}.mlp.up", "encoder.layer.{n}.intermediate.dense", Linear),
    ("encoder.blocks.{n}.mlp.down", "encoder.layer.{n}.output.dense", Linear),
    ("final_norm", "layernorm", Norm),
    ("pooler", "pooler.dense", Linear),
];

fn config(keys: &Keys<'_>, distillation_token: bool) -> Result<ImageTowerConfig, ModelError> {
    let (width, heads) = keys.width_and_heads("hidden_size", "num_attention_heads")?;
    let (image_size, patch_size) = keys.image_and_patch(224, 16)?;
    if keys.or("pooler_output_size", width)? != width {
        return Err(keys.problem(
            "`pooler_output_size` differs from `hidden_size`, which the reference does not support either".to_owned(),
        ));
    }
    let pooler = match keys.text("pooler_act", "tanh")? {
        "tanh" => PoolerActivation::Tanh,
        "linear" | "identity" => PoolerActivation::Linear,
        other => return Err(keys.problem(format!("`pooler_act` is `{other}`; supported: tanh, linear"))),
    };
    let depth = keys.or("num_hidden_layers", 12)?;
    let mlp_width = keys.or("intermediate_size", 3072)?;
    let qkv_bias = keys.or("qkv_bias", true)?;
    let encoder = EncoderConfig {
        activation: keys.activation("hidden_act", Activation::Gelu)?,
        norm_order: NormOrder::Pre,
        norm_epsilon: keys.or("layer_norm_eps", 1e-12)?,
        query_bias: qkv_bias,
        key_bias: qkv_bias,
        value_bias: qkv_bias,
        hidden_dropout: keys.or("hidden_dropout_prob", 0.0)?,
        attention_dropout: keys.or("attention_probs_dropout_prob", 0.0)?,
        init_std: keys.or("initializer_range", 0.02)?,
        ..EncoderConfig::plain(width, depth, heads, mlp_width)
    };
    Ok(ImageTowerConfig::Transformer(VisionTransformerConfig {
        distillation_token,
        pooler: Pooler::Dense(pooler),
        ..VisionTransformerConfig::plain(encoder, image_size, patch_size)
    }))
}
