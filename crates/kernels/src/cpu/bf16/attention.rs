//! One head of attention over one sequence, on one thread.

use crate::cpu::bf16::packing::{pack_transposed, pack_weight};
use crate::cpu::bf16::product::{Columns, Rows, sums_room, with_kept, with_kept_sums};
use crate::cpu::bf16::tile::{BLOCK, Sums, Tile};
use crate::cpu::bf16::unit::Ready;
use crate::cpu::gemm::Matrix;
use crate::cpu::simd::{LANES, exp, vectorised};

/// Rows from which on a sequence is worth the rows and columns that fill up blocks.
pub(crate) const FEWEST_ROWS: usize = BLOCK;

/// How scores become probabilities.
#[derive(Clone, Copy)]
pub(crate) struct Softmax {
    /// Factor of the scores.
    pub scale: f32,
    /// Whether a row attends only to itself and the rows before it.
    pub causal: bool,
}

/// `softmax(scale Q K^T) V`, written to `out`, rows `stride` values apart; other values of `out` stay as they are.
pub(crate) fn attend(
    ready: &Ready,
    [query, key, value]: [Matrix<'_>; 3],
    softmax: Softmax,
    (out, stride): (&mut [f32], usize),
) {
    let (rows, dim) = (query.num_rows(), query.num_cols());
    let copy = |[row_block, block]: [usize; 2], sums: &mut [f32]| {
        let at = block * BLOCK;
        let width = (dim - at).min(BLOCK);
        let out = out[row_block * BLOCK * stride + at..].chunks_mut(stride);
        sums.chunks_exact(BLOCK).zip(out).for_each(|(sums, out)| out[..width].copy_from_slice(&sums[..width]));
    };
    with_kept(|[query_memory, key_memory, value_memory, exponentials, ..]| {
        let queries = Rows::packed(query_memory, query);
        let keys = Columns::packed(key_memory, dim, rows, |tiles| pack_transposed(key, tiles));
        let values = Columns::packed(value_memory, rows, dim, |tiles| pack_weight(value, tiles));
        let factors = (&queries, keys, values);
        with_kept_sums(|[scores, ..]| attend_blocks(ready, factors, softmax, (scores, exponentials), copy));
    });
}

/// The same block by block: `take` gets the indices of a block's rows and columns, and its rows of 32 values. Rows of
/// `values` that fill up blocks are zeros; the columns of `keys` that do so have no effect.
///
/// Products are of `e^(score - largest score of the row)`, and their sums are divided by those of the exponentials: a
/// pass less than over probabilities, and the same size of rounding errors.
pub(crate) fn attend_blocks(
    ready: &Ready,
    (queries, keys, values): (&Rows<'_>, Columns<'_>, Columns<'_>),
    softmax: Softmax,
    (scores, memory): (&mut Vec<Sums>, &mut Vec<Tile>),
    mut take: impl FnMut([usize; 2], &mut [f32]),
) {
    let scores = sums_room(scores, keys.blocks());
    let exponentials = Rows::room(memory, BLOCK, keys.count);
    let mut sums = Sums::ZERO;
    for row_block in 0..queries.blocks() {
        for (block, scores) in scores.iter_mut().enumerate() {
            ready.sums(queries.block(row_block), keys.block(block), Some(&[0.0; BLOCK]), scores);
        }
        let (first, count) = (row_block * BLOCK, queries.rows_of(row_block));
        let mut inverse = [0.0; BLOCK];
        to_exponentials(&mut *scores, [first, count], keys.count, softmax, &mut inverse);
        for (block, scores) in scores.iter().enumerate() {
            ready.round(&scores.0[..count * BLOCK], 0, [block, exponentials.depth], exponentials.tiles);
        }
        for block in 0..values.blocks() {
            ready.sums(exponentials.block(0), values.block(block), Some(&[0.0; BLOCK]), &mut sums);
            let sums = &mut sums.0[..count * BLOCK];
            multiply_rows(&mut *sums, &inverse);
            take([row_block, block], sums);
        }
    }
}

vectorised! {
    /// Replaces the scores of `count` rows by their exponentials, 0 for keys that a row does not attend to, and writes
    /// the inverses of their sums. Each block of scores is of 32 keys; `first` is the first row's place among all.
    fn to_exponentials(
        scores: &'a mut [Sums],
        rows: [usize; 2],
        num_keys: usize,
        softmax: Softmax,
        inverse: &'a mut [f32; BLOCK],
    ) {
        let [first, count] = rows;
        for (row, inverse) in inverse.iter_mut().enumerate().take(count) {
            let num_keys = if softmax.causal { first + row + 1 } else { num_keys };
            let range = row * BLOCK..(row + 1) * BLOCK;
            for (block, scores) in scores.iter_mut().enumerate().skip(num_keys / BLOCK) {
                let keys = num_keys.saturating_sub(block * BLOCK);
                scores.0[range.clone()][keys..].fill(f32::NEG_INFINITY);
            }
            // A NaN need not be the largest: its exponential makes the sum NaN, and with it the row.
            let mut largest = [f32::NEG_INFINITY; LANES];
            for scores in scores.iter() {
                for scores in scores.0[range.clone()].chunks_exact(LANES) {
                    for (largest, score) in largest.iter_mut().zip(scores) {
                        *largest = if *score > *largest { *score } else { *largest };
                    }
                }
            }
            let top = fold(largest, |a, b| if b > a { b } else { a }) * softmax.scale;
            let mut totals = [0.0; LANES];
            for scores in scores.iter_mut() {
                for scores in scores.0[range.clone()].chunks_exact_mut(LANES) {
                    for (total, score) in totals.iter_mut().zip(scores) {
                        *score = exp(score.mul_add(softmax.scale, -top));
                        *total += *score;
                    }
                }
            }
            *inverse = fold(totals, |a, b| a + b).recip();
        }
    }
}

vectorised! {
    fn multiply_rows(rows: &'a mut [f32], factors: &'a [f32; BLOCK]) {
        for (row, factor) in rows.chunks_exact_mut(BLOCK).zip(factors) {
            row.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

/// Combines the halves of `lanes`, theirs again, and so on.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = combine(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}
