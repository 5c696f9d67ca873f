//! A head of residual blocks.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::dual_encoder::heads::linear_head::{NORM_EPSILON, input_norm, normed};
use crate::dual_encoder::heads::residual_head::small_network;
use crate::layers::dropout::Dropout;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::Linear;
use crate::params::builder::ParamBuilder;

/// Hidden width of a block, as a multiple of the width (FuseMix, Vouitsis et al., 2024, arXiv:2312.10144).
pub(crate) const BLOCK_EXPANSION: usize = 4;

/// Blocks `x + W2 gelu(W1 LN(x))` on the normalised input, then a layer norm and a linear map.
#[derive(Module, Debug)]
pub struct BlockHead {
    /// Normalises the input.
    pub norm: Option<LayerNorm>,
    /// The blocks, in the order in which they run.
    pub blocks: Vec<HeadBlock>,
    /// After the blocks.
    pub output_norm: LayerNorm,
    /// `[width, dim]`.
    pub output: Linear,
    pub(crate) dropout: f64,
}

/// `x + W2 gelu(W1 LN(x))`.
#[derive(Module, Debug)]
pub struct HeadBlock {
    /// Normalises the input of the network.
    pub norm: LayerNorm,
    /// `W1`, `[width, 4 * width]`.
    pub up: Linear,
    /// `W2`, `[4 * width, width]`.
    pub down: Linear,
}

impl BlockHead {
    pub(crate) fn new(
        at: &ParamBuilder<'_>,
        width: usize,
        dim: usize,
        count: usize,
        [bias, norm]: [bool; 2],
        dropout: f64,
    ) -> Self {
        let block = |n| {
            let at = at.at(format!("blocks.{n}"));
            HeadBlock {
                norm: LayerNorm::new(&at.at("norm"), width, true, NORM_EPSILON),
                up: Linear::xavier(&at.at("up"), width, BLOCK_EXPANSION * width, bias),
                down: Linear::xavier(&at.at("down"), BLOCK_EXPANSION * width, width, bias),
            }
        };
        Self {
            norm: norm.then(|| input_norm(at, width)),
            blocks: (0..count).map(block).collect(),
            output_norm: LayerNorm::new(&at.at("output_norm"), width, true, NORM_EPSILON),
            output: Linear::xavier(&at.at("output"), width, dim, bias),
            dropout,
        }
    }

    /// Maps `[batch, width]` to `[batch, dim]`.
    pub fn forward(&self, x: Tensor<2>, dropout: &Dropout) -> Tensor<2> {
        let x = self.blocks.iter().fold(normed(self.norm.as_ref(), x), |x, block| {
            let inner = block.norm.forward(x.clone());
            x + small_network(inner, &block.up, &block.down, dropout, self.dropout)
        });
        self.output.forward(self.output_norm.forward(x))
    }
}
