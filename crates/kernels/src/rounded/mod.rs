//! Linear layers and MLPs of training on the CPU with products in bf16: the factors of their products are rounded to
//! bf16, forward and backward. Sums, biases, activations and everything that is saved stay in f32.
//!
//! - `scope`: which operations compute so.
//! - `linear`: linear layers, alone and side by side.
//! - `mlp`: two of them with an activation between.

#[cfg(feature = "flex")]
pub(crate) mod linear;
#[cfg(feature = "flex")]
pub(crate) mod mlp;
pub(crate) mod scope;
#[cfg(all(test, feature = "flex"))]
mod tests;
