//! Attention of one head over one sequence, on one thread.
//!
//! Scores are computed transposed, `[keys, queries]`, for as many queries at once as a tile has columns. A query is
//! then in a lane of a vector: largest scores, sums and means over its keys need no sums within a vector, and its keys
//! are added up one after the other, whatever the width of a vector.
//!
//! - `head`: what belongs to a head of a sequence.
//! - `memory`: what a task computes in.
//! - `strip`: scores of some queries become probabilities; in the backward pass, gradients of probabilities become
//!   those of scores.
//! - `tiles`: products with rows as wide as a tile.
//! - `forward`: the output.
//! - `short_backward`: the gradients of a short sequence, in the same way.
//! - `backward`: those of any sequence, by products of whole matrices.

pub(crate) mod backward;
pub(crate) mod forward;
pub(crate) mod head;
pub(crate) mod memory;
pub(crate) mod short_backward;
mod strip;
#[cfg(test)]
mod tests;
mod tiles;
