//! Token positions in attention: causal and local masks, rotary angles, relative positions.

use burn::tensor::{Bool, Device, Int, TensorData};
use dualenc_kernels::upload;

use crate::form::option;
use crate::transformer::relations::Relations;
use crate::transformer::rotary::{Rotary, RotaryScaling, rotary_frequencies};

/// The use that the attention of one block makes of token positions, which start at 0 in each sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TokenRelations {
    /// Whether a token attends only to itself and earlier tokens.
    pub causal: bool,
    /// How many tokens to either side a token attends to; `None` for no limit.
    pub window: Option<usize>,
    /// Base of the rotary frequencies; `None` for no rotation.
    pub rotary_theta: Option<f64>,
    /// What stretches these frequencies to longer texts, if anything.
    pub rotary_scaling: Option<RotaryScaling>,
    /// Which row of the relative position table a distance selects; `None` for no relative positions.
    pub buckets: Option<RelativeBuckets>,
}

/// Maps a distance in tokens to a row of the relative position table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelativeBuckets {
    /// T5 (Raffel et al., 2020, sec. 2.1): half of the rows per direction. Half of those stand for one distance each,
    /// the rest for logarithmically growing ranges up to `max_distance`.
    Sides {
        /// Number of rows.
        rows: usize,
        /// The distance beyond which all distances share a row, in tokens.
        max_distance: usize,
    },
    /// DeBERTa: one row per distance from `-span` to `span - 1`. With `max_distance`, rows from
    /// `span / 2` on stand for ranges.
    Centred {
        /// Half the number of rows.
        span: usize,
        /// The distance that the ranges extend to, in tokens.
        max_distance: Option<usize>,
    },
}

impl RelativeBuckets {
    /// The row for a `query` and a `key` position. Logarithms are computed in f32, as in the reference: another
    /// precision may round to another row.
    pub fn row(self, query: usize, key: usize) -> usize {
        match self {
            Self::Sides { rows, max_distance } => {
                let (side, exact, distance) = (rows / 2, rows / 4, query.abs_diff(key));
                let start = if key > query { side } else { 0 };
                if distance < exact {
                    return start + distance;
                }
                let growth = (max_distance as f64 / exact as f64).ln() as f32;
                let range = (distance as f32 / exact as f32).ln() / growth * (side - exact) as f32;
                start + (exact + range as usize).min(side - 1)
            }
            Self::Centred { span, max_distance } => {
                let (exact, distance) = (span / 2, query.abs_diff(key));
                let offset = match max_distance {
                    Some(max_distance) if distance > exact => {
                        let growth = ((max_distance - 1) as f32 / exact as f32).ln();
                        let range = ((distance as f32 / exact as f32).ln() / growth * (exact - 1) as f32).ceil();
                        range as usize + exact
                    }
                    _ => distance,
                };
                if key > query { span.saturating_sub(offset) } else { (span + offset).min(2 * span - 1) }
            }
        }
    }
}

impl TokenRelations {
    /// The written form, for cache keys (see `form`).
    pub(crate) fn form(self) -> String {
        let Self { causal, window, rotary_theta, rotary_scaling, buckets } = self;
        let buckets = match buckets {
            None => "none".to_owned(),
            Some(RelativeBuckets::Sides { rows, max_distance }) => format!("sides {rows} {max_distance}"),
            Some(RelativeBuckets::Centred { span, max_distance }) => format!("centred {span} {}", option(max_distance)),
        };
        let scaling = rotary_scaling.map_or_else(String::new, RotaryScaling::form);
        format!("(causal={causal} window={} theta={} buckets={buckets}{scaling})", option(window), option(rotary_theta))
    }

    /// The tensors for sequences of up to `seq` tokens and heads of `dim` channels.
    fn tensors(self, seq: usize, dim: usize, device: &Device) -> Relations {
        let pairs = || (0..seq).flat_map(|query| (0..seq).map(move |key| (query, key)));
        let is_masked = |(query, key): (usize, usize)| {
            (self.causal && key > query) || self.window.is_some_and(|window| query.abs_diff(key) > window)
        };
        let needs_mask = self.causal || self.window.is_some_and(|window| seq > window + 1);
        let mask = needs_mask.then(|| {
            let mask: Vec<bool> = pairs().map(is_masked).collect();
            upload::<4, Bool>(TensorData::new(mask, [1, 1, seq, seq]), &device.clone().without_autodiff())
        });
        let table_rows = self.buckets.map(|buckets| {
            let rows: Vec<i32> = pairs().map(|(query, key)| buckets.row(query, key) as i32).collect();
            upload::<1, Int>(TensorData::new(rows, [seq * seq]), &device.clone().without_autodiff())
        });
        let rotary = self.rotary_theta.map(|theta| {
            let frequencies = rotary_frequencies(dim, theta, self.rotary_scaling);
            Rotary::of_tokens(seq, &frequencies, device)
        });
        let is_only_causal = self.causal && self.window.is_none_or(|window| seq <= window + 1);
        Relations { table_rows, rotary, mask, causal: is_only_causal, ..Relations::default() }
    }
}

/// The tensors of each block of `blocks`; equal blocks share theirs.
pub(crate) fn block_relations(blocks: &[TokenRelations], seq: usize, dim: usize, device: &Device) -> Vec<Relations> {
    let mut made: Vec<(TokenRelations, Relations)> = Vec::new();
    let tensors = |block: &TokenRelations| match made.iter().find(|(equal, _)| equal == block) {
        Some((_, relations)) => relations.clone(),
        None => {
            let relations = block.tensors(seq, dim, device);
            made.push((*block, relations.clone()));
            relations
        }
    };
    blocks.iter().map(tensors).collect()
}
