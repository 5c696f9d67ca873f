//! How far the logits of a batch are from those of a teacher: a divergence between the two distributions that each row
//! and each column of the logits stands for, without the whole `[batch, batch]` matrices.
//!
//! A tile of both matrices is computed, used and dropped, and the gradients are computed together with the loss, as in
//! `contrastive`. The teacher's tiles are computed again for the gradient, unless there is only one.
//!
//! The rows of a batch may be divided, as in `contrastive`.
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

#[cfg(feature = "flex")]
use crate::contrastive::fused::column_sums_of;
use crate::contrastive::objective::{ColumnSums, Logits, LossRows};
use crate::contrastive::tiled::tiled_column_sums_of;
use crate::distillation::teacher::{TeacherLogits, TeacherLoss};
use crate::distillation::tiled::tiled_distillation_loss;

/// Logits of each of the two matrices in memory at once, 32 MB of `f32`: together as many as in a tile of the
/// contrastive loss. A batch of up to 2896 is one tile.
const TILE: usize = 1 << 23;

/// The divergence of the logits of a batch from the teacher's, `[1]`: 0 where both say the same. The teacher is not
/// differentiated.
///
/// `masked` logits, as (row, column), sorted and off the diagonal, are left out on both sides: of the softmaxes, or of
/// the sum. `rows`: computes the part that some rows have, of which both sides have the image embeddings; the parts of
/// all rows add up to the divergence, and their gradients to its gradients.
///
/// # Panics
///
/// If an input has another shape; if softmax over some rows lacks the sums of the columns of a side.
pub fn distillation_loss(
    teacher: &TeacherLogits<'_>,
    student: Logits<'_>,
    masked: &[(usize, usize)],
    rows: Option<&LossRows>,
) -> Tensor<1> {
    let ([own, _], [batch, _]) = (student.image_embeds.dims(), student.text_embeds.dims());
    assert_eq!([teacher.image.dims()[0], teacher.text.dims()[0]], [own, batch], "rows of the teacher's embeddings");
    assert!(rows.map_or(own == batch, |rows| rows.first + own <= batch), "rows of the embeddings of a batch");
    if let (TeacherLoss::Softmax, Some(rows)) = (teacher.loss, rows) {
        let is_complete = teacher.column_log_sums.is_some() && rows.column_log_sums.is_some();
        assert!(is_complete, "softmax over some rows needs the sums of the columns over all");
    }
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(student.image_embeds)
        && let Some(loss) = fused::distillation_loss(teacher, student, masked, rows, TILE)
    {
        return loss;
    }
    tiled_distillation_loss(teacher, student, masked, rows, TILE)
}

/// The log-sum-exps over the columns of the teacher's rows from `first`, without `masked` logits: for softmax over some
/// rows.
pub fn teacher_column_sums(teacher: &TeacherLogits<'_>, masked: &[(usize, usize)], first: usize) -> ColumnSums {
    let embeds = [teacher.image, teacher.text];
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(teacher.image)
        && let Some(sums) = column_sums_of(embeds, [teacher.scale as f32, 0.0], masked, first, TILE)
    {
        return sums;
    }
    tiled_column_sums_of(embeds, teacher.scale, masked, first, TILE)
}
