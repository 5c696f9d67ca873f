//! The kernels of layer norm and softmax. A plane computes one row at a time, and each of its units every n-th value.

use cubecl::prelude::*;

/// The row of this plane, which may be beyond the last.
#[cube]
fn plane_row() -> usize {
    CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize
}

/// `out` = normalised `x` `[rows, width]` times `weight` plus `bias` `[width]`, and `statistics` `[rows, 2]`: the mean
/// and the reciprocal of the standard deviation of each row.
#[cube(launch_unchecked)]
pub fn norm_forward<F: Float>(
    x: &Tensor<F>,
    weight: &Tensor<f32>,
    bias: &Tensor<f32>,
    out: &mut Tensor<F>,
    statistics: &mut Tensor<f32>,
    width: usize,
    epsilon: f32,
    #[comptime] per_unit: usize,
    #[comptime] biased: bool,
    #[define(F)] _dtype: ElemType,
) {
    let row = plane_row();
    if row * width < x.len() {
        let unit = UNIT_POS_X as usize;
        let step = CUBE_DIM_X as usize;
        let mut values = Array::<f32>::new(per_unit);
        let mut sum = 0.0f32;
        #[unroll]
        for n in 0..per_unit {
            let column = n * step + unit;
            values[n] = 0.0f32;
            if column < width {
                values[n] = f32::cast_from(x[row * width + column]);
            }
            sum += values[n];
        }
        let count = f32::cast_from(width);
        let mean = plane_sum(sum) / count;
        let mut squares = 0.0f32;
        #[unroll]
        for n in 0..per_unit {
            if n * step + unit < width {
                let centred = values[n] - mean;
                squares += centred * centred;
            }
        }
        let inverse = 1.0f32 / (plane_sum(squares) / count + epsilon).sqrt();
        #[unroll]
        for n in 0..per_unit {
            let column = n * step + unit;
            if column < width {
                let mut value = (values[n] - mean) * inverse * weight[column];
                if comptime!(biased) {
                    value += bias[column];
                }
                out[row * width + column] = F::cast_from(value);
            }
        }
        if unit == 0 {
            statistics[row * 2] = mean;
            statistics[row * 2 + 1] = inverse;
        }
    }
}

/// The gradient of `x` from `gradient`, that of the output, and with `adds` the parameters' as `sums`
/// `[slices, 2 * width]`: over the `height` rows of a slice, the sums of gradient times normalised `x`, and of the
/// gradient. A plane computes the rows of a slice, one after the other, so that both read `x` and `gradient` once.
#[cube(launch_unchecked)]
pub fn norm_backward<F: Float>(
    x: &Tensor<F>,
    weight: &Tensor<f32>,
    statistics: &Tensor<f32>,
    gradient: &Tensor<F>,
    of_x: &mut Tensor<F>,
    sums: &mut Tensor<f32>,
    width: usize,
    rows: usize,
    height: usize,
    #[comptime] per_unit: usize,
    #[comptime] adds: bool,
    #[define(F)] _dtype: ElemType,
) {
    let slice = plane_row();
    if slice * height < rows {
        let unit = UNIT_POS_X as usize;
        let step = CUBE_DIM_X as usize;
        let mut factors = Array::<f32>::new(per_unit);
        let mut of_weight = Array::<f32>::new(per_unit);
        let mut of_bias = Array::<f32>::new(per_unit);
        let mut normal = Array::<f32>::new(per_unit);
        let mut slopes = Array::<f32>::new(per_unit);
        #[unroll]
        for n in 0..per_unit {
            let column = n * step + unit;
            factors[n] = 0.0f32;
            if column < width {
                factors[n] = weight[column];
            }
            of_weight[n] = 0.0f32;
            of_bias[n] = 0.0f32;
        }
        let count = f32::cast_from(width);
        let end = min((slice + 1) * height, rows);
        for row in slice * height..end {
            let mean = statistics[row * 2];
            let inverse = statistics[row * 2 + 1];
            let mut sum = 0.0f32;
            let mut products = 0.0f32;
            #[unroll]
            for n in 0..per_unit {
                let column = n * step + unit;
                normal[n] = 0.0f32;
                slopes[n] = 0.0f32;
                if column < width {
                    let slope = f32::cast_from(gradient[row * width + column]);
                    normal[n] = (f32::cast_from(x[row * width + column]) - mean) * inverse;
                    slopes[n] = slope * factors[n];
                    if comptime!(adds) {
                        of_weight[n] += slope * normal[n];
                        of_bias[n] += slope;
                    }
                }
                sum += slopes[n];
                products += slopes[n] * normal[n];
            }
            let sum = plane_sum(sum) / count;
            let products = plane_sum(products) / count;
            #[unroll]
            for n in 0..per_unit {
                let column = n * step + unit;
                if column < width {
                    of_x[row * width + column] = F::cast_from((slopes[n] - sum - normal[n] * products) * inverse);
                }
            }
        }
        if comptime!(adds) {
            #[unroll]
            for n in 0..per_unit {
                let column = n * step + unit;
                if column < width {
                    sums[slice * 2 * width + column] = of_weight[n];
                    sums[(slice * 2 + 1) * width + column] = of_bias[n];
                }
            }
        }
    }
}

/// `out` = softmax of `scores` `[rows, width]` times `scale` over the first `count` of each row, and 0 after them.
#[cube(launch_unchecked)]
pub fn softmax_rows<F: Float>(
    scores: &Tensor<F>,
    out: &mut Tensor<F>,
    width: usize,
    count: usize,
    scale: f32,
    #[comptime] per_unit: usize,
    #[define(F)] _dtype: ElemType,
) {
    let row = plane_row();
    if row * width < scores.len() {
        let unit = UNIT_POS_X as usize;
        let step = CUBE_DIM_X as usize;
        let mut values = Array::<f32>::new(per_unit);
        let mut top = f32::cast_from(scores[row * width]) * scale;
        #[unroll]
        for n in 0..per_unit {
            let column = n * step + unit;
            values[n] = 0.0f32;
            if column < count {
                values[n] = f32::cast_from(scores[row * width + column]) * scale;
                top = max(top, values[n]);
            }
        }
        let top = plane_max(top);
        let mut sum = 0.0f32;
        #[unroll]
        for n in 0..per_unit {
            if n * step + unit < count {
                values[n] = (values[n] - top).exp();
                sum += values[n];
            }
        }
        let inverse = 1.0f32 / plane_sum(sum);
        #[unroll]
        for n in 0..per_unit {
            let column = n * step + unit;
            if column < width {
                out[row * width + column] = F::cast_from(values[n] * inverse);
            }
        }
    }
}
