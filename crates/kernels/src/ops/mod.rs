//! The operations of a transformer, each with a form that is fused for the CPU and one in Burn's own operations. They
//! take tensors and hold no parameters; `rows` are the tokens of all sequences, one after the other.
//!
//! - `linear`: one linear layer, or three side by side.
//! - `mlp`: linear, activation, linear.
//! - `activation`: GELU and its relatives.
//! - `gate`: the product of a gate and what it lets through.
//! - `layer_norm`: layer normalisation.
//! - `rms_norm`: the same without subtracting the mean.
//! - `attention`: softmax attention over packed sequences.
//! - `padded_attention`: the same over padded sequences, for training on devices without kernels.
//! - `embedding`: table lookup.
//! - `dropout`: reproducible dropout masks.
//! - `residual`: the sum at the end of a residual branch.
//! - `softmax`: the softmax of attention with a mask, where there is no kernel for attention as a whole.
//! - `update`: what an optimiser's step computes of each parameter.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod dropout;
pub(crate) mod embedding;
pub(crate) mod gate;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod mlp;
pub(crate) mod padded_attention;
pub(crate) mod residual;
pub(crate) mod rms_norm;
pub(crate) mod softmax;
pub(crate) mod update;
