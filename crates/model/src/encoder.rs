//! One transformer encoder for every family: what differs between families is in its config.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::attention::Attention;
use crate::layers::{Activation, Dropout, LayerNorm, Linear};
use crate::params::{Init, ParamBuilder};
use crate::sequence::SequenceLayout;

/// Where a block normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormOrder {
    /// Before attention and MLP, inside the residual branch (ViT).
    Pre,
    /// After each residual sum (BERT).
    Post,
}

/// Everything an encoder needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Width of the residual stream (`hidden_size`).
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width inside the MLP.
    pub mlp_width: usize,
    /// The MLP's nonlinearity.
    pub activation: Activation,
    /// Pre- or post-norm.
    pub norm_order: NormOrder,
    /// Epsilon of the layer norms.
    pub norm_epsilon: f64,
    /// A learned factor a channel on each residual branch (CaiT's LayerScale), and its initial value.
    pub layer_scale: Option<f64>,
    /// Whether query, key and value have biases.
    pub qkv_bias: bool,
    /// Dropout of embeddings and of each residual branch.
    pub hidden_dropout: f64,
    /// Dropout of attention weights.
    pub attention_dropout: f64,
    /// Standard deviation of fresh weights (`initializer_range`).
    pub init_std: f64,
}

impl EncoderConfig {
    /// The same with both dropouts replaced, where a value is given.
    #[must_use]
    pub fn with_dropout(self, dropout: Option<f64>) -> Self {
        Self {
            hidden_dropout: dropout.unwrap_or(self.hidden_dropout),
            attention_dropout: dropout.unwrap_or(self.attention_dropout),
            ..self
        }
    }
}

/// Blocks in sequence.
#[derive(Module, Debug)]
pub struct Encoder {
    blocks: Vec<Block>,
}

impl Encoder {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: &EncoderConfig) -> Self {
        Self { blocks: (0..config.depth).map(|n| Block::new(&at.at("blocks").at(n), config)).collect() }
    }

    /// `[rows, width]` to the same.
    pub(crate) fn forward(&self, x: Tensor<2>, layout: &SequenceLayout, dropout: &Dropout) -> Tensor<2> {
        self.blocks.iter().fold(x, |x, block| block.forward(x, layout, dropout))
    }
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: LayerNorm,
    attention: Attention,
    attention_scale: Option<Param<Tensor<1>>>,
    mlp_norm: LayerNorm,
    mlp: Mlp,
    mlp_scale: Option<Param<Tensor<1>>>,
    #[module(skip)]
    norm_order: NormOrder,
    dropout: f64,
}

impl Block {
    fn new(at: &ParamBuilder<'_>, config: &EncoderConfig) -> Self {
        let norm = |name| LayerNorm::new(&at.at(name), config.width, config.norm_epsilon);
        let scale = |name| config.layer_scale.map(|value| at.param(name, [config.width], Init::Constant(value as f32)));
        Self {
            attention_norm: norm("attention_norm"),
            attention: Attention::new(&at.at("attention"), config),
            attention_scale: scale("attention_scale"),
            mlp_norm: norm("mlp_norm"),
            mlp: Mlp::new(&at.at("mlp"), config),
            mlp_scale: scale("mlp_scale"),
            norm_order: config.norm_order,
            dropout: config.hidden_dropout,
        }
    }

    fn forward(&self, x: Tensor<2>, layout: &SequenceLayout, dropout: &Dropout) -> Tensor<2> {
        let attend =
            |x| scaled(dropout.apply(self.attention.forward(x, layout, dropout), self.dropout), &self.attention_scale);
        let mlp = |x| scaled(dropout.apply(self.mlp.forward(x), self.dropout), &self.mlp_scale);
        match self.norm_order {
            NormOrder::Pre => {
                let x = x.clone() + attend(self.attention_norm.forward(x));
                x.clone() + mlp(self.mlp_norm.forward(x))
            }
            NormOrder::Post => {
                let x = self.attention_norm.forward(x.clone() + attend(x));
                self.mlp_norm.forward(x.clone() + mlp(x))
            }
        }
    }
}

fn scaled(x: Tensor<2>, scale: &Option<Param<Tensor<1>>>) -> Tensor<2> {
    match scale {
        Some(scale) => x * scale.val().unsqueeze(),
        None => x,
    }
}

#[derive(Module, Debug)]
struct Mlp {
    up: Linear,
    down: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    fn new(at: &ParamBuilder<'_>, config: &EncoderConfig) -> Self {
        Self {
            up: Linear::new(&at.at("up"), config.width, config.mlp_width, true, config.init_std),
            down: Linear::new(&at.at("down"), config.mlp_width, config.width, true, config.init_std),
            activation: config.activation,
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.down.forward(self.activation.forward(self.up.forward(x)))
    }
}
