//! Operations of locked towers on the CPU, with weights that are rounded to bf16 and packed once: products of factors
//! in bf16 with sums in f32, by instructions that some processors have for them. They have no gradients.
//!
//! - `attention`: softmax attention over packed sequences.
//! - `block`: a whole block, sequence by sequence, and `block_rows`: the same on one thread.
//! - `layers`: linear layers, alone, side by side, and with an activation between.

pub(crate) mod attention;
pub(crate) mod block;
#[cfg(feature = "flex")]
mod block_rows;
pub(crate) mod layers;
