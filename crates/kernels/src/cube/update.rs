//! What an optimiser's step needs, as one kernel for each parameter.

use burn::tensor::{DType, Tensor};

use crate::arguments::adamw_step::AdamWStep;
use crate::cube::extension::ops;
use crate::cube::support::{has_addresses, plane_size, properties};

/// Values of which a plane adds up the squares.
const SPAN: usize = 4096;

/// [`adamw_step`](crate::adamw_step); `None` unless the kernel takes it.
pub(crate) fn adamw_step(
    value: &Tensor<1>,
    gradient: &Tensor<1>,
    moments: [&Tensor<1>; 2],
    step: AdamWStep,
) -> Option<[Tensor<1>; 3]> {
    properties(value)?;
    let [first, second] = moments;
    let inputs = [value, gradient, first, second];
    let is_like = |x: &&Tensor<1>| x.dtype() == DType::F32 && x.dims() == value.dims();
    let fits = inputs.iter().all(is_like) && has_addresses(value.dims()[0]);
    fits.then(|| ops::adamw(inputs.map(|input| input.clone().without_autodiff()), step))
}

/// [`sums_of_squares`](crate::sums_of_squares); `None` unless the kernel takes it.
pub(crate) fn sums_of_squares(x: &Tensor<1>) -> Option<Tensor<1>> {
    let [count] = x.dims();
    plane_size(x, 1)?;
    let fits = x.dtype() == DType::F32 && count > 0 && has_addresses(count);
    fits.then(|| ops::square_sums(x.clone().without_autodiff(), count.div_ceil(SPAN), SPAN))
}
