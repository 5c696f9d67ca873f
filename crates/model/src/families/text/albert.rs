//! ALBERT (Lan et al., 2020): narrow embeddings, and blocks that share weights.

use dualenc_kernels::Activation;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::families::text::bert;
use crate::text::config::TextTowerConfig;
use crate::transformer::config::EncoderConfig;
use crate::weights::layout::Layout::Same;
use crate::weights::name_table::Kind::{Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const ALBERT: Family<TextTowerConfig> = Family {
    model_types: &["albert"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "albert."], probe: "embeddings.word_embeddings" },
    config,
};

const ROWS: &[Row] = &[
    ("words", "embeddings.word_embeddings.weight", Tensor(Same)),
    ("positions", "embeddings.position_embeddings.weight", Tensor(Same)),
    ("token_types", "embeddings.token_type_embeddings.weight", Tensor(Same)),
    ("embedding_norm", "embeddings.LayerNorm", Norm),
    ("embedding_projection", "encoder.embedding_hidden_mapping_in", Linear),
    ("encoder.blocks.{n}.attention.query", "encoder.albert_layer_groups.{n}.albert_layers.0.attention.query", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.albert_layer_groups.{n}.albert_layers.0.attention.key", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.albert_layer_groups.{n}.albert_layers.0.attention.value", Linear),
    ("encoder.blocks.{n}.attention.output", "encoder.albert_layer_groups.{n}.albert_layers.0.attention.dense", Linear),
    ("encoder.blocks.{n}.attention_norm", "encoder.albert_layer_groups.{n}.albert_layers.0.attention.LayerNorm", Norm),
    ("encoder.blocks.{n}.mlp.up", "encoder.albert_layer_groups.{n}.albert_layers.0.ffn", Linear),
    ("encoder.blocks.{n}.mlp.down", "encoder.albert_layer_groups.{n}.albert_layers.0.ffn_output", Linear),
    ("encoder.blocks.{n}.mlp_norm", "encoder.albert_layer_groups.{n}.albert_layers.0.full_layer_layer_norm", Norm),
    ("pooler", "pooler", Linear),
];

fn config(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    let (groups, inner): (usize, usize) = (keys.or("num_hidden_groups", 1)?, keys.or("inner_group_num", 1)?);
    if inner != 1 {
        return Err(
            keys.problem(format!("`inner_group_num` is {inner}; supported: 1, which every released ALBERT has"))
        );
    }
    let default = EncoderConfig { activation: Activation::GeluTanh, ..EncoderConfig::plain(4096, 12, 64, 16_384) };
    let encoder = bert::encoder(keys, default)?;
    let layers = encoder.depth;
    if groups == 0 || groups > layers {
        return Err(
            keys.problem(format!("`num_hidden_groups` is {groups}; expected 1 to {layers}, the `num_hidden_layers`"))
        );
    }
    let encoder = EncoderConfig {
        depth: groups,
        // As in `AlbertTransformer.forward` of modeling_albert.py, with the same floating-point division.
        order: Some((0..layers).map(|layer| (layer as f64 / (layers as f64 / groups as f64)) as usize).collect()),
        drops_mlp_branch: false,
        ..encoder
    };
    let config = TextTowerConfig::plain(
        encoder,
        keys.or("vocab_size", 30_000)?,
        keys.or("max_position_embeddings", 512)?,
        keys.or("pad_token_id", 0)?,
    );
    Ok(TextTowerConfig {
        type_vocab_size: keys.or("type_vocab_size", 2)?,
        embedding_width: Some(keys.or("embedding_size", 128)?),
        ..config
    })
}
