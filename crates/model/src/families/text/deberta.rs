//! DeBERTa-v2 and v3 (He et al., 2021; 2023): relative positions have vectors that queries and keys attend to; no
//! pooler.

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::families::text::bert;
use crate::pooling::Pooling;
use crate::text::config::{TextPooler, TextTowerConfig};
use crate::text::token_relations::{RelativeBuckets, TokenRelations};
use crate::transformer::config::{DisentangledConfig, EncoderConfig};
use crate::weights::layout::Layout::Same;
use crate::weights::name_table::Kind::{Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const DEBERTA_V2: Family<TextTowerConfig> = Family {
    model_types: &["deberta-v2"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "deberta."], probe: "embeddings.word_embeddings" },
    config,
};

const ROWS: &[Row] = &[
    ("words", "embeddings.word_embeddings.weight", Tensor(Same)),
    ("positions", "embeddings.position_embeddings.weight", Tensor(Same)),
    ("token_types", "embeddings.token_type_embeddings.weight", Tensor(Same)),
    ("embedding_norm", "embeddings.LayerNorm", Norm),
    ("encoder.relative_embeddings.table", "encoder.rel_embeddings.weight", Tensor(Same)),
    ("encoder.relative_embeddings.norm", "encoder.LayerNorm", Norm),
    ("encoder.blocks.{n}.attention.query", "encoder.layer.{n}.attention.self.query_proj", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.layer.{n}.attention.self.key_proj", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.layer.{n}.attention.self.value_proj", Linear),
    ("encoder.blocks.{n}.attention.disentangled.query", "encoder.layer.{n}.attention.self.pos_query_proj", Linear),
    ("encoder.blocks.{n}.attention.disentangled.key", "encoder.layer.{n}.attention.self.pos_key_proj", Linear),
    ("encoder.blocks.{n}.attention.output", "encoder.layer.{n}.attention.output.dense", Linear),
    ("encoder.blocks.{n}.attention_norm", "encoder.layer.{n}.attention.output.LayerNorm", Norm),
    ("encoder.blocks.{n}.mlp.up", "encoder.layer.{n}.intermediate.dense", Linear),
    ("encoder.blocks.{n}.mlp.down", "encoder.layer.{n}.output.dense", Linear),
    ("encoder.blocks.{n}.mlp_norm", "encoder.layer.{n}.output.LayerNorm", Norm),
];

fn config(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    if keys.or("conv_kernel_size", 0)? > 0 {
        return Err(keys.problem(
            "`conv_kernel_size` is set; the convolution of DeBERTa-v2-xlarge and -xxlarge is not supported, use a \
             DeBERTa-v3, which has none"
                .to_owned(),
        ));
    }
    let default = EncoderConfig { norm_epsilon: 1e-7, ..bert::defaults(1536, 24, 24, 6144) };
    let encoder = bert::encoder(keys, default)?;
    if keys.or("embedding_size", encoder.width)? != encoder.width {
        return Err(keys.problem("`embedding_size` differs from `hidden_size`, which is not supported".to_owned()));
    }
    let max_positions = keys.or("max_position_embeddings", 512)?;
    let (disentangled, relations) = relative_positions(keys, max_positions)?;
    let config = TextTowerConfig::plain(
        EncoderConfig { disentangled, ..encoder },
        keys.or("vocab_size", 128_100)?,
        max_positions,
        keys.or("pad_token_id", 0)?,
    );
    Ok(TextTowerConfig {
        position_table: keys.or("position_biased_input", true)?,
        type_vocab_size: keys.or("type_vocab_size", 0)?,
        relations,
        pooler: TextPooler::Absent(Pooling::Cls),
        ..config
    })
}

/// The disentangled attention of the config, and the relative positions that it uses.
fn relative_positions(
    keys: &Keys<'_>,
    max_positions: usize,
) -> Result<(Option<DisentangledConfig>, Vec<TokenRelations>), ModelError> {
    let listed = match keys.json.get("pos_att_type").and_then(|kinds| kinds.as_str()) {
        Some(text) => text.to_lowercase().split('|').map(|kind| kind.trim().to_owned()).collect(),
        None => keys.or("pos_att_type", Vec::new())?,
    };
    let attends = |kind: &str| listed.iter().any(|listed: &String| listed == kind);
    if !keys.or("relative_attention", false)? {
        return if listed.is_empty() {
            Ok((None, Vec::new()))
        } else {
            Err(keys.problem("`pos_att_type` without `relative_attention` is not supported".to_owned()))
        };
    }
    // -1 means not set, for both keys.
    let positive = |key| Ok(keys.get::<i64>(key)?.filter(|&value| value > 0).map(|value| value as usize));
    let max_distance = positive("max_relative_positions")?.unwrap_or(max_positions);
    let buckets = positive("position_buckets")?;
    let span = buckets.unwrap_or(max_distance);
    let disentangled = DisentangledConfig {
        positions: 2 * span,
        normed: keys.text("norm_rel_ebd", "none")?.to_lowercase().split('|').any(|kind| kind.trim() == "layer_norm"),
        content_to_position: attends("c2p"),
        position_to_content: attends("p2c"),
        shared_projections: keys.or("share_att_key", false)?,
    };
    let buckets = RelativeBuckets::Centred { span, max_distance: buckets.map(|_| max_distance) };
    Ok((Some(disentangled), vec![TokenRelations { buckets: Some(buckets), ..TokenRelations::default() }]))
}
