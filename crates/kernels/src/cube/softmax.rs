//! Softmax as one kernel.

use burn::tensor::Tensor;

use crate::cube::extension::ops;
use crate::cube::support::plane_size;

/// Whether the kernel takes rows of `width` values on the device of `x`.
pub(crate) fn takes<const D: usize>(x: &Tensor<D>, width: usize) -> bool {
    plane_size(x, width).is_some()
}

/// The softmax over the last dimension of `scores * scale`, outside of the graph.
pub(crate) fn softmax(scores: Tensor<4>, scale: f32) -> Tensor<4> {
    ops::softmax(scores, scale)
}
