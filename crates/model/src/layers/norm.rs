//! The norms of a transformer: layer normalisation and its relatives.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use dualenc_kernels::{PackedNorm, layer_norm, rms_norm};

use crate::params::builder::{Init, ParamBuilder};

/// What a norm does to a row before it multiplies by its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Subtracts the mean and divides by the standard deviation (Ba et al., 2016).
    Layer,
    /// Divides by the root mean square (Zhang and Sennrich, 2019), and has no bias.
    Rms,
    /// The same, with a weight that is stored as its difference from 1 (Gemma).
    RmsFromOne,
}

/// A norm over the last dimension.
#[derive(Module, Debug)]
pub(crate) struct Norm {
    /// `[width]`.
    weight: Param<Tensor<1>>,
    /// `[width]`.
    bias: Option<Param<Tensor<1>>>,
    epsilon: f64,
    #[module(skip)]
    kind: NormKind,
}

impl Norm {
    pub fn new(at: &ParamBuilder<'_>, width: usize, kind: NormKind, bias: bool, epsilon: f64) -> Self {
        let initial = if kind == NormKind::RmsFromOne { 0.0 } else { 1.0 };
        Self {
            weight: at.param("weight", [width], Init::Constant(initial)),
            bias: (bias && kind == NormKind::Layer).then(|| at.param("bias", [width], Init::Constant(0.0))),
            epsilon,
            kind,
        }
    }

    /// The norm for [`packed_block`](dualenc_kernels::packed_block), if it is a layer norm.
    pub fn packed(&self) -> Option<PackedNorm> {
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        (self.kind == NormKind::Layer).then_some(PackedNorm { weight, bias, epsilon: self.epsilon })
    }

    /// Normalises each row of `[rows, width]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self.kind {
            NormKind::Layer => layer_norm(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.epsilon),
            NormKind::Rms => rms_norm(x, self.weight.val(), self.epsilon),
            NormKind::RmsFromOne => rms_norm(x, self.weight.val() + 1.0, self.epsilon),
        }
    }
}
