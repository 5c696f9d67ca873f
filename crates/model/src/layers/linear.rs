//! The linear layer, optionally with a low-rank adapter.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use dualenc_kernels::{LinearWeights, linear};

use crate::layers::adapter::Adapter;
use crate::params::builder::{Init, ParamBuilder};

/// `x W + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[in, out]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Low-rank update that trains while the weight is frozen.
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

    /// Maps `[rows, in]` to `[rows, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (weight, bias) = self.weights();
        linear(x, weight, bias)
    }

    /// The weight `[in, out]`, adapter included, and the bias `[out]`: for kernels that fuse several linears.
    pub(crate) fn weights(&self) -> LinearWeights {
        let weight = match &self.adapter {
            Some(adapter) => self.weight.val() + adapter.difference(),
            None => self.weight.val(),
        };
        (weight, self.bias.as_ref().map(Param::val))
    }
}

/// Called with the path of each linear layer and the layer itself.
pub(crate) type LinearVisitor<'a> = dyn FnMut(&str, &mut Linear) + 'a;
