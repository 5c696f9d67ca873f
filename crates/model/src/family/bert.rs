//! BERT (Devlin et al., 2019) and RoBERTa (Liu et al., 2019), which numbers positions from `padding_idx + 1`; CamemBERT
//! and XLM-R are RoBERTa with other tokenizers.

use super::Family;
use super::keys::Keys;
use crate::ModelError;
use crate::encoder::{EncoderConfig, NormOrder};
use crate::layers::Activation;
use crate::names::Kind::{Linear, Norm, Tensor};
use crate::names::Layout::Same;
use crate::names::{Names, Row};
use crate::text_tower::TextTowerConfig;

pub(super) const BERT: Family<TextTowerConfig> = Family {
    model_types: &["bert"],
    names: Names { rows: ROWS, prefixes: &["", "bert."], probe: "embeddings.word_embeddings" },
    config: |keys| config(keys, false),
};

pub(super) const ROBERTA: Family<TextTowerConfig> = Family {
    model_types: &["roberta", "xlm-roberta", "camembert"],
    names: Names { rows: ROWS, prefixes: &["", "roberta."], probe: "embeddings.word_embeddings" },
    config: |keys| config(keys, true),
};

const ROWS: &[Row] = &[
    ("words", "embeddings.word_embeddings.weight", Tensor(Same)),
    ("positions", "embeddings.position_embeddings.weight", Tensor(Same)),
    ("token_types", "embeddings.token_type_embeddings.weight", Tensor(Same)),
    ("embedding_norm", "embeddings.LayerNorm", Norm),
    ("encoder.blocks.{n}.attention.query", "encoder.layer.{n}.attention.self.query", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.layer.{n}.attention.self.key", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.layer.{n}.attention.self.value", Linear),
    ("encoder.blocks.{n}.attention.output", "encoder.layer.{n}.attention.output.dense", Linear),
    ("encoder.blocks.{n}.attention_norm", "encoder.layer.{n}.attention.output.LayerNorm", Norm),
    ("encoder.blocks.{n}.mlp.up", "encoder.layer.{n}.intermediate.dense", Linear),
    ("encoder.blocks.{n}.mlp.down", "encoder.layer.{n}.output.dense", Linear),
    ("encoder.blocks.{n}.mlp_norm", "encoder.layer.{n}.output.LayerNorm", Norm),
    ("pooler", "pooler.dense", Linear),
];

fn config(keys: &Keys<'_>, roberta: bool) -> Result<TextTowerConfig, ModelError> {
    let (width, heads) = keys.width_and_heads("hidden_size", "num_attention_heads")?;
    match keys.text("position_embedding_type", "absolute")? {
        "absolute" => {}
        kind => return Err(keys.problem(format!("`position_embedding_type` is `{kind}`; supported: absolute"))),
    }
    if keys.or("is_decoder", false)? {
        return Err(keys.problem("`is_decoder` is true; a text tower is an encoder".to_owned()));
    }
    let pad_id: u32 = keys.or("pad_token_id", u32::from(roberta))?;
    let first_position = if roberta { pad_id as usize + 1 } else { 0 };
    let max_positions = keys.or("max_position_embeddings", 512)?;
    if max_positions <= first_position {
        return Err(keys.problem(format!("`max_position_embeddings` is only {max_positions}")));
    }
    let depth = keys.or("num_hidden_layers", 12)?;
    let mlp_width = keys.or("intermediate_size", 3072)?;
    Ok(TextTowerConfig {
        encoder: EncoderConfig {
            activation: keys.activation("hidden_act", Activation::Gelu)?,
            norm_order: NormOrder::Post,
            norm_epsilon: keys.or("layer_norm_eps", 1e-12)?,
            hidden_dropout: keys.or("hidden_dropout_prob", 0.1)?,
            attention_dropout: keys.or("attention_probs_dropout_prob", 0.1)?,
            init_std: keys.or("initializer_range", 0.02)?,
            ..EncoderConfig::plain(width, depth, heads, mlp_width)
        },
        vocab_size: keys.or("vocab_size", if roberta { 50_265 } else { 30_522 })?,
        max_positions,
        type_vocab_size: keys.or("type_vocab_size", 2)?,
        first_position,
        pad_id,
    })
}
