//! A token head of transformer blocks (dino.txt, Jose et al., 2024, arXiv:2412.16334).

use burn::module::Module;
use burn::tensor::Tensor;
use dualenc_kernels::Activation;

use crate::dual_encoder::heads::linear_head::NORM_EPSILON;
use crate::dual_encoder::token_heads::form::TokenForm;
use crate::layers::dropout::Dropout;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::Linear;
use crate::params::builder::ParamBuilder;
use crate::transformer::config::{EncoderConfig, NormOrder};
use crate::transformer::encoder::Encoder;
use crate::transformer::relations::Relations;
use crate::transformer::sequence_layout::SequenceLayout;
use crate::vision::token_layout::TokenLayout;

/// Initial LayerScale (CaiT, Touvron et al., 2021, arXiv:2103.17239, tab. 1): blocks begin close to the identity.
const LAYER_SCALE: f64 = 1e-5;

/// The hidden width of a gated MLP is a multiple of this.
const HIDDEN_MULTIPLE: usize = 64;

/// Transformer blocks over the tokens, then a layer norm; the output is the class token and the mean of the patch
/// tokens, or the mean alone for towers without a class token.
#[derive(Module, Debug)]
pub struct TokenBlocks {
    /// Maps each token to the width of the blocks, where it has another: `[token width, width]`.
    pub input: Option<Linear>,
    encoder: Encoder,
    /// After the blocks.
    pub norm: LayerNorm,
    pub(crate) drop_path: f64,
    pub(crate) heads: usize,
    #[module(skip)]
    pub(crate) layout: TokenLayout,
}

impl TokenBlocks {
    /// `blocks`: their number, and the probability with which a branch of one is left out for an image.
    pub(crate) fn new(
        at: &ParamBuilder<'_>,
        form: TokenForm,
        (count, drop_path): (usize, f64),
        layout: TokenLayout,
    ) -> Self {
        let TokenForm { width, heads, .. } = form;
        let config = EncoderConfig {
            activation: Activation::Silu,
            gated_mlp: true,
            norm_order: NormOrder::Pre,
            norm_epsilon: NORM_EPSILON,
            layer_scale: Some(LAYER_SCALE),
            // It would cancel in the softmax.
            key_bias: false,
            drop_path,
            ..EncoderConfig::plain(width, count, heads, hidden_width(width))
        };
        Self {
            input: (layout.width != width).then(|| Linear::xavier(&at.at("input"), layout.width, width, true)),
            encoder: Encoder::new(&at.at("encoder"), &config),
            norm: LayerNorm::new(&at.at("norm"), width, true, NORM_EPSILON),
            drop_path,
            heads,
            layout,
        }
    }

    /// Number of blocks.
    pub fn count(&self) -> usize {
        self.encoder.num_layers()
    }

    /// Width of the blocks.
    pub fn width(&self) -> usize {
        self.norm.weight.lazy_shape().dims::<1>()[0]
    }

    /// Maps `[batch, tokens * token width]` to `[batch, 2 * width]`, or to `[batch, width]` without a class token.
    pub fn forward(&self, tokens: Tensor<2>, dropout: &Dropout) -> Tensor<2> {
        let ([batch, _], count, width) = (tokens.dims(), self.layout.count(&tokens), self.width());
        let rows = tokens.reshape([batch * count, self.layout.width]);
        let rows = match &self.input {
            Some(input) => input.forward(rows),
            None => rows,
        };
        let sequences = SequenceLayout::uniform(batch, count);
        let rows = self.encoder.forward(rows, &sequences, &[Relations::default()], dropout);
        let tokens = self.norm.forward(rows).reshape([batch, count * width]);
        let mean = self.layout.mean_of_patches(tokens.clone(), width);
        if self.layout.class_token { Tensor::cat(vec![tokens.narrow(1, 0, width), mean], 1) } else { mean }
    }
}

/// Hidden width of the MLP: 8/3 of the width, so that three matrices have as many values as two of four times the
/// width (GLU variants, Shazeer, 2020, arXiv:2002.05202, sec. 3).
fn hidden_width(width: usize) -> usize {
    (8 * width).div_ceil(3).next_multiple_of(HIDDEN_MULTIPLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_width_is_rounded_up() {
        assert_eq!([8, 256, 384, 768].map(hidden_width), [64, 704, 1024, 2048]);
    }
}
