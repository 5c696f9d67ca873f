//! Decoders as text towers: Llama (Touvron et al., 2023), Mistral (Jiang et al., 2023), Qwen2 and Qwen3 (Yang et al.,
//! 2024; 2025), which Qwen3-Embedding is one of. A token attends to itself and earlier ones, so the last one stands for
//! the text.

use dualenc_kernels::Activation;
use serde_json::Value;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::families::text::rotary;
use crate::layers::norm::NormKind;
use crate::pooling::Pooling;
use crate::text::config::{TextPooler, TextTowerConfig};
use crate::text::token_relations::TokenRelations;
use crate::transformer::config::{EncoderConfig, NormOrder};
use crate::weights::layout::Layout::Same;
use crate::weights::name_table::Kind::{Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const LLAMA: Family<TextTowerConfig> =
    Family { model_types: &["llama"], flag: None, names: NAMES, config: llama };

pub(super) const MISTRAL: Family<TextTowerConfig> =
    Family { model_types: &["mistral"], flag: None, names: NAMES, config: mistral };

pub(super) const QWEN2: Family<TextTowerConfig> =
    Family { model_types: &["qwen2"], flag: None, names: NAMES, config: qwen2 };

pub(super) const QWEN3: Family<TextTowerConfig> =
    Family { model_types: &["qwen3"], flag: None, names: NAMES, config: qwen3 };

/// Models with a head for the next word write the prefix.
const NAMES: Names = Names { rows: ROWS, prefixes: &["", "model."], probe: "embed_tokens" };

const ROWS: &[Row] = &[
    ("words", "embed_tokens.weight", Tensor(Same)),
    ("encoder.blocks.{n}.attention_norm", "layers.{n}.input_layernorm", Norm),
    ("encoder.blocks.{n}.attention.query", "layers.{n}.self_attn.q_proj", Linear),
    ("encoder.blocks.{n}.attention.key", "layers.{n}.self_attn.k_proj", Linear),
    ("encoder.blocks.{n}.attention.value", "layers.{n}.self_attn.v_proj", Linear),
    ("encoder.blocks.{n}.attention.output", "layers.{n}.self_attn.o_proj", Linear),
    ("encoder.blocks.{n}.attention.query_norm", "layers.{n}.self_attn.q_norm", Norm),
    ("encoder.blocks.{n}.attention.key_norm", "layers.{n}.self_attn.k_norm", Norm),
    ("encoder.blocks.{n}.mlp_norm", "layers.{n}.post_attention_layernorm", Norm),
    ("encoder.blocks.{n}.mlp.gate", "layers.{n}.mlp.gate_proj", Linear),
    ("encoder.blocks.{n}.mlp.up", "layers.{n}.mlp.up_proj", Linear),
    ("encoder.blocks.{n}.mlp.down", "layers.{n}.mlp.down_proj", Linear),
    ("final_norm", "norm", Norm),
];

pub(super) const GLOBAL: &str = "full_attention";
pub(super) const LOCAL: &str = "sliding_attention";

/// The defaults in which the config classes of these families differ.
struct Defaults {
    mlp_width: usize,
    depth: usize,
    key_heads: usize,
    head_width: Option<usize>,
    vocab_size: usize,
    max_positions: usize,
}

const QWEN: Defaults = Defaults {
    mlp_width: 22_016,
    depth: 32,
    key_heads: 32,
    head_width: None,
    vocab_size: 151_936,
    max_positions: 32_768,
};

fn llama(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    let heads = keys.or("num_attention_heads", 32)?;
    let defaults = Defaults {
        mlp_width: 11_008,
        depth: 32,
        key_heads: heads,
        head_width: None,
        vocab_size: 32_000,
        max_positions: 2048,
    };
    let bias = keys.or("attention_bias", false)?;
    let mlp_bias = keys.or("mlp_bias", false)?;
    decoder(keys, &defaults, |encoder| EncoderConfig { mlp_bias, ..with_attention_bias(encoder, bias) }, &|_| None)
}

fn mistral(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    let defaults = Defaults {
        mlp_width: 14_336,
        depth: 32,
        key_heads: 8,
        head_width: None,
        vocab_size: 32_000,
        max_positions: 131_072,
    };
    if keys.json.get("layer_types").is_some_and(|types| !types.is_null()) {
        return Err(keys.problem("`layer_types` is not supported for `mistral`".to_owned()));
    }
    // An absent window is the default of 4096, and `null` is none.
    let window = match keys.json.get("sliding_window") {
        None => Some(4096),
        Some(_) => keys.get("sliding_window")?,
    };
    decoder(keys, &defaults, |encoder| encoder, &|_| window)
}

fn qwen2(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    let windows = windows(keys, QWEN.depth)?;
    let biased = |encoder| EncoderConfig { query_bias: true, key_bias: true, value_bias: true, ..encoder };
    decoder(keys, &QWEN, biased, &|block| windows[block])
}

fn qwen3(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    let defaults = Defaults { head_width: Some(128), ..QWEN };
    let windows = windows(keys, defaults.depth)?;
    let bias = keys.or("attention_bias", false)?;
    let normed = |encoder| EncoderConfig { query_key_norm: true, ..with_attention_bias(encoder, bias) };
    decoder(keys, &defaults, normed, &|block| windows[block])
}

fn with_attention_bias(encoder: EncoderConfig, bias: bool) -> EncoderConfig {
    EncoderConfig { query_bias: bias, key_bias: bias, value_bias: bias, output_bias: bias, ..encoder }
}

/// Reads what these families have in common. `window` is the number of tokens that a token of a block attends to,
/// itself included; `None` for no limit.
fn decoder(
    keys: &Keys<'_>,
    defaults: &Defaults,
    own: impl FnOnce(EncoderConfig) -> EncoderConfig,
    window: &dyn Fn(usize) -> Option<usize>,
) -> Result<TextTowerConfig, ModelError> {
    let Defaults { key_heads, head_width, .. } = *defaults;
    let base = base(keys, &Shape { width: 4096, heads: 32, key_heads, head_width })?;
    let encoder = own(EncoderConfig {
        depth: keys.or("num_hidden_layers", defaults.depth)?,
        mlp_width: keys.or("intermediate_size", defaults.mlp_width)?,
        activation: keys.activation("hidden_act", Activation::Silu)?,
        norm_kind: NormKind::Rms,
        ..base
    });
    let rotary = rotary::of(keys, &keys.json["rope_parameters"], 10_000.0)?;
    // Models that were made into embedders may attend to all tokens (`is_causal` of gte-Qwen2).
    let causal = keys.or("is_causal", true)?;
    let relations = |block| match window(block) {
        Some(0) => Err(keys.problem("`sliding_window` is 0; expected at least 1".to_owned())),
        Some(_) if !causal => {
            Err(keys.problem("`sliding_window` is not supported where `is_causal` is false".to_owned()))
        }
        window => Ok(TokenRelations { causal, window: window.map(|tokens| tokens - 1), ..rotary }),
    };
    let relations = (0..encoder.depth).map(relations).collect::<Result<_, _>>()?;
    let config = TextTowerConfig::plain(
        encoder,
        keys.or("vocab_size", defaults.vocab_size)?,
        keys.or("max_position_embeddings", defaults.max_positions)?,
        pad_id(keys)?,
    );
    Ok(TextTowerConfig {
        position_table: false,
        embedding_norm: false,
        relations,
        pooler: TextPooler::Absent(if causal { Pooling::Last } else { Pooling::Mean }),
        ..config
    })
}

/// Defaults of the widths and heads of a config class.
pub(super) struct Shape {
    pub width: usize,
    pub heads: usize,
    pub key_heads: usize,
    /// `None` for `width / heads`.
    pub head_width: Option<usize>,
}

/// An encoder with norms before its branches, gated MLPs and no biases, with the widths and heads that the config says.
pub(super) fn base(keys: &Keys<'_>, default: &Shape) -> Result<EncoderConfig, ModelError> {
    let width: usize = keys.or("hidden_size", default.width)?;
    let heads: usize = keys.or("num_attention_heads", default.heads)?;
    let head_width = keys.get("head_dim")?.or(default.head_width);
    if heads == 0 || (head_width.is_none() && !width.is_multiple_of(heads)) {
        return Err(keys.problem(format!("`hidden_size` {width} is not a multiple of `num_attention_heads` {heads}")));
    }
    let key_heads: usize = keys.or("num_key_value_heads", default.key_heads)?;
    if key_heads == 0 || !heads.is_multiple_of(key_heads) {
        return Err(keys
            .problem(format!("`num_attention_heads` {heads} is not a multiple of `num_key_value_heads` {key_heads}")));
    }
    let head_width = head_width.unwrap_or(width / heads);
    if head_width == 0 || !head_width.is_multiple_of(2) {
        return Err(keys.problem(format!("`head_dim` is {head_width}; rotary positions need an even number")));
    }
    Ok(EncoderConfig {
        norm_order: NormOrder::Pre,
        norm_epsilon: keys.or("rms_norm_eps", 1e-6)?,
        head_width: (heads * head_width != width).then_some(head_width),
        key_heads: (key_heads != heads).then_some(key_heads),
        query_bias: false,
        key_bias: false,
        value_bias: false,
        output_bias: false,
        mlp_bias: false,
        norm_bias: false,
        gated_mlp: true,
        attention_dropout: keys.or("attention_dropout", 0.0)?,
        init_std: keys.or("initializer_range", 0.02)?,
        ..EncoderConfig::plain(width, 0, heads, 0)
    })
}

/// The kind of attention of each block, if the config lists them.
pub(super) fn layer_types(keys: &Keys<'_>, depth: usize) -> Result<Option<Vec<bool>>, ModelError> {
    let Some(types) = keys.get::<Vec<String>>("layer_types")? else { return Ok(None) };
    if types.len() != depth {
        return Err(keys.problem(format!("`layer_types` has {} entries for {depth} layers", types.len())));
    }
    let is_local = |kind: &String| match kind.as_str() {
        GLOBAL => Ok(false),
        LOCAL => Ok(true),
        other => Err(keys.problem(format!("`layer_types` has `{other}`; supported: {GLOBAL}, {LOCAL}"))),
    };
    types.iter().map(is_local).collect::<Result<_, _>>().map(Some)
}

/// The window of each block of a Qwen.
fn windows(keys: &Keys<'_>, depth: usize) -> Result<Vec<Option<usize>>, ModelError> {
    let depth = keys.or("num_hidden_layers", depth)?;
    let window = match keys.json.get("sliding_window") {
        _ if !keys.or("use_sliding_window", false)? => None,
        None => Some(4096),
        Some(_) => keys.get("sliding_window")?,
    };
    let first_local = keys.or("max_window_layers", 28)?;
    let locals = layer_types(keys, depth)?;
    let locals = locals.unwrap_or_else(|| (0..depth).map(|block| window.is_some() && block >= first_local).collect());
    if window.is_none() && locals.contains(&true) {
        return Err(keys.problem(format!(
            "`layer_types` has `{LOCAL}`, but there is no window; expected `use_sliding_window` and `sliding_window`"
        )));
    }
    Ok(locals.into_iter().map(|is_local| window.filter(|_| is_local)).collect())
}

/// The padding id: 0 if the config has none, or -1 for none. Towers never see padding.
pub(super) fn pad_id(keys: &Keys<'_>) -> Result<u32, ModelError> {
    match keys.json.get("pad_token_id") {
        Some(Value::Number(number)) if number.as_i64().is_some_and(|id| id < 0) => Ok(0),
        _ => keys.or("pad_token_id", 0),
    }
}
