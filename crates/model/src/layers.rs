//! The small layers every tower is made of. All work on rows: `[rows, width]`.
//!
//! Rows, because Burn's CPU backend runs a linear over `[batch, seq, width]` with `seq` divisible by 32 as `batch`
//! small products (2 to 3 times slower), and because packed captions have no batch dimension at all.

use std::cell::Cell;

use burn::module::{Module, Param};
use burn::tensor::activation::{gelu, gelu_approximate, sigmoid};
use burn::tensor::{Tensor, TensorData, module};
use serde::{Deserialize, Serialize};

use crate::params::{Init, ParamBuilder};
use crate::random::{dropout_factors, named_seed};

/// `x W + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[in, out]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    pub(crate) fn new(at: &ParamBuilder<'_>, input: usize, output: usize, bias: bool, std: f64) -> Self {
        Self {
            weight: at.param("weight", [input, output], Init::Normal(std)),
            bias: bias.then(|| at.param("bias", [output], Init::Constant(0.0))),
        }
    }

    /// `[rows, in]` to `[rows, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        module::linear(x, self.weight.val(), self.bias.as_ref().map(Param::val))
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
        module::layer_norm(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.epsilon)
    }
}

/// The nonlinearity inside an MLP, by its name in transformers' `ACT2FN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// Exact, with erf.
    #[serde(rename = "gelu", alias = "gelu_python")]
    Gelu,
    /// The tanh approximation.
    #[serde(
        rename = "gelu_new",
        alias = "gelu_pytorch_tanh",
        alias = "gelu_fast",
        alias = "gelu_accurate",
        alias = "gelu_python_tanh"
    )]
    GeluTanh,
    /// `x * sigmoid(1.702 x)`, as in CLIP.
    #[serde(rename = "quick_gelu")]
    QuickGelu,
    /// max(0, x).
    #[serde(rename = "relu")]
    Relu,
    /// `x * sigmoid(x)`.
    #[serde(rename = "silu", alias = "swish")]
    Silu,
}

impl Activation {
    pub(crate) fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluTanh => gelu_approximate(x),
            // transformers: activations.py, QuickGELUActivation.
            Self::QuickGelu => x.clone() * sigmoid(x * 1.702),
            Self::Relu => burn::tensor::activation::relu(x),
            Self::Silu => burn::tensor::activation::silu(x),
        }
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

    /// Inverted dropout (Srivastava et al., 2014), of any shape. A tensor without gradient is never dropped.
    pub(crate) fn apply<const D: usize>(&self, x: Tensor<D>, probability: f64) -> Tensor<D> {
        let (Some(seed), true) = (self.seed, probability > 0.0 && x.is_autodiff()) else {
            return x;
        };
        let call = self.calls.replace(self.calls.get() + 1);
        let shape = x.dims();
        let factors =
            dropout_factors(seed ^ call.wrapping_mul(0x9E37_79B9_7F4A_7C15), shape.iter().product(), probability);
        let factors = Tensor::<D>::from_data(TensorData::new(factors, shape), &x.device().without_autodiff());
        x * factors
    }
}
