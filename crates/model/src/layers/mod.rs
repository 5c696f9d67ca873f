//! The layers that every tower is built from. They work on rows, `[rows, width]`: packed captions have no batch
//! dimension.
//!
//! They know nothing of towers or families. Convolutions, which only image towers have, are in `vision/conv_layers.rs`.
//!
//! - `adapter`: the low-rank adapter of a linear layer (LoRA).
//! - `dropout`: seeded dropout.
//! - `layer_norm`: layer normalisation.
//! - `linear`: the linear layer.
//! - `norm`: the norms of transformer blocks.

pub(crate) mod adapter;
pub(crate) mod dropout;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod norm;
