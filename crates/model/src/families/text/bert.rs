//! BERT (Devlin et al., 2019), RoBERTa (Liu et al., 2019), which numbers positions from `padding_idx + 1`, and ELECTRA
//! (Clark et al., 2020), which may have narrower embeddings; CamemBERT and XLM-R are RoBERTa with other tokenizers.

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::pooling::Pooling;
use crate::text::config::{TextPooler, TextTowerConfig};
use crate::transformer::config::EncoderConfig;
use crate::weights::layout::Layout::Same;
use crate::weights::name_table::Kind::{Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const BERT: Family<TextTowerConfig> = Family {
    model_types: &["bert"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "bert."], probe: "embeddings.word_embeddings" },
    config: |keys| bert(keys, defaults(768, 12, 12, 3072), 30_522, 0),
};

pub(super) const ROBERTA: Family<TextTowerConfig> = Family {
    model_types: &["roberta", "xlm-roberta", "camembert"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "roberta."], probe: "embeddings.word_embeddings" },
    config: roberta,
};

pub(super) const ELECTRA: Family<TextTowerConfig> = Family {
    model_types: &["electra"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "electra."], probe: "embeddings.word_embeddings" },
    config: electra,
};

const ROWS: &[Row] = &[
    ("words", "embeddings.word_embeddings.weight", Tensor(Same)),
    ("positions", "embeddings.position_embeddings.weight", Tensor(Same)),
    ("token_types", "embeddings.token_type_embeddings.weight", Tensor(Same)),
    ("embedding_norm", "embeddings.LayerNorm", Norm),
    ("embedding_projection", "embeddings_project", Linear),
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

/// The defaults of the config classes of BERT and its relatives, at this size.
pub(super) fn defaults(width: usize, depth: usize, heads: usize, mlp_width: usize) -> EncoderConfig {
    EncoderConfig {
        hidden_dropout: 0.1,
        attention_dropout: 0.1,
        ..EncoderConfig::plain(width, depth, heads, mlp_width)
    }
}

/// Reads the encoder from the keys of BERT's config, which other families adopted.
pub(super) fn encoder(keys: &Keys<'_>, default: EncoderConfig) -> Result<EncoderConfig, ModelError> {
    match keys.text("position_embedding_type", "absolute")? {
        "absolute" => {}
        kind => return Err(keys.problem(format!("`position_embedding_type` is `{kind}`; supported: absolute"))),
    }
    layers(keys, default)
}

/// The same, wherever positions come from.
pub(super) fn layers(keys: &Keys<'_>, default: EncoderConfig) -> Result<EncoderConfig, ModelError> {
    let (width, heads) =
        keys.width_and_heads_or(("hidden_size", default.width), ("num_attention_heads", default.heads))?;
    if keys.or("is_decoder", false)? {
        return Err(keys.problem("`is_decoder` is true; a text tower must be an encoder".to_owned()));
    }
    Ok(EncoderConfig {
        width,
        heads,
        depth: keys.or("num_hidden_layers", default.depth)?,
        mlp_width: keys.or("intermediate_size", default.mlp_width)?,
        activation: keys.activation("hidden_act", default.activation)?,
        norm_epsilon: keys.or("layer_norm_eps", default.norm_epsilon)?,
        hidden_dropout: keys.or("hidden_dropout_prob", default.hidden_dropout)?,
        attention_dropout: keys.or("attention_probs_dropout_prob", default.attention_dropout)?,
        init_std: keys.or("initializer_range", default.init_std)?,
        ..default
    })
}

/// Numbers positions from the one after `padding`.
pub(super) fn after_padding(
    keys: &Keys<'_>,
    config: TextTowerConfig,
    padding: u32,
) -> Result<TextTowerConfig, ModelError> {
    let first_position = padding as usize + 1;
    if config.max_positions <= first_position {
        return Err(keys.problem(format!("`max_position_embeddings` is only {}", config.max_positions)));
    }
    Ok(TextTowerConfig { first_position, ..config })
}

/// Reads a BERT, or the base of a family close to it.
fn bert(
    keys: &Keys<'_>,
    default: EncoderConfig,
    vocab_size: usize,
    pad_id: u32,
) -> Result<TextTowerConfig, ModelError> {
    let config = TextTowerConfig::plain(
        encoder(keys, default)?,
        keys.or("vocab_size", vocab_size)?,
        keys.or("max_position_embeddings", 512)?,
        keys.or("pad_token_id", pad_id)?,
    );
    Ok(TextTowerConfig { type_vocab_size: keys.or("type_vocab_size", 2)?, ..config })
}

fn roberta(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    let vocab_size = if keys.json["model_type"] == "roberta" { 50_265 } else { 30_522 };
    let config = bert(keys, defaults(768, 12, 12, 3072), vocab_size, 1)?;
    let padding = config.pad_id;
    after_padding(keys, config, padding)
}

fn electra(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    let config = bert(keys, defaults(256, 12, 4, 1024), 30_522, 0)?;
    let embedding_width = keys.or("embedding_size", 128)?;
    Ok(TextTowerConfig {
        embedding_width: (embedding_width != config.encoder.width).then_some(embedding_width),
        pooler: TextPooler::Absent(Pooling::Cls),
        ..config
    })
}
