//! GTE (Zhang et al., 2024, arXiv:2407.19669), which is named `new` in its own code: BERT with rotary positions and
//! gated MLPs.

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::families::text::{bert, rotary};
use crate::pooling::Pooling;
use crate::text::config::{TextPooler, TextTowerConfig};
use crate::transformer::config::EncoderConfig;
use crate::weights::layout::Layout::Same;
use crate::weights::matrix::Part;
use crate::weights::name_table::Kind::{Linear, LinearPart, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

/// Transformers 5 calls it `gte`, and writes the same names.
pub(super) const GTE: Family<TextTowerConfig> = Family {
    model_types: &["new", "gte"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "new.", "gte."], probe: "embeddings.word_embeddings" },
    config,
};

const ROWS: &[Row] = &[
    ("words", "embeddings.word_embeddings.weight", Tensor(Same)),
    ("token_types", "embeddings.token_type_embeddings.weight", Tensor(Same)),
    ("embedding_norm", "embeddings.LayerNorm", Norm),
    (
        "encoder.blocks.{n}.attention.query",
        "encoder.layer.{n}.attention.qkv_proj",
        LinearPart(Part { index: 0, of: 3 }),
    ),
    ("encoder.blocks.{n}.attention.key", "encoder.layer.{n}.attention.qkv_proj", LinearPart(Part { index: 1, of: 3 })),
    (
        "encoder.blocks.{n}.attention.value",
        "encoder.layer.{n}.attention.qkv_proj",
        LinearPart(Part { index: 2, of: 3 }),
    ),
    ("encoder.blocks.{n}.attention.output", "encoder.layer.{n}.attention.o_proj", Linear),
    ("encoder.blocks.{n}.attention_norm", "encoder.layer.{n}.attn_ln", Norm),
    ("encoder.blocks.{n}.mlp.up", "encoder.layer.{n}.mlp.up_gate_proj", LinearPart(Part { index: 0, of: 2 })),
    ("encoder.blocks.{n}.mlp.gate", "encoder.layer.{n}.mlp.up_gate_proj", LinearPart(Part { index: 1, of: 2 })),
    ("encoder.blocks.{n}.mlp.down", "encoder.layer.{n}.mlp.down_proj", Linear),
    ("encoder.blocks.{n}.mlp_norm", "encoder.layer.{n}.mlp_ln", Norm),
];

/// Keys of GTE's own configs, and the one value that is supported.
const FIXED: [(&str, &str); 4] = [
    ("position_embedding_type", "\"rope\""),
    ("layer_norm_type", "\"layer_norm\""),
    ("pack_qkv", "true"),
    ("logn_attention_scale", "false"),
];

fn config(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    for (key, supported) in FIXED {
        let Some(found) = keys.json.get(key).filter(|value| !value.is_null()) else { continue };
        let found = found.to_string();
        if found != supported {
            return Err(keys.problem(format!("`{key}` is {found}; supported: {supported}")));
        }
    }
    let is_own = keys.json["model_type"] == "new";
    // The defaults of its two config classes.
    let (vocab_size, max_positions, pad_id, theta) =
        if is_own { (30_528, 2048, 0, 10_000.0) } else { (250_048, 8192, 1, 160_000.0) };
    let (width, heads) = keys.width_and_heads("hidden_size", "num_attention_heads")?;
    if !(width / heads).is_multiple_of(2) {
        return Err(keys.problem(format!("heads are {} wide; rotary positions need an even width", width / heads)));
    }
    let default = EncoderConfig { attention_dropout: 0.0, ..bert::defaults(768, 12, 12, 3072) };
    let encoder = EncoderConfig { gated_mlp: true, mlp_input_bias: false, ..bert::layers(keys, default)? };
    let config = TextTowerConfig::plain(
        encoder,
        keys.or("vocab_size", vocab_size)?,
        keys.or("max_position_embeddings", max_positions)?,
        keys.or("pad_token_id", pad_id)?,
    );
    Ok(TextTowerConfig {
        position_table: false,
        type_vocab_size: keys.or("type_vocab_size", 1)?,
        relations: vec![rotary::of(keys, &keys.json["rope_parameters"], theta)?],
        pooler: TextPooler::Absent(Pooling::Cls),
        ..config
    })
}
