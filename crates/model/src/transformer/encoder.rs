//! The encoder: one implementation for every family; what differs is in its config.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::layers::dropout::Dropout;
use crate::layers::linear::LinearVisitor;
use crate::params::builder::ParamBuilder;
use crate::params::inventory::any_trains;
use crate::transformer::block::Block;
use crate::transformer::config::{EncoderConfig, RelativeTable};
use crate::transformer::deberta_attention::RelativeEmbeddings;
use crate::transformer::relations::Relations;
use crate::transformer::relative_bias::RelativeBias;
use crate::transformer::sequence_layout::SequenceLayout;

/// A sequence of blocks.
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

    /// Maps `[rows, width]` to the same shape. `relations` holds one entry per block, or one for all blocks.
    pub(crate) fn forward(
        &self,
        x: Tensor<2>,
        layout: &SequenceLayout,
        relations: &[Relations],
        dropout: &Dropout,
    ) -> Tensor<2> {
        self.forward_each(0, x, layout, relations, dropout, |_| {})
    }

    /// As [`Encoder::forward`], without the first `skip` blocks, which have computed `x`; passes the output of each
    /// other block to `on_block`, the last included.
    pub(crate) fn forward_each(
        &self,
        skip: usize,
        x: Tensor<2>,
        layout: &SequenceLayout,
        relations: &[Relations],
        dropout: &Dropout,
        mut on_block: impl FnMut(&Tensor<2>),
    ) -> Tensor<2> {
        let shared = self.relative_bias.as_ref().zip(relations.first());
        let shared = shared.and_then(|(bias, relations)| bias.forward(relations));
        let embeddings = self.relative_embeddings.as_ref().map(RelativeEmbeddings::forward);
        self.order.iter().skip(skip).fold(x, |x, &n| {
            let relations = relations.get(n).or(relations.first()).cloned().unwrap_or_default();
            let relations = Relations { embeddings: embeddings.clone(), ..relations };
            let x = self.blocks[n].forward(x, layout, &relations, shared.clone(), dropout);
            on_block(&x);
            x
        })
    }

    /// Number of blocks that run.
    pub(crate) fn num_layers(&self) -> usize {
        self.order.len()
    }

    /// How many blocks, from the first that runs, are locked together with the relative positions that all share.
    pub(crate) fn num_locked_layers(&self) -> usize {
        if any_trains(&self.relative_bias) || any_trains(&self.relative_embeddings) {
            return 0;
        }
        self.order.iter().take_while(|&&block| !any_trains(&self.blocks[block])).count()
    }

    /// The encoder that ends after the first `layers` blocks that run.
    pub(crate) fn ending_after(&self, layers: usize) -> Self {
        let order = self.order[..layers].to_vec();
        let blocks = order.iter().map(|block| block + 1).max().unwrap_or(0);
        Self { blocks: self.blocks[..blocks].to_vec(), order, ..self.clone() }
    }

    /// Calls `visit` for each linear of the blocks; `path` is the encoder's own.
    pub(crate) fn visit_linears(&mut self, path: &str, visit: &mut LinearVisitor<'_>) {
        for (n, block) in self.blocks.iter_mut().enumerate() {
            block.visit_linears(&format!("{path}.blocks.{n}"), visit);
        }
    }
}
