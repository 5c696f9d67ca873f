//! Layer norm as one kernel, with one for its gradients.

use burn::tensor::{DType, Tensor};

use crate::cube::extension::ops;
use crate::cube::support::{has_addresses, plane_size};
use crate::portable::graph::with_gradients;

/// Slices of the rows, at most: eight planes for each of the 100 to 150 multiprocessors of a large GPU.
const MOST_SLICES: usize = 1024;

/// Rows of a slice, at least: so that sums over slices are a fraction of what is read to compute them.
const LEAST_ROWS: usize = 4;

/// [`layer_norm`](crate::layer_norm); `None` unless the kernels take it.
pub(crate) fn layer_norm(
    x: &Tensor<2>,
    weight: &Tensor<1>,
    bias: Option<&Tensor<1>>,
    epsilon: f64,
) -> Option<Tensor<2>> {
    let [rows, width] = x.dims();
    plane_size(x, width).filter(|_| has_addresses(rows * width))?;
    let values = x.clone().without_autodiff();
    let [factors, shift] = [Some(weight), bias].map(|it| it.map(|it| it.clone().without_autodiff().cast(DType::F32)));
    let factors = factors?;
    let [out, statistics] = ops::norm(values.clone(), factors.clone(), shift, epsilon as f32);
    if !x.is_autodiff() && !weight.is_autodiff() && !bias.is_some_and(Tensor::is_autodiff) {
        return Some(out);
    }
    // No slice is empty: each writes its sums.
    let height = rows.div_ceil(MOST_SLICES).max(LEAST_ROWS);
    let (biased, dtype) = (bias.is_some(), weight.dtype());
    // A weight stands in for an absent bias, since the number of inputs is part of the type.
    let last = bias.unwrap_or(weight).clone().into_dispatch();
    let inputs = [x.clone().into_dispatch(), weight.clone().into_dispatch(), last];
    with_gradients(inputs, out, move |gradient: Tensor<2>, needed| {
        let adds = needed[1] || biased && needed[2];
        let slices = rows.div_ceil(if adds { height } else { 1 }).max(1);
        let saved = [values.clone(), statistics.clone()];
        let [of_x, sums] = ops::norm_backward(saved, factors.clone(), gradient, slices, adds);
        let of_x = needed[0].then(|| of_x.into_dispatch());
        let sums = adds.then(|| sums.sum_dim(0).reshape([2 * width]).cast(dtype));
        let part = |wanted: bool, start| {
            sums.as_ref().filter(|_| wanted).map(|sums| sums.clone().narrow(0, start, width).into_dispatch())
        };
        [of_x, part(needed[1], 0), part(biased && needed[2], width)]
    })
}
