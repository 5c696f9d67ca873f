//! The structure term: what keeps the neighbourhoods that locked features have in a batch, where few pairs would let a
//! projection lose them (STRUCTURE, arXiv:2506.16895). The formula is in `crates/kernels/src/structure/`.

use std::ops::Range;

use burn::tensor::{FloatDType, Tensor};
use dualenc_kernels::structure_loss;
use dualenc_model::normalize;

use crate::config::RunConfig;

/// The structure term of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StructureTerm {
    /// Weight after the warm-up.
    pub weight: f64,
    /// Steps over which the weight rises linearly from 0.
    pub warmup_steps: u64,
    pub temperature: f64,
}

impl StructureTerm {
    /// `None`: the run has none.
    pub fn of(config: &RunConfig) -> Option<Self> {
        let train = &config.train;
        let (weight, warmup_steps) = (train.structure, train.structure_warmup_steps?);
        (weight > 0.0).then_some(Self { weight, warmup_steps, temperature: train.structure_temperature? })
    }

    /// The weight at the 0-based `step`.
    pub fn weight_at(&self, step: u64) -> f64 {
        if step >= self.warmup_steps { self.weight } else { self.weight * step as f64 / self.warmup_steps as f64 }
    }

    /// The part of `pairs` in the mean of the divergences of the sides that have locked features, without the weight;
    /// `None`: none has. The parts of all pairs add up to the mean.
    ///
    /// `locked` are the features that the heads get, `[rows, width]`, and `features` what they make of them, `[rows,
    /// dim]`, un-normalised.
    pub fn loss(
        &self,
        locked: [Option<&Tensor<2>>; 2],
        features: [&Tensor<2>; 2],
        pairs: &Range<usize>,
    ) -> Option<Tensor<1>> {
        let [batch, _] = features[0].dims();
        let sides = locked.into_iter().zip(features);
        let losses: Vec<_> = sides
            .filter_map(|(locked, features)| {
                let locked = locked?.clone().cast(FloatDType::F32);
                // The captions of a pair follow each other.
                let each = features.dims()[0] / batch.max(1);
                let rows = pairs.start * each..pairs.end * each;
                Some(structure_loss(&centred(locked), &centred(features.clone()), self.temperature, rows))
            })
            .collect();
        let count = losses.len();
        losses.into_iter().reduce(|sum, loss| sum + loss).map(|sum| sum / count as f64)
    }
}

/// Unit vectors minus their mean, which are not normalised again.
fn centred(features: Tensor<2>) -> Tensor<2> {
    let units = normalize(features);
    units.clone() - units.mean_dim(0)
}
