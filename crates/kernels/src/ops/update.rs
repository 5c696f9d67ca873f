//! What the step of an optimiser computes: of many parameters on devices with kernels for it, of slices on the host.

use burn::tensor::{Device, Tensor};

use crate::arguments::adamw_step::AdamWStep;
use crate::arguments::device_parameter::DeviceParameter;
use crate::arguments::step_limits::StepLimits;

/// The parameters after a step with the same constants for each, in the same order. `control`: that of
/// [`step_control`]. `None` if the device has no kernel for it. New values and moments of several parameters are parts
/// of one buffer.
pub fn adamw_steps(
    parameters: &[DeviceParameter],
    control: &Tensor<1>,
    step: AdamWStep,
) -> Option<Vec<DeviceParameter>> {
    #[cfg(feature = "cube")]
    if let Some(updated) = crate::cube::update::adamw_steps(parameters, control, step) {
        return Some(updated);
    }
    let _ = (parameters, control, step);
    None
}

/// A step of AdamW over slices of a parameter, its gradient, which is multiplied by `clip` first, and both moments, on
/// this thread. The bits are the same with and without vector instructions.
pub fn adamw_on_host(values: &mut [f32], gradient: &[f32], moments: [&mut [f32]; 2], step: AdamWStep, clip: f64) {
    #[cfg(feature = "flex")]
    fused::adamw(values, gradient, moments, step, clip);
    #[cfg(not(feature = "flex"))]
    adamw_each(values, gradient, moments, step, clip);
}

#[inline(always)]
fn adamw_each(values: &mut [f32], gradient: &[f32], moments: [&mut [f32]; 2], step: AdamWStep, clip: f64) {
    let [beta1, beta2] = step.betas.map(|beta| beta as f32);
    let (rest1, rest2) = ((1.0 - step.betas[0]) as f32, (1.0 - step.betas[1]) as f32);
    let (clip, decay_factor, rate) = (clip as f32, step.decay_factor as f32, step.rate as f32);
    let (root, epsilon) = (step.second_root as f32, step.epsilon as f32);
    let [first, second] = moments;
    let parameters = values.iter_mut().zip(gradient).zip(first.iter_mut().zip(second));
    for ((value, gradient), (first, second)) in parameters {
        let gradient = gradient * clip;
        *first = beta1 * *first + rest1 * gradient;
        *second = beta2 * *second + rest2 * gradient * gradient;
        *value = *value * decay_factor - rate * *first / (second.sqrt() / root + epsilon);
    }
}

#[cfg(feature = "flex")]
mod fused {
    use super::{AdamWStep, adamw_each};
    use crate::cpu::simd::vectorised;

    vectorised! {
        pub fn adamw(
            values: &'a mut [f32],
            gradient: &'a [f32],
            moments: [&'a mut [f32]; 2],
            step: AdamWStep,
            clip: f64,
        ) {
            adamw_each(values, gradient, moments, step, clip);
        }
    }
}

/// The values of one flat tensor after the other, outside of the graph.
pub fn joined(tensors: &[Tensor<1>]) -> Tensor<1> {
    #[cfg(feature = "cube")]
    if let Some(all) = crate::cube::update::joined(tensors) {
        return all;
    }
    Tensor::cat(tensors.iter().map(|x| x.clone().without_autodiff()).collect(), 0)
}

/// How a step changes parameters, on their device: `[2]`, the factor that clips gradients by their global norm, and 1
/// where parameters change. They do unless a number of this step or of an earlier one is not finite; the pair is
/// `[0, 0]` then.
///
/// `numbers`: `[count]`, of which `limits` says what they are. `before`: the control of the step before, or
/// [`first_control`].
pub fn step_control(numbers: &Tensor<1>, before: &Tensor<1>, limits: StepLimits) -> Tensor<1> {
    let StepLimits { num_checked, first_sum, max_norm, epsilon } = limits;
    #[cfg(feature = "cube")]
    {
        use crate::cube::extension::ControlCall;
        let call = ControlCall { num_checked, first_sum, limit: max_norm as f32, epsilon: epsilon as f32 };
        if let Some(control) = crate::cube::update::step_control(numbers, before, call) {
            return control;
        }
    }
    let [count] = numbers.dims();
    let square = numbers.clone().narrow(0, first_sum, count - first_sum).sum();
    let checked = Tensor::cat(vec![numbers.clone().narrow(0, 0, num_checked), square.clone()], 0);
    let unfit = checked.is_finite().all().bool_not();
    let stays = unfit.bool_or(before.clone().narrow(0, 1, 1).equal_elem(0.0));
    let factor = match max_norm > 0.0 {
        true => ((square.sqrt() + epsilon).recip() * max_norm).clamp_max(1.0),
        false => square.ones_like(),
    };
    let ones = factor.ones_like();
    Tensor::cat(vec![factor.mask_fill(stays.clone(), 0.0), ones.mask_fill(stays, 0.0)], 0)
}

/// What [`step_control`] takes as `before` in the first step.
pub fn first_control(device: &Device) -> Tensor<1> {
    Tensor::ones([2], device)
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
