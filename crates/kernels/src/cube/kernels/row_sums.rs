//! The kernels of the gradient of a table: sums of the rows with equal index, in two steps, so that a frequent index
//! does not keep one cube busy with all of its rows. A unit computes one column.

use cubecl::prelude::*;

/// `partial[n]` = the sum of the rows `order[starts[n]..starts[n + 1]]` of `x` `[rows, width]`.
#[cube(launch_unchecked)]
pub fn sum_listed_rows<F: Float>(
    x: &Tensor<F>,
    order: &Tensor<i32>,
    starts: &Tensor<i32>,
    partial: &mut Tensor<f32>,
    width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let column = (CUBE_POS_Y * CUBE_DIM_X + UNIT_POS_X) as usize;
    if column < width {
        let chunk = CUBE_POS_X as usize;
        let end = usize::cast_from(starts[chunk + 1]);
        let mut sum = 0.0f32;
        for at in usize::cast_from(starts[chunk])..end {
            sum += f32::cast_from(x[usize::cast_from(order[at]) * width + column]);
        }
        partial[chunk * width + column] = sum;
    }
}

/// `out[n]` = the sum of the rows `starts[n]..starts[n + 1]` of `partial` `[chunks, width]`.
#[cube(launch_unchecked)]
pub fn sum_adjacent_rows<F: Float>(
    partial: &Tensor<f32>,
    starts: &Tensor<i32>,
    out: &mut Tensor<F>,
    width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let column = (CUBE_POS_Y * CUBE_DIM_X + UNIT_POS_X) as usize;
    if column < width {
        let row = CUBE_POS_X as usize;
        let end = usize::cast_from(starts[row + 1]);
        let mut sum = 0.0f32;
        for at in usize::cast_from(starts[row])..end {
            sum += partial[at * width + column];
        }
        out[row * width + column] = F::cast_from(sum);
    }
}

/// `out_first` = the sums of the columns of `first` `[first_height, width]`, and the same of `second`: one after the
/// other, each from the start of a cube on. A unit adds up one column.
#[cube(launch_unchecked)]
pub fn sum_two_slices<F: Float>(
    first: &Tensor<F>,
    second: &Tensor<F>,
    out_first: &mut Tensor<F>,
    out_second: &mut Tensor<F>,
    first_height: usize,
    second_height: usize,
    #[define(F)] _dtype: ElemType,
) {
    let units = CUBE_DIM as usize;
    let first_cubes = out_first.len().div_ceil(units);
    let cube = CUBE_POS;
    if cube < first_cubes {
        let column = cube * units + UNIT_POS as usize;
        if column < out_first.len() {
            out_first[column] = F::cast_from(column_sum::<F>(first, column, out_first.len(), first_height));
        }
    } else {
        let column = (cube - first_cubes) * units + UNIT_POS as usize;
        if column < out_second.len() {
            out_second[column] = F::cast_from(column_sum::<F>(second, column, out_second.len(), second_height));
        }
    }
}

#[cube]
fn column_sum<F: Float>(x: &Tensor<F>, column: usize, width: usize, height: usize) -> f32 {
    let mut sum = 0.0f32;
    for row in 0..height {
        sum += f32::cast_from(x[row * width + column]);
    }
    sum
}
