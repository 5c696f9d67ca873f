//! Contrastive losses without the whole `[batch, batch]` matrix of logits: a tile of image rows is computed, used and
//! dropped, and the gradients are computed together with the loss. Memory is O(batch * dim) plus one tile. How targets
//! follow from the data (duplicates, label smoothing) is decided by the caller.
//!
//! The rows of a batch may also be divided. Softmax then needs the log-sum-exps of the columns over all rows first.
//!
//! - `objective`: which loss, which pairs match, and which rows.
//! - `fused`: both losses over slices, for the CPU.
//! - `blocks`: the logits of `fused` in memory, and the gradients of the embeddings.
//! - `log_sums`: log-sum-exps of blocks.
//! - `tiled`: both losses in Burn's own operations, for every other device.

#[cfg(feature = "flex")]
pub(crate) mod blocks;
#[cfg(feature = "flex")]
pub(crate) mod fused;
#[cfg(feature = "flex")]
pub(crate) mod log_sums;
pub(crate) mod objective;
pub(crate) mod tiled;

use burn::tensor::Tensor;

use crate::contrastive::objective::{ColumnSums, Logits, LossRows, PairLoss};
use crate::contrastive::tiled::{tiled_column_sums, tiled_pair_loss};

/// Logits in memory at once, 64 MB of `f32`. A batch of up to 4096 is one tile, which then serves the gradient too.
const TILE_LOGITS: usize = 1 << 24;

/// The contrastive loss, `[1]`, of a batch of image-text pairs.
///
/// # Panics
///
/// If an input has another shape than [`Logits`] says.
pub fn pair_loss(logits: Logits<'_>, loss: &PairLoss) -> Tensor<1> {
    loss_of(logits, loss, None)
}

/// The part of [`pair_loss`] that some rows of the logits have, `[1]`: the parts of all rows add up to the loss, and
/// their gradients to its gradients. `logits` have the image embeddings of these rows and all text embeddings.
///
/// # Panics
///
/// As [`pair_loss`]; if the rows reach beyond the end of the batch; if softmax lacks the sums of the columns.
pub fn pair_loss_of_rows(logits: Logits<'_>, loss: &PairLoss, rows: &LossRows) -> Tensor<1> {
    let is_complete = matches!(loss, PairLoss::Sigmoid { .. }) || rows.column_log_sums.is_some();
    assert!(is_complete, "softmax over some rows needs the sums of the columns over all");
    loss_of(logits, loss, Some(rows))
}

/// The log-sum-exps over the columns of rows from `first`: `logits` have the image embeddings of these rows and all
/// text embeddings. `masked`: (row, column) of logits that are left out, sorted.
///
/// # Panics
///
/// As [`pair_loss`].
pub fn column_sums(logits: Logits<'_>, masked: &[(usize, usize)], first: usize) -> ColumnSums {
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(logits.image_embeds)
        && let Some(sums) = fused::column_sums(logits, masked, first, TILE_LOGITS)
    {
        return sums;
    }
    tiled_column_sums(logits, masked, first, TILE_LOGITS)
}

fn loss_of(logits: Logits<'_>, loss: &PairLoss, rows: Option<&LossRows>) -> Tensor<1> {
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(logits.image_embeds)
        && let Some(loss) = fused::pair_loss(logits, loss, rows, TILE_LOGITS)
    {
        return loss;
    }
    tiled_pair_loss(logits, loss, rows, TILE_LOGITS)
}
