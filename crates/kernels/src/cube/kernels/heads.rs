//! Rows of heads side by side to heads one after the other, and back. A unit moves one value.

use cubecl::prelude::*;

/// `query`, `key` and `value` `[batch, heads, seq, dim]` of `qkv` `[batch * seq, 3 * heads * dim]`.
#[cube(launch_unchecked)]
pub fn split_values<F: Float>(
    qkv: &Tensor<F>,
    query: &mut Tensor<F>,
    key: &mut Tensor<F>,
    value: &mut Tensor<F>,
    heads: usize,
    seq: usize,
    dim: usize,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < qkv.len() {
        let width = heads * dim;
        let row = at / (3 * width);
        let column = at % (3 * width);
        let head = column % width / dim;
        let place = ((row / seq * heads + head) * seq + row % seq) * dim + column % dim;
        let part = column / width;
        if part == 0 {
            query[place] = qkv[at];
        } else if part == 1 {
            key[place] = qkv[at];
        } else {
            value[place] = qkv[at];
        }
    }
}

/// `out` `[batch * seq, heads * dim]` of `x` `[batch, heads, seq, dim]`.
#[cube(launch_unchecked)]
pub fn merge_values<F: Float>(
    x: &Tensor<F>,
    out: &mut Tensor<F>,
    heads: usize,
    seq: usize,
    dim: usize,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < out.len() {
        let width = heads * dim;
        let row = at / width;
        let column = at % width;
        out[at] = x[((row / seq * heads + column / dim) * seq + row % seq) * dim + column % dim];
    }
}
