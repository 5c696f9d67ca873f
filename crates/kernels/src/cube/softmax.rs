//! Softmax as one kernel.

use burn::tensor::Tensor;

use crate::cube::extension::ops;
use crate::cube::support::{has_addresses, plane_size};

/// Whether the kernel takes the scores of `query` `[batch, heads, queries, dim]` and `keys` keys.
pub(crate) fn takes(query: &Tensor<4>, keys: usize) -> bool {
    let [batch, heads, queries, _] = query.dims();
    has_addresses(batch * heads * queries * keys) && plane_size(query, keys).is_some()
}

/// The softmax over the last dimension of `scores * scale`, outside of the graph.
pub(crate) fn softmax(scores: Tensor<4>, scale: f32) -> Tensor<4> {
    let [.., keys] = scores.dims();
    ops::softmax(scores, keys, scale)
}
