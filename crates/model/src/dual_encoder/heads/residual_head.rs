//! A head that starts as a linear map and learns what a linear map lacks.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use dualenc_kernels::{Activation, linear, mlp};

use crate::dual_encoder::heads::linear_head::{PROJECTION_STD, input_norm, normed};
use crate::layers::dropout::Dropout;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::Linear;
use crate::params::builder::{Init, ParamBuilder};

/// `A x + C gelu(B x)` of the normalised input `x`. `C` starts at 0: the head begins as the linear one with the same
/// `weight`.
#[derive(Module, Debug)]
pub struct ResidualHead {
    /// Normalises the input.
    pub norm: Option<LayerNorm>,
    /// `A`, `[width, dim]`.
    pub weight: Param<Tensor<2>>,
    /// `[dim]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// `B`, `[width, dim]`.
    pub up: Linear,
    /// `C`, `[dim, dim]`.
    pub down: Linear,
    pub(crate) dropout: f64,
}

impl ResidualHead {
    pub(crate) fn new(at: &ParamBuilder<'_>, width: usize, dim: usize, [bias, norm]: [bool; 2], dropout: f64) -> Self {
        Self {
            norm: norm.then(|| input_norm(at, width)),
            weight: at.param("weight", [width, dim], Init::Normal(PROJECTION_STD)),
            bias: bias.then(|| at.param("bias", [dim], Init::Constant(0.0))),
            up: Linear::xavier(&at.at("up"), width, dim, bias),
            // The bias of the straight path is that of the sum.
            down: Linear::zero(&at.at("down"), dim, dim),
            dropout,
        }
    }

    /// Sets `C` to 0, where a new head starts.
    pub(crate) fn clear(&mut self) {
        let weight = self.down.weight.val();
        let zeros = Tensor::<2>::zeros(weight.dims(), &weight.device().without_autodiff());
        self.down.weight = Param::from_tensor(zeros.autodiff().require_grad());
    }

    /// Maps `[batch, width]` to `[batch, dim]`.
    pub fn forward(&self, x: Tensor<2>, dropout: &Dropout) -> Tensor<2> {
        let x = normed(self.norm.as_ref(), x);
        let straight = linear(x.clone(), self.weight.val(), self.bias.as_ref().map(Param::val));
        straight + small_network(x, &self.up, &self.down, dropout, self.dropout)
    }
}

/// `down(drop(gelu(up(x))))`, in one pass where nothing is dropped.
pub(crate) fn small_network(
    x: Tensor<2>,
    up: &Linear,
    down: &Linear,
    dropout: &Dropout,
    probability: f64,
) -> Tensor<2> {
    if !dropout.drops(&down.weight, probability) {
        return mlp(x, up.weights(), Activation::Gelu, down.weights());
    }
    down.forward(dropout.apply(Activation::Gelu.forward(up.forward(x)), probability))
}
