//! What the step of an optimiser computes of each parameter, on devices with one kernel for it.

use burn::tensor::Tensor;

use crate::arguments::adamw_step::AdamWStep;

/// The new value and the new first and second moment, all flat. `None` if the device has no kernel for it.
pub fn adamw_step(
    value: &Tensor<1>,
    gradient: &Tensor<1>,
    moments: [&Tensor<1>; 2],
    step: AdamWStep,
) -> Option<[Tensor<1>; 3]> {
    #[cfg(feature = "cube")]
    if let Some(results) = crate::cube::update::adamw_step(value, gradient, moments, step) {
        return Some(results);
    }
    let _ = (value, gradient, moments, step);
    None
}

/// Sums of squares of the values of `x`, one for each part. `None` if the device has no kernel for it.
pub fn sums_of_squares(x: &Tensor<1>) -> Option<Tensor<1>> {
    #[cfg(feature = "cube")]
    if let Some(sums) = crate::cube::update::sums_of_squares(x) {
        return Some(sums);
    }
    let _ = x;
    None
}
