//! The kernels of an optimiser's step: flat arrays, each value by itself.

use cubecl::prelude::*;

/// The constants of [`adamw_values`], as [`AdamWStep`](crate::AdamWStep) has them.
#[derive(CubeType, CubeLaunch)]
pub struct AdamWConstants {
    pub beta1: f32,
    pub beta2: f32,
    pub rest1: f32,
    pub rest2: f32,
    pub epsilon: f32,
    pub clip: f32,
    pub decay_factor: f32,
    pub rate: f32,
    pub second_root: f32,
}

/// The new values and moments of an AdamW step. A unit computes one value.
#[cube(launch_unchecked)]
pub fn adamw_values(
    value: &Tensor<f32>,
    gradient: &Tensor<f32>,
    first: &Tensor<f32>,
    second: &Tensor<f32>,
    new_value: &mut Tensor<f32>,
    new_first: &mut Tensor<f32>,
    new_second: &mut Tensor<f32>,
    constants: AdamWConstants,
) {
    let at = ABSOLUTE_POS;
    if at < new_value.len() {
        let slope = gradient[at] * constants.clip;
        let mean = first[at] * constants.beta1 + slope * constants.rest1;
        let square = second[at] * constants.beta2 + slope * slope * constants.rest2;
        let step = mean * constants.rate / (square.sqrt() / constants.second_root + constants.epsilon);
        new_value[at] = value[at] * constants.decay_factor - step;
        new_first[at] = mean;
        new_second[at] = square;
    }
}

/// `sums[n]` = the sum of the squares of `span` values, from `n * span` on. A plane computes one sum.
#[cube(launch_unchecked)]
pub fn square_sums(values: &Tensor<f32>, sums: &mut Tensor<f32>, span: usize) {
    let part = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    if part < sums.len() {
        let end = min((part + 1) * span, values.len());
        let mut at = part * span + UNIT_POS_X as usize;
        let mut sum = 0.0f32;
        while at < end {
            sum += values[at] * values[at];
            at += CUBE_DIM_X as usize;
        }
        let sum = plane_sum(sum);
        if UNIT_POS_X == 0 {
            sums[part] = sum;
        }
    }
}
