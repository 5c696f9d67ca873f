//! Contrastive losses without the whole `[batch, batch]` matrix of logits: a tile of image rows is computed, used and
//! dropped, and the gradients are computed together with the loss. Memory is O(batch * dim) plus one tile. How targets
//! follow from the data (duplicates, label smoothing) is decided by the caller.
//!
//! - `objective`: which loss, and which pairs match.
//! - `fused`: both losses over slices, for the CPU.
//! - `log_sums`: log-sum-exps of tiles, for `fused`.
//! - `tiled`: both losses in Burn's own operations, for every other device.

#[cfg(feature = "flex")]
pub(crate) mod fused;
#[cfg(feature = "flex")]
pub(crate) mod log_sums;
pub(crate) mod objective;
pub(crate) mod tiled;

use burn::tensor::Tensor;

use crate::contrastive::objective::PairLoss;
use crate::contrastive::tiled::tiled_pair_loss;

/// Logits in memory at once, 64 MB of `f32`. A batch of up to 4096 is one tile, which then serves the gradient too.
const TILE_LOGITS: usize = 1 << 24;

/// The contrastive loss, `[1]`, of a batch of image-text pairs.
///
/// `image_embeds` and `text_embeds` are `[batch, dim]` and L2-normalised. The logits are their cosine similarities
/// times `exp(logit_scale)`, plus `logit_bias` if given; both are `[1]`.
///
/// # Panics
///
/// If an input has another shape.
pub fn pair_loss(
    image_embeds: &Tensor<2>,
    text_embeds: &Tensor<2>,
    logit_scale: &Tensor<1>,
    logit_bias: Option<&Tensor<1>>,
    loss: &PairLoss,
) -> Tensor<1> {
    let embeds = (image_embeds, text_embeds);
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(image_embeds)
        && let Some(loss) = fused::pair_loss(embeds, logit_scale, logit_bias, loss, TILE_LOGITS)
    {
        return loss;
    }
    tiled_pair_loss(embeds, logit_scale, logit_bias, loss, TILE_LOGITS)
}
