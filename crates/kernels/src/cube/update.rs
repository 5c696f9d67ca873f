//! What an optimiser's step needs, as one kernel for several parameters.

use burn::tensor::{DType, Tensor};

use crate::arguments::adamw_step::AdamWStep;
use crate::arguments::device_parameter::DeviceParameter;
use crate::cube::bundle::MOST;
use crate::cube::extension::{BundleLayout, ControlCall, ops};
use crate::cube::launch::support::VALUE_UNITS;
use crate::cube::support::{has_addresses, plane_size, properties};

/// Values of which a plane adds up the squares.
const SPAN: usize = 4096;

/// Buffers that each parameter of a step adds to a kernel: value, gradient and both moments.
const BUFFERS: usize = 4;

/// Buffers that all parameters of a kernel share: three that it writes, and the control of the step.
const SHARED: usize = 4;

/// [`adamw_steps`](crate::adamw_steps); `None` unless the kernel takes all of them.
pub(crate) fn adamw_steps(
    parameters: &[DeviceParameter],
    control: &Tensor<1>,
    step: AdamWStep,
) -> Option<Vec<DeviceParameter>> {
    let room = properties(&parameters.first()?.value)?.hardware.max_bindings as usize;
    let size = (room.saturating_sub(SHARED) / BUFFERS).min(MOST);
    let fits = |parameter: &DeviceParameter| {
        let DeviceParameter { value, gradient, moments: [first, second] } = parameter;
        let count = value.dims()[0];
        let is_like = |x: &&Tensor<1>| x.dtype() == DType::F32 && x.dims() == [count];
        [value, gradient, first, second].iter().all(is_like) && has_addresses(count)
    };
    (size > 0 && parameters.iter().all(fits)).then(|| {
        let of = |group: &[DeviceParameter]| adamw_of_group(group, control.clone(), step);
        groups(parameters, size, |parameter| padded(parameter.value.dims()[0])).flat_map(of).collect()
    })
}

/// The step of parameters that one kernel takes.
fn adamw_of_group(group: &[DeviceParameter], control: Tensor<1>, step: AdamWStep) -> Vec<DeviceParameter> {
    let counts: Vec<usize> = group.iter().map(|parameter| parameter.value.dims()[0]).collect();
    let layout = BundleLayout { count: group.len(), total: counts.iter().copied().map(padded).sum() };
    let each = |of: fn(&DeviceParameter) -> &Tensor<1>| -> Vec<Tensor<1>> {
        group.iter().map(|parameter| of(parameter).clone().without_autodiff()).collect()
    };
    let inputs = [each(|it| &it.value), each(|it| &it.gradient), each(|it| &it.moments[0]), each(|it| &it.moments[1])];
    let results = ops::adamw(inputs.each_ref().map(Vec::as_slice), control, layout, step);
    let mut start = 0;
    let parted = counts.iter().zip(group).map(|(&count, parameter)| {
        let [value, first, second] = results.each_ref().map(|all| all.clone().narrow(0, start, count));
        start += padded(count);
        DeviceParameter { value, gradient: parameter.gradient.clone(), moments: [first, second] }
    });
    parted.collect()
}

/// Number of values that a tensor takes up among others: whole cubes, since devices can bind a buffer at the start of
/// a cube.
fn padded(count: usize) -> usize {
    count.next_multiple_of(VALUE_UNITS as usize)
}

/// [`sums_of_squares`](crate::sums_of_squares); `None` unless the kernel takes them.
pub(crate) fn sums_of_squares(tensors: &[Tensor<1>]) -> Option<Vec<(Tensor<1>, Vec<usize>)>> {
    let first = tensors.first()?;
    plane_size(first, 1)?;
    let size = (properties(first)?.hardware.max_bindings as usize).saturating_sub(1).min(MOST);
    let fits = |x: &Tensor<1>| x.dtype() == DType::F32 && x.dims()[0] > 0 && has_addresses(x.dims()[0]);
    (size > 0 && tensors.iter().all(fits)).then(|| {
        let of = |group: &[Tensor<1>]| {
            let parts: Vec<usize> = group.iter().map(|x| x.dims()[0].div_ceil(SPAN)).collect();
            let layout = BundleLayout { count: group.len(), total: parts.iter().sum() };
            let values: Vec<_> = group.iter().map(|x| x.clone().without_autodiff()).collect();
            (ops::square_sums(&values, layout, SPAN), parts)
        };
        groups(tensors, size, |x| x.dims()[0]).map(of).collect()
    })
}

/// [`joined`](crate::joined); `None` unless one kernel takes all tensors.
pub(crate) fn joined(tensors: &[Tensor<1>]) -> Option<Tensor<1>> {
    let room = properties(tensors.first()?)?.hardware.max_bindings as usize;
    let total: usize = tensors.iter().map(|x| x.dims()[0]).sum();
    let fits = tensors.iter().all(|x| x.dtype() == DType::F32) && has_addresses(total);
    (fits && tensors.len() <= room.saturating_sub(1).min(MOST)).then(|| {
        let values: Vec<_> = tensors.iter().map(|x| x.clone().without_autodiff()).collect();
        ops::join_values(&values, BundleLayout { count: tensors.len(), total })
    })
}

/// [`step_control`](crate::step_control); `None` if the device has no kernel for it.
pub(crate) fn step_control(numbers: &Tensor<1>, before: &Tensor<1>, call: ControlCall) -> Option<Tensor<1>> {
    properties(numbers)?;
    let is_single = numbers.dtype() == DType::F32 && before.dtype() == DType::F32;
    is_single.then(|| ops::step_control(numbers.clone(), before.clone(), call))
}

/// Consecutive items in groups of at most `size`, with as many values as kernels can address.
fn groups<'a, T>(items: &'a [T], size: usize, values: impl Fn(&T) -> usize + 'a) -> impl Iterator<Item = &'a [T]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut total = 0;
        let fits = |item: &&T| {
            total += values(item);
            has_addresses(total)
        };
        let count = rest.iter().take(size).take_while(fits).count();
        let (group, others) = rest.split_at_checked(count.max(1))?;
        rest = others;
        Some(group)
    })
}

#[cfg(test)]
mod tests {
    use super::groups;

    #[test]
    fn groups_are_as_large_as_addresses_allow() {
        let sizes = |items: &[usize]| groups(items, 3, |&count| count).map(<[usize]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(&[1; 7]), [3, 3, 1]);
        let half = 1 << 31;
        assert_eq!(sizes(&[half, half, 1, 1, half]), [1, 3, 1]);
        assert_eq!(sizes(&[]), [0; 0]);
    }
}
