//! One head of attention over one sequence, on one thread.

use std::f32::consts::{LN_2, LOG2_E};

use crate::cpu::bf16::packing::{pack_transposed, pack_weight};
use crate::cpu::bf16::product::{Columns, Rows, sums_room, with_kept, with_kept_sums};
use crate::cpu::bf16::tile::{BLOCK, LeftBlock, Sums, Tile};
use crate::cpu::bf16::unit::Ready;
use crate::cpu::gemm::Matrix;
use crate::cpu::simd::vectorised;

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
            let exponentials = LeftBlock { count, ..exponentials.block(0) };
            ready.sums(exponentials, values.block(block), Some(&[0.0; BLOCK]), &mut sums);
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
        let scale = softmax.scale * LOG2_E;
        for (row, inverse) in inverse.iter_mut().enumerate().take(count) {
            let num_keys = if softmax.causal { first + row + 1 } else { num_keys };
            for (block, scores) in scores.iter_mut().enumerate().skip(num_keys / BLOCK) {
                let keys = num_keys.saturating_sub(block * BLOCK);
                scores.0.as_chunks_mut::<BLOCK>().0[row][keys..].fill(f32::NEG_INFINITY);
            }
            // A NaN need not be the largest: its exponential makes the sum NaN, and with it the row.
            let greater = |a: f32, b: f32| if b > a { b } else { a };
            let mut largest = [f32::NEG_INFINITY; BLOCK];
            for scores in scores.iter() {
                let scores = &scores.0.as_chunks::<BLOCK>().0[row];
                largest.iter_mut().zip(scores).for_each(|(largest, score)| *largest = greater(*largest, *score));
            }
            let top = fold(largest, greater);
            let mut totals = [0.0; BLOCK];
            for scores in scores.iter_mut() {
                let scores = &mut scores.0.as_chunks_mut::<BLOCK>().0[row];
                for (total, score) in totals.iter_mut().zip(scores) {
                    // Not scaled before: rounded, the largest could then be far above 0.
                    *score = power_of_two((*score - top) * scale);
                    *total += *score;
                }
            }
            *inverse = fold(totals, |a, b| a + b).recip();
        }
    }
}

/// `2^x` for x up to 0, within 6e-5 of the value, which is little beside a rounding to bf16; 0 below -127. NaN stays
/// NaN.
///
/// With x = n + r and |r| <= 1 / 2, 2^r is its Taylor series up to the fourth power.
#[inline(always)]
fn power_of_two(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it rounds to the nearest integer, which is then in the lowest bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 to the power of k, divided by k!, from k = 4 down.
    const SERIES: [f32; 5] = [0.009_618_129, 0.055_504_11, 0.240_226_5, LN_2, 1.0];
    // Not `max`, of which a NaN would become -127.
    let x = if x < -127.0 { -127.0 } else { x };
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    let power = SERIES.into_iter().reduce(|sum, next| sum.mul_add(r, next)).unwrap_or(1.0);
    // 2^n, built from the bits of its exponent: those of 0 at -127.
    power * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
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
fn fold(mut lanes: [f32; BLOCK], combine: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [16, 8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = combine(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_within_6e_5() {
        for n in 0..=126_000 {
            let x = -(n as f32) / 1e3;
            let (found, expected) = (f64::from(power_of_two(x)), f64::from(x).exp2());
            assert!((found / expected - 1.0).abs() < 6e-5, "2^{x} = {found}, expected {expected}");
        }
        assert_eq!([0.0, -1.0, -2.0].map(power_of_two), [1.0, 0.5, 0.25]);
        assert_eq!([-127.0, -128.0, -1e9, f32::MIN, f32::NEG_INFINITY].map(power_of_two), [0.0; 5]);
        // A NaN is one with each payload.
        for bits in [0x7fc0_0000, 0x7fc0_0001, 0x7f80_0001, 0xffff_ffff] {
            assert!(power_of_two(f32::from_bits(bits)).is_nan(), "{bits:x}");
        }
    }

    /// Scores of any size: the largest has the exponential 1.
    #[test]
    fn large_scores_have_finite_exponentials() {
        for size in [1.0, 1e4, 1e10, 1e30] {
            let mut scores = [Sums::ZERO];
            scores[0].0[..BLOCK].fill(-size);
            scores[0].0[3] = size * 1.234_567;
            let mut inverse = [0.0; BLOCK];
            to_exponentials(&mut scores, [0, 1], BLOCK, Softmax { scale: 7.3, causal: false }, &mut inverse);
            assert_eq!(scores[0].0[3], 1.0, "{size}");
            let others = f64::from(size) * -2.234_567 * 7.3;
            let expected = 1.0 / (1.0 + 31.0 * others.exp());
            assert!((f64::from(inverse[0]) - expected).abs() < 1e-6, "{size}: {}", inverse[0]);
        }
    }
}
