//! Launches for matrices side by side, and for sums over slices.

#![expect(unsafe_code, reason = "the kernels read and write within the shapes that these functions pass")]

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::CubeDim;

use crate::cube::kernels::columns::{join_values, part_values};
use crate::cube::kernels::row_sums::sum_two_slices;
use crate::cube::launch::support::{VALUE_UNITS, elem, empty_like, grid};

pub fn join_columns(first: CubeTensor, second: CubeTensor, third: CubeTensor) -> CubeTensor {
    let [first, second, third] = [first, second, third].map(into_contiguous);
    let [rows, width] = first.meta.shape().dims::<2>();
    let out = empty_like(&first, &[rows, 3 * width], first.dtype);
    let (client, dtype) = (first.client.clone(), elem(&first));
    // SAFETY: the kernel reads and writes within the shapes that it is passed.
    unsafe {
        join_values::launch_unchecked(
            &client,
            grid((3 * rows * width).div_ceil(VALUE_UNITS as usize)),
            CubeDim::new_1d(VALUE_UNITS),
            first.into_tensor_arg(),
            second.into_tensor_arg(),
            third.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            width,
            dtype,
        );
    }
    out
}

pub fn part_columns(x: CubeTensor) -> (CubeTensor, CubeTensor, CubeTensor) {
    let x = into_contiguous(x);
    let [rows, triple] = x.meta.shape().dims::<2>();
    let width = triple / 3;
    let [first, second, third] = [(); 3].map(|()| empty_like(&x, &[rows, width], x.dtype));
    let (client, dtype) = (x.client.clone(), elem(&x));
    // SAFETY: the kernel reads and writes within the shapes that it is passed.
    unsafe {
        part_values::launch_unchecked(
            &client,
            grid((rows * triple).div_ceil(VALUE_UNITS as usize)),
            CubeDim::new_1d(VALUE_UNITS),
            x.into_tensor_arg(),
            first.clone().into_tensor_arg(),
            second.clone().into_tensor_arg(),
            third.clone().into_tensor_arg(),
            width,
            dtype,
        );
    }
    (first, second, third)
}

pub fn sum_slices(first: CubeTensor, second: CubeTensor) -> (CubeTensor, CubeTensor) {
    let [first, second] = [first, second].map(into_contiguous);
    let [of_first, of_second] = [&first, &second].map(|slices| slices.meta.shape().dims::<2>());
    let [out_first, out_second] = [of_first, of_second].map(|[_, width]| empty_like(&first, &[width], first.dtype));
    let (client, dtype) = (first.client.clone(), elem(&first));
    let cubes = |[_, width]: [usize; 2]| width.div_ceil(VALUE_UNITS as usize);
    // SAFETY: the kernel reads and writes within the shapes that it is passed.
    unsafe {
        sum_two_slices::launch_unchecked(
            &client,
            grid(cubes(of_first) + cubes(of_second)),
            CubeDim::new_1d(VALUE_UNITS),
            first.into_tensor_arg(),
            second.into_tensor_arg(),
            out_first.clone().into_tensor_arg(),
            out_second.clone().into_tensor_arg(),
            of_first[0],
            of_second[0],
            dtype,
        );
    }
    (out_first, out_second)
}
