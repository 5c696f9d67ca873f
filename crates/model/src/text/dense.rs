//! The `Dense` layers that sentence-transformers puts after the pooling of a text tower.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, tanh};
use dualenc_kernels::Activation;
use serde_json::json;

use crate::layers::linear::Linear;
use crate::params::builder::ParamBuilder;

/// One `Dense` layer: a linear, then an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenseConfig {
    /// Input width (`in_features`).
    pub input: usize,
    /// Output width (`out_features`).
    pub output: usize,
    /// Whether the linear has a bias.
    pub bias: bool,
    /// The activation.
    pub activation: DenseActivation,
}

/// The nonlinearity of a `Dense` layer (`activation_function`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseActivation {
    /// The identity.
    Identity,
    /// tanh, the default.
    Tanh,
    /// The logistic function.
    Sigmoid,
    /// One that blocks have, too.
    Block(Activation),
}

impl DenseActivation {
    /// The classes of PyTorch that can be read, as configs name them.
    const CLASSES: [(&str, Self); 6] = [
        ("torch.nn.modules.linear.Identity", Self::Identity),
        ("torch.nn.modules.activation.Tanh", Self::Tanh),
        ("torch.nn.modules.activation.Sigmoid", Self::Sigmoid),
        ("torch.nn.modules.activation.GELU", Self::Block(Activation::Gelu)),
        ("torch.nn.modules.activation.ReLU", Self::Block(Activation::Relu)),
        ("torch.nn.modules.activation.SiLU", Self::Block(Activation::Silu)),
    ];

    /// The activation of a PyTorch class; `None` if it cannot be read.
    pub(crate) fn of_class(class: &str) -> Option<Self> {
        Self::CLASSES.into_iter().find(|(name, _)| *name == class).map(|(_, activation)| activation)
    }

    /// The PyTorch class; `None` if there is none.
    pub fn class(self) -> Option<&'static str> {
        Self::CLASSES.into_iter().find(|(_, activation)| *activation == self).map(|(name, _)| name)
    }

    fn form(self) -> String {
        match self {
            Self::Identity => "identity".to_owned(),
            Self::Tanh => "tanh".to_owned(),
            Self::Sigmoid => "sigmoid".to_owned(),
            Self::Block(activation) => json!(activation).to_string(),
        }
    }
}

impl DenseConfig {
    /// The written form, for cache keys (see `form`).
    pub(crate) fn form(&self) -> String {
        let Self { input, output, bias, activation } = self;
        format!("{input}->{output} bias={bias} {}", activation.form())
    }
}

/// A `Dense` layer.
#[derive(Module, Debug)]
pub(crate) struct Dense {
    linear: Linear,
    #[module(skip)]
    config: DenseConfig,
}

impl Dense {
    pub fn new(at: &ParamBuilder<'_>, config: DenseConfig, std: f64) -> Self {
        Self { linear: Linear::new(&at.at("linear"), config.input, config.output, config.bias, std), config }
    }

    pub fn config(&self) -> DenseConfig {
        self.config
    }

    /// Maps `[batch, input]` to `[batch, output]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.linear.forward(x);
        match self.config.activation {
            DenseActivation::Identity => x,
            DenseActivation::Tanh => tanh(x),
            DenseActivation::Sigmoid => sigmoid(x),
            DenseActivation::Block(activation) => activation.forward(x),
        }
    }
}
