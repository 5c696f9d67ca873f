//! One transformer encoder for every family: what differs between families is in its config.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use dualenc_kernels::{mlp, residual};

use crate::dual_encoder::lora::VisitLinear;
use crate::layers::linear::{Activation, Dropout, LayerNorm, Linear};
use crate::params::builder::{Init, ParamBuilder};
use crate::transformer::attention::{Attention, Relations, RelativeBias};
use crate::transformer::deberta_attention::{DisentangledConfig, RelativeEmbeddings};
use crate::transformer::sequence_layout::SequenceLayout;

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
    /// DeBERTa's attention to relative positions.
    pub disentangled: Option<DisentangledConfig>,
    /// Whether the first block normalises before its attention; ModernBERT's embeddings are normalised already.
    pub first_norm: bool,
    /// The blocks in the order they run, where they do not run once each (ALBERT shares their weights).
    pub order: Option<Vec<usize>>,
    /// Dropout of embeddings and of those residual branches that the next two name.
    pub hidden_dropout: f64,
    /// Whether the residual branch of attention drops out.
    pub drops_attention_branch: bool,
    /// Whether the residual branch of the MLP does.
    pub drops_mlp_branch: bool,
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
            disentangled: None,
            first_norm: true,
            order: None,
            hidden_dropout: 0.0,
            drops_attention_branch: true,
            drops_mlp_branch: true,
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
    relative_embeddings: Option<RelativeEmbeddings>,
    blocks: Vec<Block>,
    #[module(skip)]
    order: Vec<usize>,
}

impl Encoder {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: &EncoderConfig) -> Self {
        let relative_bias = match config.relative {
            RelativeTable::Shared(rows) => {
                Some(RelativeBias::new(&at.at("relative_bias"), rows, config.heads, config.init_std))
            }
            _ => None,
        };
        Self {
            relative_bias,
            relative_embeddings: config
                .disentangled
                .as_ref()
                .map(|disentangled| RelativeEmbeddings::new(&at.at("relative_embeddings"), disentangled, config)),
            blocks: (0..config.depth).map(|n| Block::new(&at.at("blocks").at(n), config, n)).collect(),
            order: config.order.clone().unwrap_or_else(|| (0..config.depth).collect()),
        }
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
        let shared = shared.and_then(|(bias, relations)| bias.forward(relations));
        let embeddings = self.relative_embeddings.as_ref().map(RelativeEmbeddings::forward);
        self.order.iter().fold(x, |x, &n| {
            let relations = relations.get(n).or(relations.first()).cloned().unwrap_or_default();
            let relations = Relations { embeddings: embeddings.clone(), ..relations };
            self.blocks[n].forward(x, layout, &relations, shared.clone(), dropout)
        })
    }

    /// The linears of its blocks, by path.
    pub(crate) fn linears(&mut self, path: &str, visit: &mut VisitLinear<'_>) {
        for (n, block) in self.blocks.iter_mut().enumerate() {
            block.attention.linears(&format!("{path}.blocks.{n}.attention"), visit);
            block.mlp.linears(&format!("{path}.blocks.{n}.mlp"), visit);
        }
    }
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: Option<LayerNorm>,
    attention: Attention,
    relative_bias: Option<RelativeBias>,
    attention_scale: Option<Param<Tensor<1>>>,
    mlp_norm: LayerNorm,
    mlp: Mlp,
    mlp_scale: Option<Param<Tensor<1>>>,
    #[module(skip)]
    norm_order: NormOrder,
    attention_dropout: f64,
    mlp_dropout: f64,
}

impl Block {
    fn new(at: &ParamBuilder<'_>, config: &EncoderConfig, n: usize) -> Self {
        let norm = |name| LayerNorm::new(&at.at(name), config.width, config.norm_bias, config.norm_epsilon);
        let scale = |name| config.layer_scale.map(|value| at.param(name, [config.width], Init::Constant(value as f32)));
        let relative_bias = match config.relative {
            RelativeTable::EachBlock(rows) => {
                Some(RelativeBias::new(&at.at("relative_bias"), rows, config.heads, config.init_std))
            }
            _ => None,
        };
        Self {
            attention_norm: (n > 0 || config.first_norm).then(|| norm("attention_norm")),
            attention: Attention::new(&at.at("attention"), config),
            relative_bias,
            attention_scale: scale("attention_scale"),
            mlp_norm: norm("mlp_norm"),
            mlp: Mlp::new(&at.at("mlp"), config),
            mlp_scale: scale("mlp_scale"),
            norm_order: config.norm_order,
            attention_dropout: if config.drops_attention_branch { config.hidden_dropout } else { 0.0 },
            mlp_dropout: if config.drops_mlp_branch { config.hidden_dropout } else { 0.0 },
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
        let bias = self.relative_bias.as_ref().and_then(|bias| bias.forward(relations)).or(shared_bias);
        let attend = |x| self.attention.forward(x, layout, relations, bias, dropout);
        let add = |x, branch, probability, scale: &Option<Param<Tensor<1>>>| {
            let mask = dropout.mask(&branch, probability);
            residual(x, branch, scale.as_ref().map(Param::val), mask)
        };
        let add_attention = |x, branch| add(x, branch, self.attention_dropout, &self.attention_scale);
        let add_mlp = |x, branch| add(x, branch, self.mlp_dropout, &self.mlp_scale);
        let attention_norm = |x| match &self.attention_norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        match self.norm_order {
            NormOrder::Pre => {
                let x = add_attention(x.clone(), attend(attention_norm(x)));
                add_mlp(x.clone(), self.mlp.forward(self.mlp_norm.forward(x)))
            }
            NormOrder::Post => {
                let x = attention_norm(add_attention(x.clone(), attend(x)));
                self.mlp_norm.forward(add_mlp(x.clone(), self.mlp.forward(x)))
            }
        }
    }
}

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
        let linear = |name, input, output| Linear::new(&at.at(name), input, output, config.mlp_bias, config.init_std);
        Self {
            gate: config.gated_mlp.then(|| linear("gate", config.width, config.mlp_width)),
            up: linear("up", config.width, config.mlp_width),
            down: linear("down", config.mlp_width, config.width),
            activation: config.activation,
        }
    }

    fn linears(&mut self, path: &str, visit: &mut VisitLinear<'_>) {
        let Self { gate, up, down, .. } = self;
        for (name, linear) in [("gate", gate.as_mut()), ("up", Some(up)), ("down", Some(down))] {
            linear.into_iter().for_each(|linear| visit(&format!("{path}.{name}"), linear));
        }
    }

    /// `[rows, width]` to the same.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.gate {
            Some(gate) => self.down.forward(self.activation.forward(gate.forward(x.clone())) * self.up.forward(x)),
            None => mlp(x, self.up.weights(), self.activation, self.down.weights()),
        }
    }
}

/// Multi-head attention pooling (Zhai et al., 2022, "Scaling Vision Transformers", app. B): a learned query attends to all
/// tokens of a sequence, and an MLP follows.
#[derive(Module, Debug)]
pub struct AttentionPool {
    probe: Param<Tensor<2>>,
    attention: Attention,
    norm: LayerNorm,
    mlp: Mlp,
}

impl AttentionPool {
    /// Of the encoder's width, heads and MLP.
    pub(crate) fn new(at: &ParamBuilder<'_>, config: &EncoderConfig) -> Self {
        Self {
            probe: at.param("probe", [1, config.width], Init::Normal(config.init_std)),
            attention: Attention::new(&at.at("attention"), config),
            norm: LayerNorm::new(&at.at("norm"), config.width, config.norm_bias, config.norm_epsilon),
            mlp: Mlp::new(&at.at("mlp"), config),
        }
    }

    /// `[rows, width]` to `[batch, width]`.
    pub(crate) fn forward(&self, x: Tensor<2>, layout: &SequenceLayout) -> Tensor<2> {
        let seen = self.attention.pool(self.probe.val(), x, layout);
        seen.clone() + self.mlp.forward(self.norm.forward(seen))
    }
}
