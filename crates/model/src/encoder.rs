//! One transformer encoder for every family: what differs between families is in its config.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::attention::{Attention, Relations, RelativeBias};
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
    /// Whether the query has a bias; the next three likewise.
    pub query_bias: bool,
    /// The key.
    pub key_bias: bool,
    /// The value.
    pub value_bias: bool,
    /// The output of attention.
    pub output_bias: bool,
    /// Whether the MLP's linears have biases.
    pub mlp_bias: bool,
    /// Whether the norms have biases.
    pub norm_bias: bool,
    /// Whether the MLP multiplies its activated gate with a second projection (GLU variants, Shazeer, 2020).
    pub gated_mlp: bool,
    /// The relative position bias.
    pub relative: RelativeTable,
    /// Dropout of embeddings and of each residual branch.
    pub hidden_dropout: f64,
    /// Dropout of attention weights.
    pub attention_dropout: f64,
    /// Standard deviation of fresh weights (`initializer_range`).
    pub init_std: f64,
}

/// Where an encoder keeps its relative position bias, and how many relative positions there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelativeTable {
    /// It has none.
    None,
    /// One table for all blocks.
    Shared(usize),
    /// A table a block.
    EachBlock(usize),
}

impl EncoderConfig {
    /// A plain encoder of this size, from which a family's differs in what its config says: post-norm, exact GELU, biases
    /// everywhere, no dropout.
    pub fn plain(width: usize, depth: usize, heads: usize, mlp_width: usize) -> Self {
        Self {
            width,
            depth,
            heads,
            mlp_width,
            activation: Activation::Gelu,
            norm_order: NormOrder::Post,
            norm_epsilon: 1e-12,
            layer_scale: None,
            query_bias: true,
            key_bias: true,
            value_bias: true,
            output_bias: true,
            mlp_bias: true,
            norm_bias: true,
            gated_mlp: false,
            relative: RelativeTable::None,
            hidden_dropout: 0.0,
            attention_dropout: 0.0,
            init_std: 0.02,
        }
    }

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
    relative_bias: Option<RelativeBias>,
    blocks: Vec<Block>,
}

impl Encoder {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: &EncoderConfig) -> Self {
        let relative_bias = match config.relative {
            RelativeTable::Shared(rows) => {
                Some(RelativeBias::new(&at.at("relative_bias"), rows, config.heads, config.init_std))
            }
            _ => None,
        };
        Self { relative_bias, blocks: (0..config.depth).map(|n| Block::new(&at.at("blocks").at(n), config)).collect() }
    }

    /// `[rows, width]` to the same. `relations` holds one a block, or one for all of them.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        layout: &SequenceLayout,
        relations: &[Relations],
        dropout: &Dropout,
    ) -> Tensor<2> {
        let shared = self.relative_bias.as_ref().zip(relations.first());
        let shared = shared.and_then(|(bias, relations)| Some(bias.forward(relations.relative.clone()?)));
        let none = Relations::default();
        self.blocks.iter().enumerate().fold(x, |x, (n, block)| {
            let relations = relations.get(n).or(relations.first()).unwrap_or(&none);
            block.forward(x, layout, relations, shared.clone(), dropout)
        })
    }
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: LayerNorm,
    attention: Attention,
    relative_bias: Option<RelativeBias>,
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
        let norm = |name| LayerNorm::new(&at.at(name), config.width, config.norm_bias, config.norm_epsilon);
        let scale = |name| config.layer_scale.map(|value| at.param(name, [config.width], Init::Constant(value as f32)));
        let relative_bias = match config.relative {
            RelativeTable::EachBlock(rows) => {
                Some(RelativeBias::new(&at.at("relative_bias"), rows, config.heads, config.init_std))
            }
            _ => None,
        };
        Self {
            attention_norm: norm("attention_norm"),
            attention: Attention::new(&at.at("attention"), config),
            relative_bias,
            attention_scale: scale("attention_scale"),
            mlp_norm: norm("mlp_norm"),
            mlp: Mlp::new(&at.at("mlp"), config),
            mlp_scale: scale("mlp_scale"),
            norm_order: config.norm_order,
            dropout: config.hidden_dropout,
        }
    }

    fn forward(
        &self,
        x: Tensor<2>,
        layout: &SequenceLayout,
        relations: &Relations,
        shared_bias: Option<Tensor<4>>,
        dropout: &Dropout,
    ) -> Tensor<2> {
        let own = self.relative_bias.as_ref().zip(relations.relative.clone());
        let bias = own.map(|(bias, relative)| bias.forward(relative)).or(shared_bias);
        let attend = |x| {
            let x = self.attention.forward(x, layout, relations, bias, dropout);
            scaled(dropout.apply(x, self.dropout), &self.attention_scale)
        };
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
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    fn new(at: &ParamBuilder<'_>, config: &EncoderConfig) -> Self {
        let linear = |name, input, output| Linear::new(&at.at(name), input, output, config.mlp_bias, config.init_std);
        Self {
            gate: config.gated_mlp.then(|| linear("gate", config.width, config.mlp_width)),
            up: linear("up", config.width, config.mlp_width),
            down: linear("down", config.mlp_width, config.width),
            activation: config.activation,
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let inner = match &self.gate {
            Some(gate) => self.activation.forward(gate.forward(x.clone())) * self.up.forward(x),
            None => self.activation.forward(self.up.forward(x)),
        };
        self.down.forward(inner)
    }
}
