//! The text model of Gemma 3 (Gemma Team, 2025), and EmbeddingGemma (Schechter Vera et al., 2025), which attends to all
//! tokens: scaled embeddings, norms before and after each branch, and five local blocks for each global one.

use dualenc_kernels::Activation;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::families::text::decoder::{GLOBAL, LOCAL, Shape, base, layer_types, pad_id};
use crate::families::text::rotary;
use crate::layers::norm::NormKind;
use crate::pooling::Pooling;
use crate::text::config::{TextPooler, TextTowerConfig};
use crate::text::token_relations::TokenRelations;
use crate::transformer::config::EncoderConfig;
use crate::weights::layout::Layout::Same;
use crate::weights::name_table::Kind::{Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const GEMMA3: Family<TextTowerConfig> = Family {
    model_types: &["gemma3_text"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "model."], probe: "embed_tokens" },
    config,
};

const ROWS: &[Row] = &[
    ("words", "embed_tokens.weight", Tensor(Same)),
    ("encoder.blocks.{n}.attention_norm", "layers.{n}.input_layernorm", Norm),
    ("encoder.blocks.{n}.attention.query", "layers.{n}.self_attn.q_proj", Linear),
    ("encoder.blocks.{n}.attention.key", "layers.{n}.self_attn.k_proj", Linear),
    ("encoder.blocks.{n}.attention.value", "layers.{n}.self_attn.v_proj", Linear),
    ("encoder.blocks.{n}.attention.output", "layers.{n}.self_attn.o_proj", Linear),
    ("encoder.blocks.{n}.attention.query_norm", "layers.{n}.self_attn.q_norm", Norm),
    ("encoder.blocks.{n}.attention.key_norm", "layers.{n}.self_attn.k_norm", Norm),
    ("encoder.blocks.{n}.attention_branch_norm", "layers.{n}.post_attention_layernorm", Norm),
    ("encoder.blocks.{n}.mlp_norm", "layers.{n}.pre_feedforward_layernorm", Norm),
    ("encoder.blocks.{n}.mlp.gate", "layers.{n}.mlp.gate_proj", Linear),
    ("encoder.blocks.{n}.mlp.up", "layers.{n}.mlp.up_proj", Linear),
    ("encoder.blocks.{n}.mlp.down", "layers.{n}.mlp.down_proj", Linear),
    ("encoder.blocks.{n}.mlp_branch_norm", "layers.{n}.post_feedforward_layernorm", Norm),
    ("final_norm", "norm", Norm),
];

fn config(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    if keys.json.get("attn_logit_softcapping").is_some_and(|cap| !cap.is_null()) {
        return Err(keys.problem("`attn_logit_softcapping` is not supported".to_owned()));
    }
    let width: usize = keys.or("hidden_size", 2304)?;
    let head_width: usize = keys.or("head_dim", 256)?;
    let scale: f64 = keys.or("query_pre_attn_scalar", 256.0)?;
    let bias = keys.or("attention_bias", false)?;
    let encoder = EncoderConfig {
        depth: keys.or("num_hidden_layers", 26)?,
        mlp_width: keys.or("intermediate_size", 9216)?,
        activation: keys.activation("hidden_activation", Activation::GeluTanh)?,
        norm_kind: NormKind::RmsFromOne,
        branch_norms: true,
        query_key_norm: true,
        attention_scale: (scale != head_width as f64).then(|| scale.powf(-0.5)),
        query_bias: bias,
        key_bias: bias,
        value_bias: bias,
        output_bias: bias,
        ..base(keys, &Shape { width: 2304, heads: 8, key_heads: 4, head_width: Some(256) })?
    };
    let causal = !keys.or("use_bidirectional_attention", false)?;
    let relations = relations(keys, encoder.depth, causal)?;
    let config = TextTowerConfig::plain(
        encoder,
        keys.or("vocab_size", 262_208)?,
        keys.or("max_position_embeddings", 131_072)?,
        pad_id(keys)?,
    );
    Ok(TextTowerConfig {
        position_table: false,
        embedding_norm: false,
        embedding_scale: Some((width as f64).sqrt()),
        relations,
        pooler: TextPooler::Absent(if causal { Pooling::Last } else { Pooling::Mean }),
        ..config
    })
}

/// The attention of each block.
fn relations(keys: &Keys<'_>, depth: usize, causal: bool) -> Result<Vec<TokenRelations>, ModelError> {
    let every: usize = keys.or("sliding_window_pattern", keys.or("_sliding_window_pattern", 6)?)?;
    if every == 0 {
        return Err(keys.problem("`sliding_window_pattern` is 0; expected at least 1".to_owned()));
    }
    let locals = layer_types(keys, depth)?;
    let locals =
        locals.unwrap_or_else(|| (0..depth).map(|block| !(block + 1).is_multiple_of(every)).collect::<Vec<_>>());
    let window: usize = keys.or("sliding_window", 4096)?;
    // The window counts the token itself, and where attention has two directions, both of them
    // (`Gemma3TextConfig.__post_init__`).
    let window = if causal { window.saturating_sub(1) } else { window / 2 };
    let parameters = &keys.json["rope_parameters"];
    let (global, local) = (&parameters[GLOBAL], &parameters[LOCAL]);
    // Older configs scale the global blocks only.
    let scaling = &keys.json["rope_scaling"];
    let global = if scaling.is_object() { scaling } else { global };
    let global = rotary::of_parameters(keys, global, keys.or("rope_theta", 1_000_000.0)?)?;
    let local = rotary::of_parameters(keys, local, keys.or("rope_local_base_freq", 10_000.0)?)?;
    let local = TokenRelations { causal, window: Some(window), ..local };
    let global = TokenRelations { causal, ..global };
    let of_block = |is_local: bool| if is_local { local } else { global };
    Ok(locals.into_iter().map(of_block).collect())
}
