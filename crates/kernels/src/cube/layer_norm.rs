//! Layer norm as one kernel, with two for its gradients.

use burn::tensor::{DType, Tensor};

use crate::cube::extension::ops;
use crate::cube::support::{has_addresses, plane_size};
use crate::portable::graph::with_gradients;

/// Units that keep a GPU busy: 1,024 for each of the 100 to 150 multiprocessors of a large one.
const UNITS: usize = 1 << 17;

/// Rows that a unit adds up, at least.
const LEAST_ROWS: usize = 16;

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
    let slices = (UNITS / width).min(rows / LEAST_ROWS).max(1);
    let (biased, dtype) = (bias.is_some(), weight.dtype());
    // A weight stands in for an absent bias, since the number of inputs is part of the type.
    let last = bias.unwrap_or(weight).clone().into_dispatch();
    let inputs = [x.clone().into_dispatch(), weight.clone().into_dispatch(), last];
    with_gradients(inputs, out, move |gradient: Tensor<2>, needed| {
        let of_x = needed[0].then(|| {
            ops::norm_backward(values.clone(), factors.clone(), statistics.clone(), gradient.clone()).into_dispatch()
        });
        let sums = (needed[1] || biased && needed[2]).then(|| {
            let sums = ops::norm_param_sums(values.clone(), statistics.clone(), gradient.clone(), slices);
            sums.sum_dim(0).reshape([2 * width]).cast(dtype)
        });
        let part = |wanted: bool, start| {
            sums.as_ref().filter(|_| wanted).map(|sums| sums.clone().narrow(0, start, width).into_dispatch())
        };
        [of_x, part(needed[1], 0), part(biased && needed[2], width)]
    })
}
