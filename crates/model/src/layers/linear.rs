//! The linear layer, optionally with a low-rank adapter.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use dualenc_kernels::{LinearWeights, PackedLinear, linear, packed_linear};

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
    /// What the layer is computed from instead of its parameters: `weight` then has no values.
    #[module(skip)]
    pub(crate) packed: Option<PackedLinear>,
}

impl Linear {
    pub(crate) fn new(at: &ParamBuilder<'_>, input: usize, output: usize, bias: bool, std: f64) -> Self {
        Self::drawn(at, [input, output], bias, Init::Normal(std))
    }

    /// With a weight that is uniform in +-sqrt(6 / (input + output)) (Glorot and Bengio, 2010, eq. 16).
    pub(crate) fn xavier(at: &ParamBuilder<'_>, input: usize, output: usize, bias: bool) -> Self {
        Self::drawn(at, [input, output], bias, Init::Uniform((6.0 / (input + output) as f64).sqrt()))
    }

    /// With a weight of zeros, without bias.
    pub(crate) fn zero(at: &ParamBuilder<'_>, input: usize, output: usize) -> Self {
        Self::drawn(at, [input, output], false, Init::Constant(0.0))
    }

    fn drawn(at: &ParamBuilder<'_>, shape: [usize; 2], bias: bool, init: Init) -> Self {
        Self {
            weight: at.param("weight", shape, init),
            bias: bias.then(|| at.param("bias", [shape[1]], Init::Constant(0.0))),
            adapter: None,
            packed: None,
        }
    }

    /// Maps `[rows, in]` to `[rows, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        if let Some(packed) = &self.packed {
            return packed_linear(x, [packed]);
        }
        let (weight, bias) = self.weights();
        linear(x, weight, bias)
    }

    /// Rounds the weight to bf16 and packs it for the processor's instructions. Only [`Linear::forward`] and what asks
    /// for `packed` can compute with it from here on.
    ///
    /// # Panics
    /// Those of [`PackedLinear::new`].
    pub(crate) fn pack(&mut self) {
        let (weight, bias) = self.weights();
        self.packed = Some(PackedLinear::new(&weight, bias.as_ref()));
        let [_, output] = weight.dims();
        // Keeps the width of the outputs, which attention asks for.
        let empty = Tensor::zeros([0, output], &weight.device().without_autodiff());
        self.weight = Param::initialized(self.weight.id, empty);
        self.adapter = None;
    }

    /// Whether its outputs are in the gradient graph, wherever its inputs are.
    pub(crate) fn is_autodiff(&self) -> bool {
        let bias = self.bias.as_ref().is_some_and(|bias| bias.val().is_autodiff());
        self.adapter.is_some() || bias || self.weight.val().is_autodiff()
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
