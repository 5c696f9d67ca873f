//! What the step of an optimiser computes of many parameters, on devices with kernels for it.

use burn::tensor::Tensor;

use crate::arguments::adamw_step::AdamWStep;
use crate::arguments::device_parameter::DeviceParameter;

/// The parameters after a step with the same constants for each, in the same order. `None` if the device has no kernel
/// for it. New values and moments of several parameters are parts of one buffer.
pub fn adamw_steps(parameters: &[DeviceParameter], step: AdamWStep) -> Option<Vec<DeviceParameter>> {
    #[cfg(feature = "cube")]
    if let Some(updated) = crate::cube::update::adamw_steps(parameters, step) {
        return Some(updated);
    }
    let _ = (parameters, step);
    None
}

/// Sums of squares of each of the tensors, in parts that are to be added up. Each result holds the parts of some
/// tensors one after the other, and how many each of these has; all together are in the order of `tensors`. `None` if
/// the device has no kernel for it.
pub fn sums_of_squares(tensors: &[Tensor<1>]) -> Option<Vec<(Tensor<1>, Vec<usize>)>> {
    #[cfg(feature = "cube")]
    if let Some(sums) = crate::cube::update::sums_of_squares(tensors) {
        return Some(sums);
    }
    let _ = tensors;
    None
}
