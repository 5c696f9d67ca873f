//! The small layers every tower is made of. All work on rows, `[rows, width]`: packed captions have no batch dimension.

use std::cell::Cell;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
pub use dualenc_kernels::Activation;
use dualenc_kernels::{DropoutMask, LinearWeights, layer_norm, linear};

use crate::dual_encoder::lora::Adapter;
use crate::params::builder::{Init, ParamBuilder};
use crate::params::random::named_seed;

/// `x W + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[in, out]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// What is learned beside a locked weight.
    pub(crate) adapter: Option<Adapter>,
}

impl Linear {
    pub(crate) fn new(at: &ParamBuilder<'_>, input: usize, output: usize, bias: bool, std: f64) -> Self {
        Self {
            weight: at.param("weight", [input, output], Init::Normal(std)),
            bias: bias.then(|| at.param("bias", [output], Init::Constant(0.0))),
            adapter: None,
        }
    }

    /// `[rows, in]` to `[rows, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (weight, bias) = self.weights();
        linear(x, weight, bias)
    }

    /// Weight, adapted where it has an adapter, and bias, for operations over several linears.
    pub(crate) fn weights(&self) -> LinearWeights {
        let weight = match &self.adapter {
            Some(adapter) => self.weight.val() + adapter.difference(),
            None => self.weight.val(),
        };
        (weight, self.bias.as_ref().map(Param::val))
    }
}

/// Layer normalisation (Ba et al., 2016) over the last dimension.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[width]`.
    pub weight: Param<Tensor<1>>,
    /// `[width]`.
    pub bias: Option<Param<Tensor<1>>>,
    epsilon: f64,
}

impl LayerNorm {
    pub(crate) fn new(at: &ParamBuilder<'_>, width: usize, bias: bool, epsilon: f64) -> Self {
        Self {
            weight: at.param("weight", [width], Init::Constant(1.0)),
            bias: bias.then(|| at.param("bias", [width], Init::Constant(0.0))),
            epsilon,
        }
    }

    /// `[rows, width]` to the same.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        layer_norm(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.epsilon)
    }
}

/// Whether a forward pass drops units out, and with which numbers.
///
/// A mask is a function of (seed, position of the layer in the pass), so that a step can be replayed bit for bit.
#[derive(Debug)]
pub struct Dropout {
    seed: Option<u64>,
    calls: Cell<u64>,
}

impl Dropout {
    /// No dropout: evaluation, and every locked part.
    pub fn off() -> Self {
        Self { seed: None, calls: Cell::new(0) }
    }

    /// Dropout for the training step that `seed` stands for.
    pub fn training(seed: u64) -> Self {
        Self { seed: Some(seed), calls: Cell::new(0) }
    }

    /// The dropout of the part called `name` of the same step.
    #[must_use]
    pub fn part(&self, name: &str) -> Self {
        Self { seed: self.seed.map(|seed| named_seed(seed, name)), calls: Cell::new(0) }
    }

    /// The mask of the next layer that drops values of `x`, if one does. A tensor without gradient is never dropped.
    pub(crate) fn mask<const D: usize>(&self, x: &Tensor<D>, probability: f64) -> Option<DropoutMask> {
        let seed = self.seed.filter(|_| probability > 0.0 && x.is_autodiff())?;
        let call = self.calls.replace(self.calls.get() + 1);
        Some(DropoutMask::new(seed ^ call.wrapping_mul(0x9E37_79B9_7F4A_7C15), probability))
    }

    /// Inverted dropout (Srivastava et al., 2014), of any shape.
    pub(crate) fn apply<const D: usize>(&self, x: Tensor<D>, probability: f64) -> Tensor<D> {
        match self.mask(&x, probability) {
            Some(mask) => mask.apply(x),
            None => x,
        }
    }
}
