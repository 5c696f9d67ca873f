//! Launches that take several parameters.

#![expect(unsafe_code, reason = "the kernels read and write within the shapes that these functions pass")]

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::CubeDim;

use crate::arguments::adamw_step::AdamWStep;
use crate::cube::bundle::Bundle;
use crate::cube::extension::{BundleLayout, ControlCall};
use crate::cube::kernels::update::{
    AdamWConstantsLaunch, adamw_values, joined_values, square_sums, step_control as step_control_kernel,
};
use crate::cube::launch::support::{VALUE_UNITS, arguments, contiguous, empty_like, grid, row_launch};

/// `inputs`: values, gradients, first and second moments.
pub fn adamw(
    inputs: [Bundle<CubeBackend>; 4],
    control: CubeTensor,
    layout: BundleLayout,
    step: AdamWStep,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [values, gradients, firsts, seconds] = inputs.map(|bundle| contiguous(bundle, layout.count));
    let [new_values, new_firsts, new_seconds] = [(); 3].map(|()| empty_like(&values[0], &[layout.total], DType::F32));
    let client = values[0].client.clone();
    let [beta1, beta2] = step.betas;
    let constants = AdamWConstantsLaunch::new(
        beta1 as f32,
        beta2 as f32,
        (1.0 - beta1) as f32,
        (1.0 - beta2) as f32,
        step.epsilon as f32,
        step.decay_factor as f32,
        step.rate as f32,
        step.second_root as f32,
    );
    // SAFETY: the kernel reads and writes within the shapes that it is passed.
    unsafe {
        adamw_values::launch_unchecked(
            &client,
            grid(layout.total / VALUE_UNITS as usize),
            CubeDim::new_1d(VALUE_UNITS),
            arguments(values),
            arguments(gradients),
            arguments(firsts),
            arguments(seconds),
            into_contiguous(control).into_tensor_arg(),
            new_values.clone().into_tensor_arg(),
            new_firsts.clone().into_tensor_arg(),
            new_seconds.clone().into_tensor_arg(),
            constants,
        );
    }
    (new_values, new_firsts, new_seconds)
}

pub fn sums_of_squares(values: Bundle<CubeBackend>, layout: BundleLayout, span: usize) -> CubeTensor {
    let values = contiguous(values, layout.count);
    let sums = empty_like(&values[0], &[layout.total], DType::F32);
    let client = values[0].client.clone();
    let (count, dim, _) = row_launch(&values[0], layout.total, span);
    // SAFETY: the kernel reads and writes within the shapes that it is passed.
    unsafe {
        square_sums::launch_unchecked(&client, count, dim, arguments(values), sums.clone().into_tensor_arg(), span);
    }
    sums
}

pub fn join_values(values: Bundle<CubeBackend>, layout: BundleLayout) -> CubeTensor {
    let values = contiguous(values, layout.count);
    let all = empty_like(&values[0], &[layout.total], DType::F32);
    let client = values[0].client.clone();
    let (count, dim) = (grid(layout.total.div_ceil(VALUE_UNITS as usize)), CubeDim::new_1d(VALUE_UNITS));
    // SAFETY: the kernel reads and writes within the shapes that it is passed.
    unsafe {
        joined_values::launch_unchecked(&client, count, dim, arguments(values), all.clone().into_tensor_arg());
    }
    all
}

pub fn step_control(numbers: CubeTensor, before: CubeTensor, call: ControlCall) -> CubeTensor {
    let [numbers, before] = [numbers, before].map(into_contiguous);
    let control = empty_like(&numbers, &[2], DType::F32);
    let client = numbers.client.clone();
    let units = VALUE_UNITS.min(client.properties().hardware.max_units_per_cube);
    // SAFETY: the kernel reads and writes within the shapes that it is passed.
    unsafe {
        step_control_kernel::launch_unchecked(
            &client,
            grid(1),
            CubeDim::new_1d(units),
            numbers.into_tensor_arg(),
            before.into_tensor_arg(),
            control.clone().into_tensor_arg(),
            call.num_checked,
            call.first_sum,
            call.limit,
            call.epsilon,
            units as usize,
        );
    }
    control
}
