//! MPNet (Song et al., 2020): BERT without token types, with T5's relative position bias, the same in all blocks.

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::families::text::bert;
use crate::text::config::TextTowerConfig;
use crate::text::token_relations::{RelativeBuckets, TokenRelations};
use crate::transformer::config::{EncoderConfig, RelativeTable};
use crate::weights::layout::Layout::Same;
use crate::weights::name_table::Kind::{Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const MPNET: Family<TextTowerConfig> = Family {
    model_types: &["mpnet"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "mpnet."], probe: "embeddings.word_embeddings" },
    config,
};

const ROWS: &[Row] = &[
    ("words", "embeddings.word_embeddings.weight", Tensor(Same)),
    ("positions", "embeddings.position_embeddings.weight", Tensor(Same)),
    ("embedding_norm", "embeddings.LayerNorm", Norm),
    ("encoder.relative_bias.table", "encoder.relative_attention_bias.weight", Tensor(Same)),
    ("encoder.blocks.{n}.attention.query", "encoder.layer.{n}.attention.attn.q", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.layer.{n}.attention.attn.k", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.layer.{n}.attention.attn.v", Linear),
    ("encoder.blocks.{n}.attention.output", "encoder.layer.{n}.attention.attn.o", Linear),
    ("encoder.blocks.{n}.attention_norm", "encoder.layer.{n}.attention.LayerNorm", Norm),
    ("encoder.blocks.{n}.mlp.up", "encoder.layer.{n}.intermediate.dense", Linear),
    ("encoder.blocks.{n}.mlp.down", "encoder.layer.{n}.output.dense", Linear),
    ("encoder.blocks.{n}.mlp_norm", "encoder.layer.{n}.output.LayerNorm", Norm),
    ("pooler", "pooler.dense", Linear),
];

/// Fixed in `MPNetEncoder.relative_position_bucket` of modeling_mpnet.py; the config only sets the size of the table.
const BUCKETS: usize = 32;

/// Fixed in the same function, in tokens.
const MAX_DISTANCE: usize = 128;

/// Fixed in `MPNetEmbeddings` of modeling_mpnet.py, whatever `pad_token_id` is.
const PADDING: u32 = 1;

fn config(keys: &Keys<'_>) -> Result<TextTowerConfig, ModelError> {
    let rows = keys.or("relative_attention_num_buckets", BUCKETS)?;
    if rows < BUCKETS {
        return Err(keys.problem(format!(
            "`relative_attention_num_buckets` is {rows}; expected at least {BUCKETS}, which the reference always uses"
        )));
    }
    let encoder = EncoderConfig {
        relative: RelativeTable::Shared(rows),
        ..bert::encoder(keys, bert::defaults(768, 12, 12, 3072))?
    };
    let config = TextTowerConfig::plain(
        encoder,
        keys.or("vocab_size", 30_527)?,
        keys.or("max_position_embeddings", 512)?,
        keys.or("pad_token_id", PADDING)?,
    );
    let buckets = RelativeBuckets::Sides { rows: BUCKETS, max_distance: MAX_DISTANCE };
    let config = TextTowerConfig {
        relations: vec![TokenRelations { buckets: Some(buckets), ..TokenRelations::default() }],
        ..config
    };
    bert::after_padding(keys, config, PADDING)
}
