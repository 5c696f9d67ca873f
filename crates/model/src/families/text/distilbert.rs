//! DistilBERT (Sanh et al., 2019): BERT without token types and without pooler.

use dualenc_kernels::Activation;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::pooling::Pooling;
use crate::text::config::{TextPooler, TextTowerConfig};
use crate::transformer::config::EncoderConfig;
use crate::weights::layout::Layout::Same;
use crate::weights::name_table::Kind::{Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const DISTILBERT: Family<TextTowerConfig> = Family {
    model_types: &["distilbert"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "distilbert."], probe: "embeddings.word_embeddings" },
    config,
};

const ROWS: &[Row] = &[
    ("words", "embeddings.word_embeddings.weight", Tensor(Same)),
    ("positions", "embeddings.position_embeddings.weight", Tensor(Same)),
    ("embedding_norm", "embeddings.LayerNorm", Norm),
    ("encoder.blocks.{n}.attention.query", "transformer.layer.{n}.attention.q_lin", Linear),
    ("encoder.blocks.{n}.attention.key", "transformer.layer.{n}.attention.k_lin", Linear),
    ("encoder.blocks.{n}.attention.value", "transformer.layer.{n}.attention.v_lin", Linear),
    ("encoder.blocks.{n}.attention.output", "transformer.layer.{n}.attention.out_lin", Linear),
    ("encoder.blocks.{n}.attention_norm", "transformer.layer.{n}.sa_layer_norm", Norm),
    ("encoder.blocks.{n}.mlp.up", "transformer.layer.{n}.ffn.lin1", Linear),
    ("encoder.blocks.{n}.mlp.down", "transformer.layer.{n}.ffn.lin2", Linear),
    ("encoder.blocks.{n}.mlp_norm", "transformer.layer.{n}.output_layer_norm", Norm),
];

fn config(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    let (width, heads) = keys.width_and_heads("dim", "n_heads")?;
    let (depth, mlp_width) = (keys.or("n_layers", 6)?, keys.or("hidden_dim", 3072)?);
    let encoder = EncoderConfig {
        activation: keys.activation("activation", Activation::Gelu)?,
        hidden_dropout: keys.or("dropout", 0.1)?,
        drops_attention_branch: false,
        attention_dropout: keys.or("attention_dropout", 0.1)?,
        init_std: keys.or("initializer_range", 0.02)?,
        ..EncoderConfig::plain(width, depth, heads, mlp_width)
    };
    let config = TextTowerConfig::plain(
        encoder,
        keys.or("vocab_size", 30_522)?,
        keys.or("max_position_embeddings", 512)?,
        keys.or("pad_token_id", 0)?,
    );
    Ok(TextTowerConfig { pooler: TextPooler::Absent(Pooling::Cls), ..config })
}
