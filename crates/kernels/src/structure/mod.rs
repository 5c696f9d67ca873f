//! How far embeddings keep the neighbourhoods of other vectors of the same batch: the regulariser of STRUCTURE
//! (arXiv:2506.16895), at its first level.
//!
//! The matrices of similarities, `[batch, batch]`, are computed in tiles of whole rows, and the gradients together with
//! the loss: a row of probabilities depends on no other row, so that one pass is enough, and the rows of a batch may be
//! divided.
//!
//! - `fused`: over slices, for the CPU.
//! - `tiled`: in Burn's own operations, for every other device.

#[cfg(feature = "flex")]
pub(crate) mod fused;
#[cfg(test)]
#[cfg(feature = "flex")]
mod tests;
pub(crate) mod tiled;

use std::ops::Range;

use burn::tensor::Tensor;

use crate::structure::tiled::tiled_structure_loss;

/// Similarities in memory at once of each of the two matrices, 32 MB of `f32`: together as much as a tile of the
/// contrastive loss. A batch of up to 2896 is one tile.
const TILE: usize = 1 << 23;

/// The part that `rows` have in the divergence between the neighbourhoods of two sets of vectors, `[1]`; only that of
/// `embeds` is differentiated. The parts of all rows add up to the divergence, and their gradients to its gradient.
///
/// `reference` `[batch, width]` and `embeds` `[batch, dim]` are centred: unit vectors, minus the mean of all. With P
/// the softmax over the rows of X X^T / `temperature` and M the mean of both P, it is the mean over the rows of
/// (KL(M || P of `reference`) + KL(M || P of `embeds`)) / 2. The Jensen-Shannon divergence has KL(P || M) instead.
///
/// # Panics
///
/// If the inputs differ in their number of rows, or have fewer than `rows` says.
pub fn structure_loss(reference: &Tensor<2>, embeds: &Tensor<2>, temperature: f64, rows: Range<usize>) -> Tensor<1> {
    let [batch, _] = embeds.dims();
    assert_eq!(reference.dims()[0], batch, "rows of two sets of vectors");
    assert!(rows.start <= rows.end && rows.end <= batch, "rows {rows:?} of {batch} vectors");
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(embeds)
        && let Some(loss) = fused::structure_loss(reference, embeds, temperature, rows.clone(), TILE)
    {
        return loss;
    }
    tiled_structure_loss(reference, embeds, temperature, rows, TILE)
}
