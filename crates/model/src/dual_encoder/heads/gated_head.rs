//! A head of two linear maps that are multiplied, and a third.

use burn::module::Module;
use burn::tensor::Tensor;
use dualenc_kernels::gated;

use crate::dual_encoder::heads::linear_head::{input_norm, normed};
use crate::layers::dropout::Dropout;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::Linear;
use crate::params::builder::ParamBuilder;

/// `W3 (min(max(W1 x, 0), 6) * W2 x)` of the normalised input `x`. In half precision, `W2 x` is limited to +-1000.
#[derive(Module, Debug)]
pub struct GatedHead {
    /// Normalises the input.
    pub norm: Option<LayerNorm>,
    /// `W1`, `[width, hidden]`.
    pub gate: Linear,
    /// `W2`, `[width, hidden]`.
    pub up: Linear,
    /// `W3`, `[hidden, dim]`.
    pub down: Linear,
    pub(crate) dropout: f64,
}

impl GatedHead {
    pub(crate) fn new(
        at: &ParamBuilder<'_>,
        width: usize,
        dim: usize,
        hidden: usize,
        [bias, norm]: [bool; 2],
        dropout: f64,
    ) -> Self {
        let linear = |name, input, output| Linear::xavier(&at.at(name), input, output, bias);
        Self {
            norm: norm.then(|| input_norm(at, width)),
            gate: linear("gate", width, hidden),
            up: linear("up", width, hidden),
            down: linear("down", hidden, dim),
            dropout,
        }
    }

    /// Maps `[batch, width]` to `[batch, dim]`.
    pub fn forward(&self, x: Tensor<2>, dropout: &Dropout) -> Tensor<2> {
        let x = normed(self.norm.as_ref(), x);
        let hidden = gated(self.gate.forward(x.clone()), self.up.forward(x));
        let drops = dropout.drops(&self.down.weight, self.dropout);
        self.down.forward(if drops { dropout.apply(hidden, self.dropout) } else { hidden })
    }
}
