//! The encoder of T5 (Raffel et al., 2020) and T5 1.1, which gates its MLPs: one relative position bias for all blocks,
//! scores that are not scaled, norms before the branches by the root mean square.

use dualenc_kernels::Activation;
use serde_json::json;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::families::text::decoder::pad_id;
use crate::layers::norm::NormKind;
use crate::pooling::Pooling;
use crate::text::config::{TextPooler, TextTowerConfig};
use crate::text::token_relations::{RelativeBuckets, TokenRelations};
use crate::transformer::config::{EncoderConfig, NormOrder, RelativeTable};
use crate::weights::layout::Layout::Same;
use crate::weights::name_table::Kind::{Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row, concat};

/// T5 1.1 and its relatives (Flan-T5).
pub(super) const GATED_T5: Family<TextTowerConfig> = Family {
    model_types: &["t5"],
    flag: Some(|keys| Ok(mlp(keys)?.0)),
    names: Names { rows: &GATED_ROWS, prefixes: &["", "transformer."], probe: "encoder.block" },
    config,
};

pub(super) const T5: Family<TextTowerConfig> = Family {
    model_types: &["t5"],
    flag: None,
    names: Names { rows: &PLAIN_ROWS, prefixes: &["", "transformer."], probe: "encoder.block" },
    config,
};

const ROWS: &[Row] = &[
    ("words", "shared.weight", Tensor(Same)),
    (
        "encoder.relative_bias.table",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        Tensor(Same),
    ),
    ("encoder.blocks.{n}.attention_norm", "encoder.block.{n}.layer.0.layer_norm", Norm),
    ("encoder.blocks.{n}.attention.query", "encoder.block.{n}.layer.0.SelfAttention.q", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.block.{n}.layer.0.SelfAttention.k", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.block.{n}.layer.0.SelfAttention.v", Linear),
    ("encoder.blocks.{n}.attention.output", "encoder.block.{n}.layer.0.SelfAttention.o", Linear),
    ("encoder.blocks.{n}.mlp_norm", "encoder.block.{n}.layer.1.layer_norm", Norm),
    ("encoder.blocks.{n}.mlp.down", "encoder.block.{n}.layer.1.DenseReluDense.wo", Linear),
    ("final_norm", "encoder.final_layer_norm", Norm),
];

const GATED_ROWS: [Row; 12] = concat(
    ROWS,
    &[
        ("encoder.blocks.{n}.mlp.gate", "encoder.block.{n}.layer.1.DenseReluDense.wi_0", Linear),
        ("encoder.blocks.{n}.mlp.up", "encoder.block.{n}.layer.1.DenseReluDense.wi_1", Linear),
    ],
);

const PLAIN_ROWS: [Row; 11] =
    concat(ROWS, &[("encoder.blocks.{n}.mlp.up", "encoder.block.{n}.layer.1.DenseReluDense.wi", Linear)]);

/// The reference has no limit. T5 was trained on texts of this length, which older configs call `n_positions`.
const MAX_TOKENS: usize = 512;

fn config(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    let (width, heads, head_width): (usize, usize, usize) =
        (keys.or("d_model", 512)?, keys.or("num_heads", 8)?, keys.or("d_kv", 64)?);
    if heads == 0 || head_width == 0 {
        return Err(keys.problem(format!("`num_heads` is {heads} and `d_kv` {head_width}; expected at least 1")));
    }
    let rows: usize = keys.or("relative_attention_num_buckets", 32)?;
    let max_distance: usize = keys.or("relative_attention_max_distance", 128)?;
    if rows < 4 || !rows.is_multiple_of(4) || max_distance <= rows / 4 {
        return Err(keys.problem(format!(
            "`relative_attention_num_buckets` is {rows} and `relative_attention_max_distance` {max_distance}; expected \
             a multiple of 4, and a distance above a quarter of that"
        )));
    }
    let (gated_mlp, activation) = mlp(keys)?;
    // The reference also drops hidden values of the MLP and the final norm's output.
    let dropout = keys.or("dropout_rate", 0.1)?;
    let encoder = EncoderConfig {
        head_width: (heads * head_width != width).then_some(head_width),
        attention_scale: Some(1.0),
        activation,
        gated_mlp,
        norm_order: NormOrder::Pre,
        norm_kind: NormKind::Rms,
        norm_epsilon: keys.or("layer_norm_epsilon", 1e-6)?,
        norm_bias: false,
        query_bias: false,
        key_bias: false,
        value_bias: false,
        output_bias: false,
        mlp_bias: false,
        relative: RelativeTable::Shared(rows),
        hidden_dropout: dropout,
        attention_dropout: dropout,
        // The reference scales each matrix by its own width; this is for towers from scratch only.
        init_std: keys.or::<f64>("initializer_factor", 1.0)? * (width as f64).powf(-0.5),
        ..EncoderConfig::plain(width, keys.or("num_layers", 6)?, heads, keys.or("d_ff", 2048)?)
    };
    let config = TextTowerConfig::plain(
        encoder,
        keys.or("vocab_size", 32_128)?,
        keys.or("n_positions", MAX_TOKENS)?,
        pad_id(keys)?,
    );
    let buckets = RelativeBuckets::Sides { rows, max_distance };
    Ok(TextTowerConfig {
        position_table: false,
        embedding_norm: false,
        relations: vec![TokenRelations { buckets: Some(buckets), ..TokenRelations::default() }],
        pooler: TextPooler::Absent(Pooling::Mean),
        ..config
    })
}

/// Whether MLPs are gated, and their nonlinearity.
fn mlp(keys: &Keys<'_>) -> Result<(bool, Activation), ModelError> {
    let written = keys.text("feed_forward_proj", "relu")?;
    let (is_gated, name) = match written.strip_prefix("gated-") {
        // What T5 1.1 calls GELU is the approximation by tanh.
        Some("gelu") => (true, "gelu_new"),
        Some(name) => (true, name),
        None => (false, written),
    };
    match serde_json::from_value(json!(name)) {
        Ok(activation) => Ok((is_gated, activation)),
        Err(error) => Err(keys.problem(format!("`feed_forward_proj` is `{written}`: {error}"))),
    }
}
