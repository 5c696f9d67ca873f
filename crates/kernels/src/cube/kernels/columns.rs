//! Three matrices side by side in one, and back. A unit moves one value.

use cubecl::prelude::*;

/// `out` `[rows, 3 * width]` = `first`, `second` and `third` `[rows, width]` side by side.
#[cube(launch_unchecked)]
pub fn join_values<F: Float>(
    first: &Tensor<F>,
    second: &Tensor<F>,
    third: &Tensor<F>,
    out: &mut Tensor<F>,
    width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < out.len() {
        let row = at / (3 * width);
        let column = at % (3 * width);
        let place = row * width + column % width;
        let part = column / width;
        if part == 0 {
            out[at] = first[place];
        } else if part == 1 {
            out[at] = second[place];
        } else {
            out[at] = third[place];
        }
    }
}

/// `first`, `second` and `third` `[rows, width]` = the columns of `x` `[rows, 3 * width]`.
#[cube(launch_unchecked)]
pub fn part_values<F: Float>(
    x: &Tensor<F>,
    first: &mut Tensor<F>,
    second: &mut Tensor<F>,
    third: &mut Tensor<F>,
    width: usize,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < x.len() {
        let row = at / (3 * width);
        let column = at % (3 * width);
        let place = row * width + column % width;
        let part = column / width;
        if part == 0 {
            first[place] = x[at];
        } else if part == 1 {
            second[place] = x[at];
        } else {
            third[place] = x[at];
        }
    }
}
