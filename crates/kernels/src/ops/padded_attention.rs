//! Softmax attention over padded sequences in Burn's own operations, as one node of the graph: for training on devices
//! without a kernel for [`attention`](crate::attention).

use burn::tensor::{Bool, DType, Tensor};

use crate::arguments::dropout_mask::DropoutMask;
use crate::ops::attention::has_kernel;
use crate::ops::softmax::{masked_softmax, softmax_gradient};
use crate::portable::graph::with_gradients;
use crate::portable::products::product;

/// `dropout(softmax(q k^T / sqrt(dim))) v`, `[batch, heads, queries, dim]`; `key` and `value` are
/// `[batch, heads, keys, dim]`. `mask` is `[batch, heads, queries, keys]`, true where a query does not attend to a key.
///
/// `None` if Burn's derived gradient is to be taken: where the device has kernels, so that its runs go on with the same
/// bits, and with gradient checkpointing.
pub fn padded_attention(
    [query, key, value]: [&Tensor<4>; 3],
    mask: Option<&Tensor<4, Bool>>,
    dropout: Option<DropoutMask>,
) -> Option<Tensor<4>> {
    if has_kernel(query) {
        return None;
    }
    let inputs = [query, key, value].map(|input| input.clone().into_dispatch());
    let [query, key, value] = [query, key, value].map(|input| input.clone().without_autodiff());
    let scale = (query.dims()[3] as f64).powf(-0.5);
    let query = query * scale;
    let scores = product(query.clone(), key.clone(), [false, true]);
    let precision = scores.dtype();
    // In f32, because half precision is too coarse to sum many exponentials.
    let weights = masked_softmax(scores.cast(DType::F32), mask.cloned());
    let drop = move |x: Tensor<4>| match dropout {
        Some(mask) => mask.plain(x),
        None => x,
    };
    let output = product(drop(weights.clone().cast(precision)), value.clone(), [false; 2]);
    // With P the weights, D their dropout, G the gradient of the output:
    // dV = (D P)^T G; dP = D (G V^T); dS = P (dP - rowsum(P dP)); dQ = dS K / sqrt(dim); dK = dS^T Q / sqrt(dim).
    with_gradients(inputs, output, move |gradient: Tensor<4>, needed| {
        let of_value = || product(drop(weights.clone().cast(precision)), gradient.clone(), [true, false]);
        let of_scores = (needed[0] || needed[1]).then(|| {
            let of_weights = drop(product(gradient.clone(), value.clone(), [false, true]));
            softmax_gradient(&weights, of_weights.cast(DType::F32)).cast(precision)
        });
        let of_query = |slopes: &Tensor<4>| (product(slopes.clone(), key.clone(), [false; 2]) * scale).into_dispatch();
        let of_key = |slopes: &Tensor<4>| product(slopes.clone(), query.clone(), [true, false]).into_dispatch();
        [
            of_scores.as_ref().filter(|_| needed[0]).map(of_query),
            of_scores.as_ref().filter(|_| needed[1]).map(of_key),
            needed[2].then(|| of_value().into_dispatch()),
        ]
    })
}

/// `softmax(q k^T / sqrt(dim)) v` outside of the graph, shapes as in [`padded_attention`]. `None` if Burn's own
/// attention is to be taken: it has no kernel for the softmax between two products.
pub fn untracked_attention(query: &Tensor<4>, key: &Tensor<4>, value: &Tensor<4>) -> Option<Tensor<4>> {
    #[cfg(feature = "cube")]
    if crate::cube::softmax::takes(query, key.dims()[2]) {
        let scores = product(query.clone(), key.clone(), [false, true]);
        let scale = (query.dims()[3] as f32).sqrt().recip();
        return Some(product(crate::cube::softmax::softmax(scores, scale), value.clone(), [false; 2]));
    }
    let _ = (query, key, value);
    None
}
