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
    pub decay_factor: f32,
    pub rate: f32,
    pub second_root: f32,
}

/// The new values and moments of an AdamW step, one parameter after the other, each from the start of a cube on. A unit
/// computes one value. `control`: the factor of gradients, and whether anything changes, as of [`step_control`].
#[cube(launch_unchecked)]
pub fn adamw_values(
    values: &Sequence<OwnedTensor<f32>>,
    gradients: &Sequence<OwnedTensor<f32>>,
    firsts: &Sequence<OwnedTensor<f32>>,
    seconds: &Sequence<OwnedTensor<f32>>,
    control: &Tensor<f32>,
    new_values: &mut Tensor<f32>,
    new_firsts: &mut Tensor<f32>,
    new_seconds: &mut Tensor<f32>,
    constants: AdamWConstants,
) {
    let cube = CUBE_POS;
    let units = CUBE_DIM as usize;
    let unit = UNIT_POS as usize;
    let clip = control[0];
    let changes = control[1] > 0.5f32;
    let mut first_cube = 0usize;
    #[unroll]
    for n in 0..values.len() {
        let count = values[n].len();
        let cubes = count.div_ceil(units);
        if cube >= first_cube && cube < first_cube + cubes {
            let at = (cube - first_cube) * units + unit;
            if at < count {
                let slope = gradients[n][at] * clip;
                let mean = firsts[n][at] * constants.beta1 + slope * constants.rest1;
                let square = seconds[n][at] * constants.beta2 + slope * slope * constants.rest2;
                let step = mean * constants.rate / (square.sqrt() / constants.second_root + constants.epsilon);
                let place = cube * units + unit;
                new_values[place] = select(changes, values[n][at] * constants.decay_factor - step, values[n][at]);
                new_firsts[place] = select(changes, mean, firsts[n][at]);
                new_seconds[place] = select(changes, square, seconds[n][at]);
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

/// The values of one tensor after the other. A unit copies one value.
#[cube(launch_unchecked)]
pub fn joined_values(parts: &Sequence<OwnedTensor<f32>>, all: &mut Tensor<f32>) {
    let place = CUBE_POS * CUBE_DIM as usize + UNIT_POS as usize;
    let mut start = 0usize;
    #[unroll]
    for n in 0..parts.len() {
        let count = parts[n].len();
        if place >= start && place < start + count {
            all[place] = parts[n][place - start];
        }
        start += count;
    }
}

/// How a step changes parameters: `[factor of gradients, 1 or 0]`, where 0 says that nothing changes. One cube.
///
/// `numbers`: some that have to be finite, then others, and from `first_sum` on the sums that the squared norm of all
/// gradients consists of. `before`: the control of the step before; after a step that changed nothing, none does.
/// `limit`: of the norm; 0: none.
#[cube(launch_unchecked)]
pub fn step_control(
    numbers: &Tensor<f32>,
    before: &Tensor<f32>,
    control: &mut Tensor<f32>,
    num_checked: usize,
    first_sum: usize,
    limit: f32,
    epsilon: f32,
    #[comptime] units: usize,
) {
    let unit = UNIT_POS as usize;
    let mut sums = Shared::<[f32]>::new_slice(units);
    let mut sum = 0.0f32;
    let mut at = first_sum + unit;
    while at < numbers.len() {
        sum += numbers[at];
        at += units;
    }
    sums[unit] = sum;
    sync_cube();
    if unit == 0 {
        let mut square = 0.0f32;
        for n in 0..units {
            square += sums[n];
        }
        let mut changes = before[1] > 0.5f32 && is_finite(square);
        for n in 0..num_checked {
            changes = changes && is_finite(numbers[n]);
        }
        let norm = square.sqrt() + epsilon;
        let factor = select(limit > 0.0f32 && norm > limit, limit / norm, 1.0f32);
        control[0] = select(changes, factor, 0.0f32);
        control[1] = select(changes, 1.0f32, 0.0f32);
    }
}

/// By the exponent's bits: compilers may take floats to be finite.
#[cube]
fn is_finite(value: f32) -> bool {
    (u32::reinterpret(value) & 0x7f80_0000u32) != 0x7f80_0000u32
}
