//! The kernels of an optimiser's step. Parameters are many and mostly small, so that one launch takes several of them:
//! each has whole cubes or planes, one after the other.

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

/// The new values and moments of an AdamW step, one parameter after the other, each from the start of a cube on. A unit
/// computes one value.
#[cube(launch_unchecked)]
pub fn adamw_values(
    values: &Sequence<OwnedTensor<f32>>,
    gradients: &Sequence<OwnedTensor<f32>>,
    firsts: &Sequence<OwnedTensor<f32>>,
    seconds: &Sequence<OwnedTensor<f32>>,
    new_values: &mut Tensor<f32>,
    new_firsts: &mut Tensor<f32>,
    new_seconds: &mut Tensor<f32>,
    constants: AdamWConstants,
) {
    let cube = CUBE_POS;
    let units = CUBE_DIM as usize;
    let unit = UNIT_POS as usize;
    let mut first_cube = 0usize;
    #[unroll]
    for n in 0..values.len() {
        let count = values[n].len();
        let cubes = count.div_ceil(units);
        if cube >= first_cube && cube < first_cube + cubes {
            let at = (cube - first_cube) * units + unit;
            if at < count {
                let slope = gradients[n][at] * constants.clip;
                let mean = firsts[n][at] * constants.beta1 + slope * constants.rest1;
                let square = seconds[n][at] * constants.beta2 + slope * slope * constants.rest2;
                let step = mean * constants.rate / (square.sqrt() / constants.second_root + constants.epsilon);
                let place = cube * units + unit;
                new_values[place] = values[n][at] * constants.decay_factor - step;
                new_firsts[place] = mean;
                new_seconds[place] = square;
            }
        }
        first_cube += cubes;
    }
}

/// Sums of the squares of `span` values each, of one tensor after the other. A plane computes one sum.
#[cube(launch_unchecked)]
pub fn square_sums(values: &Sequence<OwnedTensor<f32>>, sums: &mut Tensor<f32>, span: usize) {
    let part = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    let mut sum = 0.0f32;
    let mut first_part = 0usize;
    #[unroll]
    for n in 0..values.len() {
        let count = values[n].len();
        let parts = count.div_ceil(span);
        if part >= first_part && part < first_part + parts {
            let start = (part - first_part) * span;
            let end = min(start + span, count);
            let mut at = start + UNIT_POS_X as usize;
            while at < end {
                sum += values[n][at] * values[n][at];
                at += CUBE_DIM_X as usize;
            }
        }
        first_part += parts;
    }
    let sum = plane_sum(sum);
    if part < sums.len() && UNIT_POS_X == 0 {
        sums[part] = sum;
    }
}
