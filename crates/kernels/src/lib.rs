//! Operations that Burn's CPU backend loses time in, fused, vectorised and run on all cores, with their gradients; each
//! falls back to the same formula in Burn's own operations on every other backend.
//!
//! They join the graph through Burn's backend extension (`record.rs`): Flex values in, a Flex value out, and a function
//! from the gradient of the output to those of the inputs. Results do not depend on the number of threads: work is cut into
//! pieces whose size is fixed.
//!
//! `[rows, width]` are the tokens of all sequences, one after the other.

mod activation;
mod attention;
#[cfg(feature = "flex")]
mod buffer;
mod contrastive;
mod dropout;
mod embedding;
mod linear;
mod memory;
mod mlp;
mod norm;
#[cfg(feature = "flex")]
mod product;
#[cfg(feature = "flex")]
mod record;
#[cfg(feature = "flex")]
mod simd;

pub use activation::Activation;
pub use attention::{Sequences, attention, has_kernel};
pub use contrastive::{PairLoss, pair_loss, tiled_pair_loss};
pub use dropout::{DropoutMask, residual};
pub use embedding::embedding;
pub use linear::{linear, linear3};
pub use memory::keep_freed_memory;
pub use mlp::{LinearWeights, mlp};
pub use norm::layer_norm;

#[cfg(test)]
#[cfg(feature = "flex")]
mod tests;
