//! ModernBERT (Warner et al., 2024): rotary positions, attention that is global in every third block and local in the
//! others, gated MLPs, norms before the branches and without bias; no pooler.

use dualenc_kernels::Activation;
use serde_json::Value;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::pooling::Pooling;
use crate::text::config::{TextPooler, TextTowerConfig};
use crate::text::token_relations::TokenRelations;
use crate::transformer::config::{EncoderConfig, NormOrder};
use crate::weights::layout::Layout::Same;
use crate::weights::matrix::Part;
use crate::weights::name_table::Kind::{Linear, LinearPart, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const MODERNBERT: Family<TextTowerConfig> = Family {
    model_types: &["modernbert"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "model."], probe: "embeddings.tok_embeddings" },
    config,
};

const ROWS: &[Row] = &[
    ("words", "embeddings.tok_embeddings.weight", Tensor(Same)),
    ("embedding_norm", "embeddings.norm", Norm),
    ("encoder.blocks.{n}.attention_norm", "layers.{n}.attn_norm", Norm),
    ("encoder.blocks.{n}.attention.query", "layers.{n}.attn.Wqkv", LinearPart(Part { index: 0, of: 3 })),
    ("encoder.blocks.{n}.attention.key", "layers.{n}.attn.Wqkv", LinearPart(Part { index: 1, of: 3 })),
    ("encoder.blocks.{n}.attention.value", "layers.{n}.attn.Wqkv", LinearPart(Part { index: 2, of: 3 })),
    ("encoder.blocks.{n}.attention.output", "layers.{n}.attn.Wo", Linear),
    ("encoder.blocks.{n}.mlp_norm", "layers.{n}.mlp_norm", Norm),
    ("encoder.blocks.{n}.mlp.gate", "layers.{n}.mlp.Wi", LinearPart(Part { index: 0, of: 2 })),
    ("encoder.blocks.{n}.mlp.up", "layers.{n}.mlp.Wi", LinearPart(Part { index: 1, of: 2 })),
    ("encoder.blocks.{n}.mlp.down", "layers.{n}.mlp.Wo", Linear),
    ("final_norm", "final_norm", Norm),
];

const GLOBAL: &str = "full_attention";
const LOCAL: &str = "sliding_attention";

fn config(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    let (width, heads) = keys.width_and_heads("hidden_size", "num_attention_heads")?;
    let (depth, mlp_width) = (keys.or("num_hidden_layers", 22)?, keys.or("intermediate_size", 1152)?);
    let attention_bias = keys.or("attention_bias", false)?;
    let encoder = EncoderConfig {
        activation: keys.activation("hidden_activation", Activation::Gelu)?,
        norm_order: NormOrder::Pre,
        norm_epsilon: keys.or("norm_eps", 1e-5)?,
        first_norm: false,
        query_bias: attention_bias,
        key_bias: attention_bias,
        value_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: keys.or("mlp_bias", false)?,
        norm_bias: keys.or("norm_bias", false)?,
        gated_mlp: true,
        // The reference applies dropout inside the MLP, and `attention_dropout` after attention. Both are 0 as
        // released.
        hidden_dropout: keys.or("mlp_dropout", 0.0)?,
        attention_dropout: keys.or("attention_dropout", 0.0)?,
        init_std: keys.or("initializer_range", 0.02)?,
        ..EncoderConfig::plain(width, depth, heads, mlp_width)
    };
    let pooling = match keys.text("classifier_pooling", "cls")? {
        "cls" => Pooling::Cls,
        "mean" => Pooling::Mean,
        other => return Err(keys.problem(format!("`classifier_pooling` is `{other}`; supported: cls, mean"))),
    };
    let config = TextTowerConfig::plain(
        encoder,
        keys.or("vocab_size", 50_368)?,
        keys.or("max_position_embeddings", 8192)?,
        keys.or("pad_token_id", 50_283)?,
    );
    Ok(TextTowerConfig {
        position_table: false,
        relations: relations(keys, depth)?,
        pooler: TextPooler::Absent(pooling),
        ..config
    })
}

/// The attention window of each block, and the base of its rotary frequencies.
fn relations(keys: &Keys<'_>, depth: usize) -> Result<Vec<TokenRelations>, ModelError> {
    let every: usize = keys.or("global_attn_every_n_layers", 3)?;
    let usual = |block: usize| if block.is_multiple_of(every) { GLOBAL } else { LOCAL }.to_owned();
    let types: Vec<String> = keys.or("layer_types", (0..depth).map(usual).collect())?;
    if types.len() != depth {
        return Err(keys.problem(format!("`layer_types` has {} entries for {depth} layers", types.len())));
    }
    let window = keys.or("local_attention", 128)? / 2;
    let global = TokenRelations {
        rotary_theta: Some(theta(keys, GLOBAL, "global_rope_theta", 160_000.0)?),
        ..TokenRelations::default()
    };
    let local = TokenRelations {
        rotary_theta: Some(theta(keys, LOCAL, "local_rope_theta", 10_000.0)?),
        window: Some(window),
        ..TokenRelations::default()
    };
    let relations = |kind: &String| match kind.as_str() {
        GLOBAL => Ok(global),
        LOCAL => Ok(local),
        other => Err(keys.problem(format!("`layer_types` has `{other}`; supported: {GLOBAL}, {LOCAL}"))),
    };
    types.iter().map(relations).collect()
}

/// The base of the rotary frequencies for one kind of block. It is in `rope_parameters` since transformers 5, and had a
/// key of its own before.
fn theta(keys: &Keys<'_>, kind: &str, older_key: &str, default: f64) -> Result<f64, ModelError> {
    let parameters = &keys.json["rope_parameters"][kind];
    for scaling in [parameters, &keys.json["rope_scaling"]] {
        match scaling.get("rope_type").or(scaling.get("type")).and_then(Value::as_str) {
            None | Some("default") => {}
            Some(other) => return Err(keys.problem(format!("`rope_type` is `{other}`; supported: default"))),
        }
    }
    match parameters.get("rope_theta") {
        Some(theta) => {
            theta.as_f64().ok_or_else(|| keys.problem(format!("`rope_theta` is `{theta}`; expected a number")))
        }
        None => keys.or(older_key, default),
    }
}
