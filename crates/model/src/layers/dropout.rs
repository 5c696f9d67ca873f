//! Dropout that can be replayed bit for bit.

use std::cell::Cell;

use burn::module::Param;
use burn::tensor::{Float, Tensor, TensorData};
use dualenc_kernels::{DropoutMask, upload};

use crate::params::random::named_seed;

/// The dropout of one forward pass: off, or seeded.
///
/// A mask is a function of the seed and the layer's position in the pass, so a step can be replayed bit for bit.
#[derive(Debug)]
pub struct Dropout {
    seed: Option<u64>,
    calls: Cell<u64>,
}

impl Dropout {
    /// No dropout, for evaluation and for locked parts.
    pub fn off() -> Self {
        Self { seed: None, calls: Cell::new(0) }
    }

    /// Dropout for the training step with this `seed`.
    pub fn training(seed: u64) -> Self {
        Self { seed: Some(seed), calls: Cell::new(0) }
    }

    /// Dropout for the part `name` of the same step, with a seed of its own.
    #[must_use]
    pub fn part(&self, name: &str) -> Self {
        Self { seed: self.seed.map(|seed| named_seed(seed, name)), calls: Cell::new(0) }
    }

    /// The mask for the next layer, or `None` if nothing is dropped. A tensor without gradients is never dropped.
    pub(crate) fn mask<const D: usize>(&self, x: &Tensor<D>, probability: f64) -> Option<DropoutMask> {
        let seed = self.seed.filter(|_| probability > 0.0 && x.is_autodiff())?;
        let call = self.calls.replace(self.calls.get() + 1);
        Some(DropoutMask::new(seed ^ call.wrapping_mul(0x9E37_79B9_7F4A_7C15), probability))
    }

    /// Whether the values beside `weight` are dropped: in training, where `weight` trains.
    pub(crate) fn drops<const D: usize>(&self, weight: &Param<Tensor<D>>, probability: f64) -> bool {
        self.seed.is_some() && probability > 0.0 && weight.val().is_autodiff()
    }

    /// The same, where all rows of a sequence are dropped together: `[rows, width]` for sequences of these `lengths`.
    pub(crate) fn apply_to_sequences(&self, x: Tensor<2>, lengths: &[usize], probability: f64) -> Tensor<2> {
        let Some(mask) = self.mask(&x, probability) else { return x };
        let factors = mask.factors(lengths.len()).into_iter().zip(lengths);
        let mut factors: Vec<f32> = factors.flat_map(|(factor, &length)| std::iter::repeat_n(factor, length)).collect();
        // Rows of no sequence.
        factors.resize(x.dims()[0], 1.0);
        let factors = TensorData::new(factors, [x.dims()[0], 1]);
        let factors = upload::<2, Float>(factors, &x.device().without_autodiff());
        let factors = factors.cast(x.dtype());
        x * factors
    }

    /// Inverted dropout (Srivastava et al., 2014) on a tensor of any shape.
    pub(crate) fn apply<const D: usize>(&self, x: Tensor<D>, probability: f64) -> Tensor<D> {
        match self.mask(&x, probability) {
            Some(mask) => mask.apply(x),
            None => x,
        }
    }
}
