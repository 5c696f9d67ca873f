//! What an optimiser's step computes of each parameter, on devices whose backend would take several kernels for it.

use burn::tensor::Tensor;

/// The constants of a step of AdamW (Loshchilov and Hutter, arXiv:1711.05101, alg. 2) for one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Weights of the old first and second moment.
    pub betas: [f64; 2],
    /// Added to the square root of the second moment.
    pub epsilon: f64,
    /// Factor of the gradient.
    pub clip: f64,
    /// Factor of the old value.
    pub decay_factor: f64,
    /// Learning rate over the first moment's bias correction.
    pub rate: f64,
    /// Square root of the second moment's bias correction.
    pub second_root: f64,
}

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

/// Sums of squares of the values of `x`, over parts of it. `None` if the device has no kernel for it.
pub fn sums_of_squares(x: &Tensor<1>) -> Option<Tensor<1>> {
    #[cfg(feature = "cube")]
    if let Some(sums) = crate::cube::update::sums_of_squares(x) {
        return Some(sums);
    }
    let _ = x;
    None
}
