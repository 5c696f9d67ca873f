//! The kernels of packed attention. A cube computes one head of one sequence, and a unit one row of that head at a
//! time; what all rows read is in shared memory.

use cubecl::prelude::*;

use crate::cube::kernels::dropout::{Mask, dropout_factor};

/// What an attention kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    /// Columns of a head.
    pub dim: usize,
    /// Rows that shared memory holds, at least those of the longest sequence.
    pub capacity: usize,
    pub causal: bool,
    pub drops: bool,
}

/// What a cube works on: one head of one sequence, or the rows after all sequences.
#[derive(CubeType)]
struct Place {
    sequence: usize,
    head: usize,
    heads: usize,
    /// Columns of all heads.
    width: usize,
    /// The first row, and how many there are.
    first: usize,
    length: usize,
    /// Where the first value is in a tensor of `3 * width` columns, and in one of `width`.
    column: usize,
    out_column: usize,
}

/// The place of this cube in a grid of `[sequences + 1, heads]`.
#[cube]
fn place(starts: &Tensor<i32>, #[comptime] dim: usize) -> Place {
    let (sequence, head, heads) = (CUBE_POS_X as usize, CUBE_POS_Y as usize, CUBE_COUNT_Y as usize);
    let width = heads * dim;
    let first = usize::cast_from(starts[sequence]);
    let length = usize::cast_from(starts[sequence + 1]) - first;
    let (column, out_column) = (first * 3 * width + head * dim, first * width + head * dim);
    Place { sequence, head, heads, width, first, length, column, out_column }
}

/// The sum of products of `row` and of `dim` values of `others` from `start` on.
#[cube]
fn dot(row: &Array<f32>, others: &Shared<[f32]>, start: usize, #[comptime] dim: usize) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for c in 0..dim {
        sum += row[c] * others[start + c];
    }
    sum
}

/// `dim` values of `values` from `start` on, times `factor`.
#[cube]
fn load_row<F: Float>(values: &Tensor<F>, start: usize, factor: f32, #[comptime] dim: usize) -> Array<f32> {
    let mut row = Array::<f32>::new(dim);
    #[unroll]
    for c in 0..dim {
        row[c] = f32::cast_from(values[start + c]) * factor;
    }
    row
}

/// Writes `row * factor` to `values` from `start` on.
#[cube]
fn store_row<F: Float>(row: &Array<f32>, values: &mut Tensor<F>, start: usize, factor: f32, #[comptime] dim: usize) {
    #[unroll]
    for c in 0..dim {
        values[start + c] = F::cast_from(row[c] * factor);
    }
}

#[cube]
fn zeros(#[comptime] dim: usize) -> Array<f32> {
    let mut row = Array::<f32>::new(dim);
    #[unroll]
    for c in 0..dim {
        row[c] = 0.0f32;
    }
    row
}

/// `sum += factor * others[start..start + dim]`.
#[cube]
fn add_scaled(sum: &mut Array<f32>, factor: f32, others: &Shared<[f32]>, start: usize, #[comptime] dim: usize) {
    #[unroll]
    for c in 0..dim {
        sum[c] += factor * others[start + c];
    }
}

/// Copies `length` rows of `dim` values, the first at `start` and the next `stride` later, times `factor`.
#[cube]
fn share_rows<F: Float>(
    values: &Tensor<F>,
    start: usize,
    stride: usize,
    length: usize,
    factor: f32,
    shared: &mut Shared<[f32]>,
    #[comptime] dim: usize,
) {
    let mut at = UNIT_POS as usize;
    while at < length * dim {
        shared[at] = f32::cast_from(values[start + at / dim * stride + at % dim]) * factor;
        at += CUBE_DIM as usize;
    }
}

/// Rows that belong to no sequence are 0.
#[cube]
fn clear_rows<F: Float>(values: &mut Tensor<F>, start: usize, stride: usize, length: usize, #[comptime] dim: usize) {
    let mut at = UNIT_POS as usize;
    while at < length * dim {
        values[start + at / dim * stride + at % dim] = F::cast_from(0.0f32);
        at += CUBE_DIM as usize;
    }
}

/// `out` `[rows, width]` and `log_sums` `[rows, heads]`, the log-sum-exp of the scores of each row, of `qkv`
/// `[rows, 3 * width]`. `starts` holds the first row of each sequence, the end of the last one, and `rows`. The grid is
/// `[sequences + 1, heads]`: the last cubes clear the rows after all sequences.
#[cube(launch_unchecked)]
pub fn attention_forward<F: Float>(
    qkv: &Tensor<F>,
    starts: &Tensor<i32>,
    out: &mut Tensor<F>,
    log_sums: &mut Tensor<f32>,
    scale: f32,
    longest: usize,
    mask: Mask,
    #[comptime] form: Form,
    #[define(F)] _dtype: ElemType,
) {
    let dim = form.dim.comptime();
    let Place { sequence, head, heads, width, first, length, column, out_column } = place(starts, dim);
    if CUBE_POS_X + 1 == CUBE_COUNT_X {
        clear_rows::<F>(out, out_column, width, length, dim);
    } else {
        let mut keys = Shared::<[f32]>::new_slice(comptime!(form.capacity * form.dim));
        let mut values = Shared::<[f32]>::new_slice(comptime!(form.capacity * form.dim));
        share_rows::<F>(qkv, column + width, 3 * width, length, 1.0f32, &mut keys, dim);
        share_rows::<F>(qkv, column + 2 * width, 3 * width, length, 1.0f32, &mut values, dim);
        sync_cube();
        let mut row = UNIT_POS as usize;
        while row < length {
            let query = load_row::<F>(qkv, column + row * 3 * width, scale, dim);
            let mut end = length;
            if comptime!(form.causal) {
                end = row + 1;
            }
            let mut top = dot(&query, &keys, 0usize, dim);
            let mut total = 1.0f32;
            for key in 1..end {
                let score = dot(&query, &keys, key * dim, dim);
                let higher = max(top, score);
                total = total * (top - higher).exp() + (score - higher).exp();
                top = higher;
            }
            let log_sum = top + total.ln();
            let position = ((sequence * heads + head) * longest + row) * longest;
            let mut sum = zeros(dim);
            for key in 0..end {
                let mut weight = (dot(&query, &keys, key * dim, dim) - log_sum).exp();
                if comptime!(form.drops) {
                    weight *= dropout_factor(&mask, u32::cast_from(position + key));
                }
                add_scaled(&mut sum, weight, &values, key * dim, dim);
            }
            store_row::<F>(&sum, out, out_column + row * width, 1.0f32, dim);
            log_sums[(first + row) * heads + head] = log_sum;
            row += CUBE_DIM as usize;
        }
    }
}

/// The gradient of `qkv` from `gradient` `[rows, width]`, that of `out`.
///
/// With P the weights, D their dropout, G the gradient, `m = sum(G out)` of a row: dS = P (D G V^T - m),
/// dQ = dS K / sqrt(dim), dK = dS^T Q / sqrt(dim), dV = (D P)^T G.
#[cube(launch_unchecked)]
pub fn attention_backward<F: Float>(
    qkv: &Tensor<F>,
    starts: &Tensor<i32>,
    out: &Tensor<F>,
    log_sums: &Tensor<f32>,
    gradient: &Tensor<F>,
    of_qkv: &mut Tensor<F>,
    scale: f32,
    longest: usize,
    mask: Mask,
    #[comptime] form: Form,
    #[define(F)] _dtype: ElemType,
) {
    let dim = form.dim.comptime();
    let Place { sequence, head, heads, width, first, length, column, out_column } = place(starts, dim);
    if CUBE_POS_X + 1 == CUBE_COUNT_X {
        clear_rows::<F>(of_qkv, column, 3 * width, length, dim);
        clear_rows::<F>(of_qkv, column + width, 3 * width, length, dim);
        clear_rows::<F>(of_qkv, column + 2 * width, 3 * width, length, dim);
    } else {
        let mut one = Shared::<[f32]>::new_slice(comptime!(form.capacity * form.dim));
        let mut other = Shared::<[f32]>::new_slice(comptime!(form.capacity * form.dim));
        let mut means = Shared::<[f32]>::new_slice(form.capacity);
        let mut sums = Shared::<[f32]>::new_slice(form.capacity);
        share_rows::<F>(qkv, column + width, 3 * width, length, 1.0f32, &mut one, dim);
        share_rows::<F>(qkv, column + 2 * width, 3 * width, length, 1.0f32, &mut other, dim);
        sync_cube();
        let matrix = (sequence * heads + head) * longest;
        // Rows as queries, over keys and values.
        let mut row = UNIT_POS as usize;
        while row < length {
            let query = load_row::<F>(qkv, column + row * 3 * width, scale, dim);
            let slope = load_row::<F>(gradient, out_column + row * width, 1.0f32, dim);
            let mut mean = 0.0f32;
            #[unroll]
            for c in 0..dim {
                mean += slope[c] * f32::cast_from(out[out_column + row * width + c]);
            }
            let log_sum = log_sums[(first + row) * heads + head];
            means[row] = mean;
            sums[row] = log_sum;
            let mut end = length;
            if comptime!(form.causal) {
                end = row + 1;
            }
            let mut of_query = zeros(dim);
            for key in 0..end {
                let weight = (dot(&query, &one, key * dim, dim) - log_sum).exp();
                let mut of_weight = dot(&slope, &other, key * dim, dim);
                if comptime!(form.drops) {
                    of_weight *= dropout_factor(&mask, u32::cast_from((matrix + row) * longest + key));
                }
                add_scaled(&mut of_query, weight * (of_weight - mean), &one, key * dim, dim);
            }
            store_row::<F>(&of_query, of_qkv, column + row * 3 * width, scale, dim);
            row += CUBE_DIM as usize;
        }
        sync_cube();
        share_rows::<F>(qkv, column, 3 * width, length, scale, &mut one, dim);
        share_rows::<F>(gradient, out_column, width, length, 1.0f32, &mut other, dim);
        sync_cube();
        // Rows as keys and values, over queries and gradients.
        let mut row = UNIT_POS as usize;
        while row < length {
            let key = load_row::<F>(qkv, column + width + row * 3 * width, 1.0f32, dim);
            let value = load_row::<F>(qkv, column + 2 * width + row * 3 * width, 1.0f32, dim);
            let mut of_key = zeros(dim);
            let mut of_value = zeros(dim);
            let mut begin = 0usize;
            if comptime!(form.causal) {
                begin = row;
            }
            for query in begin..length {
                let weight = (dot(&key, &one, query * dim, dim) - sums[query]).exp();
                let mut of_weight = dot(&value, &other, query * dim, dim);
                let mut dropped = weight;
                if comptime!(form.drops) {
                    let factor = dropout_factor(&mask, u32::cast_from((matrix + query) * longest + row));
                    of_weight *= factor;
                    dropped *= factor;
                }
                add_scaled(&mut of_value, dropped, &other, query * dim, dim);
                add_scaled(&mut of_key, weight * (of_weight - means[query]), &one, query * dim, dim);
            }
            store_row::<F>(&of_key, of_qkv, column + width + row * 3 * width, 1.0f32, dim);
            store_row::<F>(&of_value, of_qkv, column + 2 * width + row * 3 * width, 1.0f32, dim);
            row += CUBE_DIM as usize;
        }
    }
}
