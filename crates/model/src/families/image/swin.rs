//! Swin (Liu et al., 2021); its `pooler_output` is the mean over space.

use dualenc_kernels::Activation;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::transformer::config::{EncoderConfig, NormOrder, RelativeTable};
use crate::vision::image_tower::ImageTowerConfig;
use crate::vision::swin_transformer::{SwinConfig, window_table_rows};
use crate::weights::layout::Layout::{Leading, Patches, Same};
use crate::weights::name_table::Kind::{Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const SWIN: Family<ImageTowerConfig> = Family {
    model_types: &["swin"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "swin."], probe: "embeddings.patch_embeddings" },
    config,
};

const ROWS: &[Row] = &[
    ("patch.weight", "embeddings.patch_embeddings.projection.weight", Tensor(Patches)),
    ("patch.bias", "embeddings.patch_embeddings.projection.bias", Tensor(Same)),
    ("embedding_norm", "embeddings.norm", Norm),
    ("positions", "embeddings.position_embeddings", Tensor(Leading(1))),
    ("stages.{n}.encoder.blocks.{n}.attention_norm", "encoder.layers.{n}.blocks.{n}.layernorm_before", Norm),
    ("stages.{n}.encoder.blocks.{n}.attention.query", "encoder.layers.{n}.blocks.{n}.attention.self.query", Linear),
    ("stages.{n}.encoder.blocks.{n}.attention.key", "encoder.layers.{n}.blocks.{n}.attention.self.key", Linear),
    ("stages.{n}.encoder.blocks.{n}.attention.value", "encoder.layers.{n}.blocks.{n}.attention.self.value", Linear),
    (
        "stages.{n}.encoder.blocks.{n}.relative_bias.table",
        "encoder.layers.{n}.blocks.{n}.attention.self.relative_position_bias_table",
        Tensor(Same),
    ),
    ("stages.{n}.encoder.blocks.{n}.attention.output", "encoder.layers.{n}.blocks.{n}.attention.output.dense", Linear),
    ("stages.{n}.encoder.blocks.{n}.mlp_norm", "encoder.layers.{n}.blocks.{n}.layernorm_after", Norm),
    ("stages.{n}.encoder.blocks.{n}.mlp.up", "encoder.layers.{n}.blocks.{n}.intermediate.dense", Linear),
    ("stages.{n}.encoder.blocks.{n}.mlp.down", "encoder.layers.{n}.blocks.{n}.output.dense", Linear),
    ("stages.{n}.merging.norm", "encoder.layers.{n}.downsample.norm", Norm),
    ("stages.{n}.merging.reduction", "encoder.layers.{n}.downsample.reduction", Linear),
    ("final_norm", "layernorm", Norm),
];

fn config(keys: &Keys<'_>) -> Result<ImageTowerConfig, ModelError> {
    let width: usize = keys.or("embed_dim", 96)?;
    let depths: Vec<usize> = keys.or("depths", vec![2, 2, 6, 2])?;
    let heads: Vec<usize> = keys.or("num_heads", vec![3, 6, 12, 24])?;
    let (image_size, patch_size) = keys.image_and_patch(224, 4)?;
    let window = keys.or("window_size", 7)?;
    let fits = |(stage, heads): (usize, &usize)| *heads > 0 && (width << stage).is_multiple_of(*heads);
    if depths.is_empty() || depths.len() != heads.len() || window == 0 || !heads.iter().enumerate().all(fits) {
        return Err(keys.problem(format!(
            "`embed_dim` {width}, `depths` {depths:?}, `num_heads` {heads:?} and `window_size` {window} do not fit \
             together; expected one depth and one number of heads per stage, and a width, doubled each stage, that is \
             a multiple of the heads"
        )));
    }
    let qkv_bias = keys.or("qkv_bias", true)?;
    let mlp_ratio: f64 = keys.or("mlp_ratio", 4.0)?;
    let shared = EncoderConfig {
        activation: keys.activation("hidden_act", Activation::Gelu)?,
        norm_order: NormOrder::Pre,
        norm_epsilon: keys.or("layer_norm_eps", 1e-5)?,
        query_bias: qkv_bias,
        key_bias: qkv_bias,
        value_bias: qkv_bias,
        relative: RelativeTable::EachBlock(window_table_rows(window)),
        hidden_dropout: keys.or("hidden_dropout_prob", 0.0)?,
        attention_dropout: keys.or("attention_probs_dropout_prob", 0.0)?,
        init_std: keys.or("initializer_range", 0.02)?,
        ..EncoderConfig::plain(width, 0, 1, 0)
    };
    let stage = |(stage, (depth, heads)): (usize, (usize, usize))| {
        let width = width << stage;
        EncoderConfig { width, depth, heads, mlp_width: (mlp_ratio * width as f64) as usize, ..shared.clone() }
    };
    Ok(ImageTowerConfig::Windowed(SwinConfig {
        stages: depths.into_iter().zip(heads).enumerate().map(stage).collect(),
        image_size,
        patch_size,
        window,
        positions: keys.or("use_absolute_embeddings", false)?,
    }))
}
