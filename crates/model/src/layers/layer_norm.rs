//! Layer normalisation.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use dualenc_kernels::layer_norm;

use crate::params::builder::{Init, ParamBuilder};

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

    /// Normalises each row of `[rows, width]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        layer_norm(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.epsilon)
    }
}
