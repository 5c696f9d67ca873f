//! How the tokens of a text stand to each other in a block: causal and local attention, rotary angles, relative positions.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::transformer::attention::Relations;
use crate::transformer::rotary::Rotary;

/// What one block knows of where tokens stand; tokens are counted from 0 in each sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TokenRelations {
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
    /// How far a token sees to either side, itself not counted.
    pub window: Option<usize>,
    /// The base of rotary angles.
    pub rotary_theta: Option<f64>,
    /// Which row of a table stands for a distance.
    pub buckets: Option<RelativeBuckets>,
}

/// From a distance in tokens to the row of a table of relative positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelativeBuckets {
    /// T5's (Raffel et al., 2020, sec. 2.1): half of the rows a direction, half of these for one distance each, the others
    /// for ranges that grow up to `max_distance`.
    Sides {
        /// Rows.
        rows: usize,
        /// The distance from which on all are alike.
        max_distance: usize,
    },
    /// DeBERTa's: a row a distance from `-span` to `span - 1`; where `max_distance` is given, ranges from `span / 2` on.
    Centred {
        /// Half of the rows.
        span: usize,
        /// The distance that the ranges grow up to.
        max_distance: Option<usize>,
    },
}

impl RelativeBuckets {
    /// The row for the key at `key`, seen from the query at `query`. The logarithms are f32's, as the reference's: another
    /// precision may fall on the other side of a border.
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
                let steps = match max_distance {
                    Some(max_distance) if distance > exact => {
                        let growth = ((max_distance - 1) as f32 / exact as f32).ln();
                        let range = ((distance as f32 / exact as f32).ln() / growth * (exact - 1) as f32).ceil();
                        range as usize + exact
                    }
                    _ => distance,
                };
                match key > query {
                    true => span.saturating_sub(steps),
                    false => (span + steps).min(2 * span - 1),
                }
            }
        }
    }
}

impl TokenRelations {
    /// The tensors for sequences of up to `seq` tokens and heads of `dim` channels.
    fn tensors(self, seq: usize, dim: usize, device: &Device) -> Relations {
        let pairs = || (0..seq).flat_map(|query| (0..seq).map(move |key| (query, key)));
        let is_hidden = |(query, key): (usize, usize)| {
            (self.causal && key > query) || self.window.is_some_and(|window| query.abs_diff(key) > window)
        };
        let hides = self.causal || self.window.is_some_and(|window| seq > window + 1);
        let hidden = hides.then(|| {
            let hidden: Vec<bool> = pairs().map(is_hidden).collect();
            Tensor::<4, Bool>::from_data(TensorData::new(hidden, [1, 1, seq, seq]), &device.clone().without_autodiff())
        });
        let relative = self.buckets.map(|buckets| {
            let rows: Vec<i32> = pairs().map(|(query, key)| buckets.row(query, key) as i32).collect();
            Tensor::<1, Int>::from_data(TensorData::new(rows, [seq * seq]), &device.clone().without_autodiff())
        });
        let rotary = self.rotary_theta.map(|theta| Rotary::of_tokens(seq, dim, theta, device));
        Relations { relative, rotary, hidden, causal: self.causal && self.window.is_none(), ..Relations::default() }
    }
}

/// The tensors of all blocks; those of blocks that are alike are made once.
pub(crate) fn block_relations(blocks: &[TokenRelations], seq: usize, dim: usize, device: &Device) -> Vec<Relations> {
    let mut made: Vec<(TokenRelations, Relations)> = Vec::new();
    let tensors = |block: &TokenRelations| match made.iter().find(|(like, _)| like == block) {
        Some((_, relations)) => relations.clone(),
        None => {
            let relations = block.tensors(seq, dim, device);
            made.push((*block, relations.clone()));
            relations
        }
    };
    blocks.iter().map(tensors).collect()
}
