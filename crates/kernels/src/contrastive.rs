//! The contrastive losses of a batch without its matrix of logits: tiles of image rows are computed, used and dropped, and the
//! gradients are made with the loss. Memory is O(batch * dim) beside one tile.

#[cfg(feature = "flex")]
pub(crate) mod fused;
mod tiled;

use std::sync::Arc;

use burn::tensor::Tensor;

pub use tiled::tiled_pair_loss;

/// Logits that are held at once, 64 MB: a batch of 4096 is one tile, whose logits serve the gradient too.
const TILE_LOGITS: usize = 1 << 24;

/// Which loss, and what the pairs of the batch are to each other. Images are rows, texts columns.
#[derive(Debug, Clone)]
pub enum PairLoss {
    /// Symmetric InfoNCE (CLIP, arXiv:2103.00020, fig. 3).
    Softmax {
        /// Logits whose multiples the loss falls by, masked or not, as (row, column, factor), sorted by row. The factors of hard
        /// targets sum to 1.
        targets: Arc<[(usize, usize, f32)]>,
        /// Logits that are left out of the sums, as (row, column), sorted.
        masked: Arc<[(usize, usize)]>,
    },
    /// Every pair as a binary question (SigLIP, arXiv:2303.15343, alg. 1).
    Sigmoid {
        /// Pairs beside the diagonal that match, as (row, column), sorted.
        positives: Arc<[(usize, usize)]>,
        /// Pairs that are left out, as (row, column), sorted.
        masked: Arc<[(usize, usize)]>,
    },
}

/// The loss `[1]` of L2-normalised `[batch, dim]` embeddings under `exp(logit_scale)` and, of the sigmoid loss, `logit_bias`,
/// both `[1]`.
pub fn pair_loss(
    image_embeds: &Tensor<2>,
    text_embeds: &Tensor<2>,
    logit_scale: &Tensor<1>,
    logit_bias: Option<&Tensor<1>>,
    loss: &PairLoss,
) -> Tensor<1> {
    let embeds = (image_embeds, text_embeds);
    #[cfg(feature = "flex")]
    if crate::record::is_fused(image_embeds)
        && let Some(fused) = fused::pair_loss(embeds, logit_scale, logit_bias, loss, TILE_LOGITS)
    {
        return fused;
    }
    tiled_pair_loss(embeds, logit_scale, logit_bias, loss, TILE_LOGITS)
}
