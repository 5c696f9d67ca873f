//! The text towers of CLIP (Radford et al., 2021), causal and pooled at the end of the text, and of SigLIP and SigLIP 2
//! (Zhai et al., 2023; Tschannen et al., 2025), which attend to all tokens, padding included, and pool the last one.

use dualenc_kernels::Activation;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::text::config::{EndOfText, TextPooler, TextTowerConfig};
use crate::text::token_relations::TokenRelations;
use crate::transformer::config::{EncoderConfig, NormOrder};
use crate::weights::layout::Layout::Same;
use crate::weights::name_table::Kind::{Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const CLIP: Family<TextTowerConfig> =
    Family { model_types: &["clip_text_model"], flag: None, names: NAMES, config: clip };

pub(super) const SIGLIP: Family<TextTowerConfig> =
    Family { model_types: &["siglip_text_model", "siglip2_text_model"], flag: None, names: NAMES, config: siglip };

/// Transformers 4 wrote the prefix for a tower alone, and twice for one in a VisionTextDualEncoder.
const NAMES: Names =
    Names { rows: ROWS, prefixes: &["", "text_model.", "text_model.text_model."], probe: "embeddings.token_embedding" };

const ROWS: &[Row] = &[
    ("words", "embeddings.token_embedding.weight", Tensor(Same)),
    ("positions", "embeddings.position_embedding.weight", Tensor(Same)),
    ("encoder.blocks.{n}.attention_norm", "encoder.layers.{n}.layer_norm1", Norm),
    ("encoder.blocks.{n}.attention.query", "encoder.layers.{n}.self_attn.q_proj", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.layers.{n}.self_attn.k_proj", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.layers.{n}.self_attn.v_proj", Linear),
    ("encoder.blocks.{n}.attention.output", "encoder.layers.{n}.self_attn.out_proj", Linear),
    ("encoder.blocks.{n}.mlp_norm", "encoder.layers.{n}.layer_norm2", Norm),
    ("encoder.blocks.{n}.mlp.up", "encoder.layers.{n}.mlp.fc1", Linear),
    ("encoder.blocks.{n}.mlp.down", "encoder.layers.{n}.mlp.fc2", Linear),
    ("final_norm", "final_layer_norm", Norm),
    ("pooler", "head", Linear),
];

/// The meaningless `eos_token_id` of configs written before pull request 24773 of transformers.
const LEGACY_END_OF_TEXT: u32 = 2;

fn clip(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    let default = EncoderConfig {
        activation: Activation::QuickGelu,
        norm_epsilon: 1e-5,
        ..EncoderConfig::plain(512, 12, 8, 2048)
    };
    let config = tower(keys, default, 49_408, 77)?;
    let end = match keys.or("eos_token_id", 49_407)? {
        LEGACY_END_OF_TEXT => EndOfText::GreatestId,
        id => EndOfText::Id(id),
    };
    Ok(TextTowerConfig {
        relations: vec![TokenRelations { causal: true, ..TokenRelations::default() }],
        pooler: TextPooler::EndOfText(end),
        ..config
    })
}

fn siglip(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    let default = EncoderConfig {
        activation: Activation::GeluTanh,
        norm_epsilon: 1e-6,
        ..EncoderConfig::plain(768, 12, 12, 3072)
    };
    let config = tower(keys, default, 32_000, 64)?;
    Ok(TextTowerConfig {
        pooler: TextPooler::Last { width: keys.or("projection_size", config.encoder.width)? },
        pad_to: Some(config.max_positions),
        ..config
    })
}

/// Reads what both have in common.
fn tower(
    keys: &Keys<'_>,
    default: EncoderConfig,
    vocab_size: usize,
    max_positions: usize,
) -> Result<TextTowerConfig, ModelError> {
    let (width, heads) =
        keys.width_and_heads_or(("hidden_size", default.width), ("num_attention_heads", default.heads))?;
    let encoder = EncoderConfig {
        width,
        heads,
        depth: keys.or("num_hidden_layers", default.depth)?,
        mlp_width: keys.or("intermediate_size", default.mlp_width)?,
        activation: keys.activation("hidden_act", default.activation)?,
        norm_order: NormOrder::Pre,
        norm_epsilon: keys.or("layer_norm_eps", default.norm_epsilon)?,
        attention_dropout: keys.or("attention_dropout", 0.0)?,
        init_std: keys.or("initializer_range", default.init_std)?,
        ..default
    };
    let config = TextTowerConfig::plain(
        encoder,
        keys.or("vocab_size", vocab_size)?,
        keys.or("max_position_embeddings", max_positions)?,
        keys.or("pad_token_id", 1)?,
    );
    Ok(TextTowerConfig { embedding_norm: false, ..config })
}
