//! A head that is one linear map.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use dualenc_kernels::linear;

use crate::layers::layer_norm::LayerNorm;
use crate::params::builder::{Init, ParamBuilder};

/// Standard deviation of randomly initialised projections (`initializer_range` of transformers 5).
pub(crate) const PROJECTION_STD: f64 = 0.02;

/// Added to the variance of a layer norm of a head (the default of PyTorch).
pub(crate) const NORM_EPSILON: f64 = 1e-5;

/// The linear map of a head, `A LN(x) + b`, where norm and bias are optional. It is the whole head, or a part of one.
#[derive(Module, Debug)]
pub struct LinearHead {
    /// Normalises the input.
    pub norm: Option<LayerNorm>,
    /// `[width, dim]`.
    pub weight: Param<Tensor<2>>,
    /// `[dim]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl LinearHead {
    pub(crate) fn new(at: &ParamBuilder<'_>, width: usize, dim: usize, bias: bool, norm: bool) -> Self {
        Self {
            norm: norm.then(|| input_norm(at, width)),
            weight: at.param("weight", [width, dim], Init::Normal(PROJECTION_STD)),
            bias: bias.then(|| at.param("bias", [dim], Init::Constant(0.0))),
        }
    }

    /// Maps `[batch, width]` to `[batch, dim]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(normed(self.norm.as_ref(), x), self.weight.val(), self.bias.as_ref().map(Param::val))
    }
}

/// The layer norm of a head's input.
pub(crate) fn input_norm(at: &ParamBuilder<'_>, width: usize) -> LayerNorm {
    LayerNorm::new(&at.at("norm"), width, true, NORM_EPSILON)
}

/// `x` after the norm of the input, if there is one.
pub(crate) fn normed(norm: Option<&LayerNorm>, x: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
