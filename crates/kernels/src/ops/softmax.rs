//! Softmax over keys, with a mask.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Tensor};

use crate::ops::attention::has_kernel;
use crate::portable::graph::with_gradient;

/// The softmax over the last dimension of `scores` `[batch, heads, queries, keys]`; 0 where `mask`, of the same shape,
/// is true. A query that is masked everywhere attends to all keys alike.
pub fn masked_softmax(scores: Tensor<4>, mask: Option<Tensor<4, Bool>>) -> Tensor<4> {
    let forward = |scores: Tensor<4>| match &mask {
        // Not minus infinity: where all keys are masked, softmax would return NaN.
        Some(mask) => softmax(scores.mask_fill(mask.clone(), f32::MIN), 3),
        None => softmax(scores, 3),
    };
    // Flex has the gradient that Burn derives: its runs go on with the same bits.
    if has_kernel(&scores) {
        return forward(scores);
    }
    let weights = forward(scores.clone().without_autodiff());
    let known = weights.clone();
    // A masked score has the weight 0, and with it the gradient 0.
    with_gradient(scores, |_| weights.clone(), move |gradient| softmax_gradient(&known, gradient))
}

/// The gradient of the scores from the softmax's `weights` and their gradient.
pub(crate) fn softmax_gradient(weights: &Tensor<4>, gradient: Tensor<4>) -> Tensor<4> {
    let products = gradient * weights.clone();
    products.clone() - weights.clone() * products.sum_dim(3)
}
