//! How far the logits of a batch are from those of a teacher: a divergence between the two distributions that each row
//! and each column of the logits stands for, without the whole `[batch, batch]` matrices.
//!
//! A tile of both matrices is computed, used and dropped, and the gradients are computed together with the loss, as in
//! `contrastive`. The teacher's tiles are computed again for the gradient, unless there is only one.
//!
//! - `teacher`: the teacher's logits, and which divergence.
//! - `fused`: over slices, for the CPU.
//! - `tiled`: in Burn's own operations, for every other device.

#[cfg(feature = "flex")]
pub(crate) mod fused;
pub(crate) mod teacher;
#[cfg(test)]
#[cfg(feature = "flex")]
mod tests;
pub(crate) mod tiled;

use burn::tensor::Tensor;

use crate::distillation::teacher::TeacherLogits;
use crate::distillation::tiled::tiled_distillation_loss;

/// Logits of each of the two matrices in memory at once, 32 MB of `f32`: together as many as in a tile of the
/// contrastive loss. A batch of up to 2896 is one tile.
const TILE: usize = 1 << 23;

/// The divergence of the logits of a batch from the teacher's, `[1]`: 0 where both say the same. The teacher is not
/// differentiated.
///
/// `image_embeds` and `text_embeds` are `[batch, dim]` and L2-normalised. Their logits are the cosines times
/// `exp(logit_scale)`, plus `logit_bias` if given; both are `[1]`. `masked` logits, as (row, column), sorted and off
/// the diagonal, are left out on both sides: of the softmaxes, or of the sum.
///
/// # Panics
///
/// If an input has another shape.
pub fn distillation_loss(
    teacher: &TeacherLogits<'_>,
    embeds: (&Tensor<2>, &Tensor<2>),
    logit_scale: &Tensor<1>,
    logit_bias: Option<&Tensor<1>>,
    masked: &[(usize, usize)],
) -> Tensor<1> {
    let [batch, _] = embeds.0.dims();
    for (name, side) in [("text", embeds.1), ("teacher's image", teacher.image), ("teacher's text", teacher.text)] {
        assert_eq!(side.dims()[0], batch, "rows of the {name} embeddings of a batch");
    }
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(embeds.0)
        && let Some(loss) = fused::distillation_loss(teacher, embeds, logit_scale, logit_bias, masked, TILE)
    {
        return loss;
    }
    tiled_distillation_loss(teacher, embeds, logit_scale, logit_bias, masked, TILE)
}
