//! Rows of heads side by side to heads one after the other, and back. A unit moves one value.

use cubecl::prelude::*;

/// `query`, `key` and `value` `[batch, heads, padded, dim]` of `qkv` `[batch * seq, 3 * heads * dim]`. Rows after the
/// first `seq` of a head are 0.
#[cube(launch_unchecked)]
pub fn split_values<F: Float>(
    qkv: &Tensor<F>,
    query: &mut Tensor<F>,
    key: &mut Tensor<F>,
    value: &mut Tensor<F>,
    heads: usize,
    seq: usize,
    padded: usize,
    dim: usize,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < 3 * query.len() {
        let width = heads * dim;
        // The rows of all sequences, padding among them.
        let row = at / (3 * width);
        let column = at % (3 * width);
        let head = column % width / dim;
        let batch = row / padded;
        let row = row % padded;
        let place = ((batch * heads + head) * padded + row) * dim + column % dim;
        let mut taken = F::cast_from(0.0f32);
        if row < seq {
            taken = qkv[(batch * seq + row) * 3 * width + column];
        }
        let part = column / width;
        if part == 0 {
            query[place] = taken;
        } else if part == 1 {
            key[place] = taken;
        } else {
            value[place] = taken;
        }
    }
}

/// `out` `[batch * seq, heads * dim]` of `x` `[batch, heads, padded, dim]`.
#[cube(launch_unchecked)]
pub fn merge_values<F: Float>(
    x: &Tensor<F>,
    out: &mut Tensor<F>,
    heads: usize,
    seq: usize,
    padded: usize,
    dim: usize,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < out.len() {
        let width = heads * dim;
        let row = at / width;
        let column = at % width;
        out[at] = x[((row / seq * heads + column / dim) * padded + row % seq) * dim + column % dim];
    }
}
