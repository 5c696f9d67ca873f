//! The MLP of a block.

use burn::module::Module;
use burn::tensor::Tensor;
use dualenc_kernels::{Activation, PackedLinear, mlp, packed_mlp};

use crate::layers::linear::{Linear, LinearVisitor};
use crate::params::builder::ParamBuilder;
use crate::transformer::config::EncoderConfig;

/// The MLP of a block, gated or not.
#[derive(Module, Debug)]
pub(crate) struct Mlp {
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    pub fn new(at: &ParamBuilder<'_>, config: &EncoderConfig) -> Self {
        let EncoderConfig { width, mlp_width, mlp_bias, mlp_input_bias, init_std, .. } = *config;
        let input = |name| Linear::new(&at.at(name), width, mlp_width, mlp_bias && mlp_input_bias, init_std);
        Self {
            gate: config.gated_mlp.then(|| input("gate")),
            up: input("up"),
            down: Linear::new(&at.at("down"), mlp_width, width, mlp_bias, init_std),
            activation: config.activation,
        }
    }

    /// Calls `visit` for each linear; `path` is the MLP's own.
    pub fn visit_linears(&mut self, path: &str, visit: &mut LinearVisitor<'_>) {
        let Self { gate, up, down, .. } = self;
        for (name, linear) in [("gate", gate.as_mut()), ("up", Some(up)), ("down", Some(down))] {
            linear.into_iter().for_each(|linear| visit(&format!("{path}.{name}"), linear));
        }
    }

    /// The layers and what is between them, if they are packed and the MLP is not gated.
    pub fn packed(&self) -> Option<(&PackedLinear, Activation, &PackedLinear)> {
        let layers = self.up.packed.as_ref().zip(self.down.packed.as_ref()).filter(|_| self.gate.is_none());
        layers.map(|(up, down)| (up, self.activation, down))
    }

    /// Maps `[rows, width]` to the same shape.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match (&self.gate, self.packed()) {
            (Some(gate), _) => self.down.forward(self.activation.forward(gate.forward(x.clone())) * self.up.forward(x)),
            (None, Some((up, activation, down))) => packed_mlp(x, up, activation, down),
            (None, None) => mlp(x, self.up.weights(), self.activation, self.down.weights()),
        }
    }
}
