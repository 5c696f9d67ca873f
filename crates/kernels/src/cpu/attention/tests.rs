//! Outputs are those of the formula, and gradients of short sequences those by products of whole matrices, with each
//! kind of vectors.

use super::backward::backward;
use super::forward::{self, forward};
use super::head::{Head, HeadDropout, HeadRows};
use super::short_backward::{self, short_backward};
use crate::arguments::dropout_mask::DropoutMask;
use crate::cpu::gemm::Matrix;
use crate::cpu::product::tests::{numbers, with_each_width};
use crate::cpu::uninit::Scratch;
use crate::tests::assert_close;

/// Error of a value, in parts of the largest.
const TOLERANCE: f32 = 2e-6;

/// Marks values that must not be written.
const UNTOUCHED: f32 = 0.5;

/// The second of two heads, of random numbers; the rows of both are side by side.
struct Case {
    rows: usize,
    dim: usize,
    causal: bool,
    dropout: Option<HeadDropout>,
    qkv: Vec<f32>,
    gradient: Vec<f32>,
}

#[derive(Debug)]
struct Found {
    /// `[rows, dim]`.
    out: Vec<f32>,
    log_sums: Vec<f32>,
    /// Gradients by whole matrices, `[rows, 3 * dim]`.
    plain: Vec<f32>,
    /// Those of a short sequence, if it is one.
    short: Option<Vec<f32>>,
}

impl Case {
    fn new(rows: usize, dim: usize, causal: bool, dropout: Option<HeadDropout>) -> Self {
        Self { rows, dim, causal, dropout, qkv: numbers(1, rows * 6 * dim), gradient: numbers(2, rows * 2 * dim) }
    }

    fn what(&self) -> String {
        let Self { rows, dim, causal, dropout, .. } = self;
        format!("{rows} rows, {dim} columns, causal {causal}, dropout {}", dropout.is_some())
    }

    fn head(&self) -> Head<'_> {
        let Self { dim, causal, dropout, .. } = *self;
        let columns = |part: usize| Matrix::new(&self.qkv, 6 * dim).cols((2 * part + 1) * dim, dim);
        Head { qkv: [0, 1, 2].map(columns), causal, dropout }
    }

    fn computed(&self) -> Found {
        let Self { rows, dim, .. } = *self;
        let head = self.head();
        let (mut out, mut log_sums) = (vec![UNTOUCHED; rows * 2 * dim], vec![UNTOUCHED; rows * 2]);
        let of_out = HeadRows { values: &mut out[dim..], stride: 2 * dim };
        let of_log_sums = HeadRows { values: &mut log_sums[1..], stride: 2 };
        let mut memory = forward::memory(rows, dim);
        // What an earlier sequence left behind.
        memory.parts().into_iter().for_each(|part| part.fill(f32::NAN));
        forward(&head, &mut memory, of_out, of_log_sums);

        let gradient = Matrix::new(&self.gradient, 2 * dim).cols(dim, dim);
        let log_sums_from = (&log_sums[1..], 2);
        let [mut plain, mut short] = [(); 2].map(|()| vec![UNTOUCHED; rows * 6 * dim]);
        let rows_of = |values| HeadRows { values, stride: 6 * dim };
        let mut scratch = [(); 2].map(|()| Scratch::new(rows * rows));
        backward(&head, gradient, log_sums_from, &mut scratch, rows_of(&mut plain[dim..]));
        let mut memory = short_backward::memory(dim);
        memory.parts().into_iter().for_each(|part| part.fill(f32::NAN));
        let is_short = short_backward(&head, gradient, log_sums_from, &mut memory, rows_of(&mut short[dim..]));
        if !is_short {
            assert!(short.iter().all(|value| *value == UNTOUCHED), "{}", self.what());
        }
        Found {
            out: self.second_heads(1, &out),
            log_sums: log_sums.chunks(2).map(|pair| pair[1]).collect(),
            plain: self.second_heads(3, &plain),
            short: is_short.then(|| self.second_heads(3, &short)),
        }
    }

    /// The columns of the second head; asserts that nothing was written to those of the first.
    fn second_heads(&self, parts: usize, values: &[f32]) -> Vec<f32> {
        let mut second = Vec::new();
        for row in values.chunks(2 * self.dim * parts) {
            for pair in row.chunks(2 * self.dim) {
                let (first, of_second) = pair.split_at(self.dim);
                assert!(first.iter().all(|value| *value == UNTOUCHED), "{}", self.what());
                second.extend_from_slice(of_second);
            }
        }
        second
    }

    /// Output and log-sum-exps by the formula, in `f64`.
    fn expected(&self) -> [Vec<f32>; 2] {
        let head = self.head();
        let [query, key, value] = head.qkv;
        let (mut out, mut log_sums) = (Vec::new(), Vec::new());
        for row in 0..self.rows {
            let dot = |key: &[f32]| query.row(row).iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            let keys = if self.causal { row + 1 } else { self.rows };
            let scores: Vec<f64> =
                (0..keys).map(|at| dot(key.row(at))).map(|s: f64| s / (self.dim as f64).sqrt()).collect();
            let log_sum = scores.iter().map(|score| score.exp()).sum::<f64>().ln();
            let factor = |at: usize| self.dropout.map_or(1.0, |dropout| dropout.starting_at_row(row).factor(at));
            let weights = scores.iter().enumerate().map(|(at, score)| (score - log_sum).exp() * f64::from(factor(at)));
            let weights: Vec<f64> = weights.collect();
            let column = |n: usize| (0..keys).map(|at| weights[at] * f64::from(value.row(at)[n])).sum::<f64>() as f32;
            out.extend((0..self.dim).map(column));
            log_sums.push(log_sum as f32);
        }
        [out, log_sums]
    }
}

#[test]
fn outputs_are_those_of_the_formula_and_gradients_those_by_whole_matrices() {
    let mask = HeadDropout { mask: DropoutMask::new(5, 0.3), start: (1 << 32) - 40, distance: 75 };
    with_each_width(|| {
        let all = (1..=33).map(|rows| (rows, 32));
        let others = [1, 5, 16, 17, 32, 33, 75].into_iter().flat_map(|rows| [1, 12, 33, 40, 64].map(|dim| (rows, dim)));
        for (rows, dim) in all.chain(others) {
            for (causal, dropout) in [(false, None), (true, None), (false, Some(mask)), (true, Some(mask))] {
                let case = Case::new(rows, dim, causal, dropout);
                let (what, found, [out, log_sums]) = (case.what(), case.computed(), case.expected());
                assert_close(&what, TOLERANCE, &found.out, &out);
                assert_close(&what, TOLERANCE, &found.log_sums, &log_sums);
                match found.short {
                    Some(short) => assert_close(&what, TOLERANCE, &short, &found.plain),
                    None => assert!(rows > 32 || !dim.is_multiple_of(32), "{what}"),
                }
            }
        }
    });
}

/// NaN shows in all rows that it belongs to, earlier causal rows are clear of a key's, and gradients are finite,
/// infinite and NaN at the same places in both ways.
#[test]
fn values_that_are_not_finite_show() {
    with_each_width(|| {
        for (rows, at, causal) in [(5, 3, false), (5, 3, true), (20, 17, true), (32, 0, true), (40, 20, true)] {
            for (part, bad) in [0, 1, 2].into_iter().flat_map(|part| [f32::NAN, f32::INFINITY].map(|bad| (part, bad))) {
                let mut case = Case::new(rows, 32, causal, None);
                case.qkv[at * 6 * 32 + (2 * part + 1) * 32 + 3] = bad;
                let (what, found) = (format!("{}, {bad} in part {part}", case.what()), case.computed());
                let is_met = |row: usize| if part == 0 { row == at } else { !causal || row >= at };
                for row in (0..rows).filter(|row| is_met(*row)) {
                    let out = &found.out[row * 32..][..32];
                    if part == 2 {
                        assert!(!out[3].is_finite(), "{what}: row {row}");
                        continue;
                    }
                    // Infinite keys or queries give scores of plus or minus infinity: a probability of 0 is right then.
                    if bad.is_nan() {
                        assert!(out.iter().all(|value| value.is_nan()), "{what}: row {row}");
                        assert!(found.log_sums[row].is_nan(), "{what}: row {row}");
                    }
                }
                // The probability 0 of a hidden value times NaN is NaN, so a value is not in this list.
                for row in (0..rows).filter(|row| part < 2 && !is_met(*row)) {
                    let out = &found.out[row * 32..][..32];
                    assert!(out.iter().all(|value| value.is_finite()), "{what}: row {row}");
                    assert!(found.log_sums[row].is_finite(), "{what}: row {row}");
                }
                if let Some(short) = found.short {
                    let kind = |value: &f32| [value.is_nan(), value.is_infinite()];
                    let kinds = |values: &[f32]| values.iter().map(kind).collect::<Vec<_>>();
                    assert_eq!(kinds(&short), kinds(&found.plain), "{what}");
                }
            }
        }
    });
}
