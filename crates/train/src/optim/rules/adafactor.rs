//! Adafactor (Shazeer and Stern, arXiv:1804.04235) in the variant that big_vision uses for large vision transformers
//! (`big_vision/optax.py: scale_by_adafactor`; Zhai et al., arXiv:2106.04560, sec. 3.4). The second moment of a matrix
//! is factored into rows and columns, momentum is taken of the scaled gradient, and learning rates are absolute.
//!
//! As in big_vision, updates are not clipped by their root mean square (sec. 6 of the first paper). Momentum is f32
//! here, bfloat16 there.

use burn::tensor::Tensor;
use dualenc_kernels::CHUNK;
use rayon::prelude::*;

use crate::optim::rules::update_rule::{Update, UpdateRule};

/// Matrices are factored if both sides have at least this length (`min_dim_size_to_factor`).
const MIN_FACTORED_SIDE: usize = 32;

/// The second moment's beta at the n-th update is 1 - n^-0.8 (`decay_rate`; sec. 7.2 of the paper).
const DECAY_EXPONENT: f64 = 0.8;

/// Upper limit of that beta (`beta2_cap`; Zhai et al., sec. 3.4).
const MAX_BETA: f64 = 0.999;

/// Added to squared gradients (`eps`; table 4 of the paper).
const EPSILON: f64 = 1e-30;

/// Partial sums per row, which the compiler keeps in one vector register.
const LANES: usize = 16;

/// Adafactor.
#[derive(Debug)]
pub(crate) struct Adafactor {
    /// Weight of the old momentum, from 0 to 1.
    pub momentum: f64,
}

/// `[rows, columns]` of a parameter whose second moment is factored; `None` if it is not.
fn factored_dims(shape: &[usize]) -> Option<[usize; 2]> {
    match *shape {
        [rows, columns] if rows.min(columns) >= MIN_FACTORED_SIDE => Some([rows, columns]),
        _ => None,
    }
}

/// The second moment's beta at the update `count`, and 1 minus beta.
fn betas(count: i32) -> [f64; 2] {
    let beta = (1.0 - f64::from(count).powf(-DECAY_EXPONENT)).min(MAX_BETA);
    [beta, 1.0 - beta]
}

impl UpdateRule for Adafactor {
    fn state(&self, shape: &[usize]) -> Vec<(&'static str, usize)> {
        let count = shape.iter().product();
        match factored_dims(shape) {
            Some([rows, columns]) => vec![("first", count), ("row", rows), ("column", columns)],
            None => vec![("first", count), ("second", count)],
        }
    }

    fn on_host(&self, update: Update<'_>, values: &mut [f32], gradient: &mut [f32], state: &mut [Vec<f32>]) {
        let [beta, rest] = betas(update.count).map(|beta| beta as f32);
        let clip = update.clip as f32;
        let first = match state {
            [first, row, column] => {
                scale_factored(gradient, clip, [beta, rest], row, column);
                first
            }
            [first, second] => {
                scale_unfactored(gradient, clip, [beta, rest], second);
                first
            }
            _ => return,
        };
        let gain = 1.0 - self.momentum;
        let [decay_factor, rate, momentum, gain] =
            [update.decay_factor, update.rate, self.momentum, gain].map(|number| number as f32);
        let chunks = values.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).zip(first.par_chunks_mut(CHUNK));
        chunks.for_each(|((values, scaled), first)| {
            for ((value, scaled), first) in values.iter_mut().zip(scaled).zip(first) {
                *first = momentum * *first + gain * scaled;
                *value = *value * decay_factor - rate * *first;
            }
        });
    }

    fn on_device(
        &self,
        update: Update<'_>,
        value: Tensor<1>,
        gradient: Tensor<1>,
        state: &mut [Tensor<1>],
    ) -> Tensor<1> {
        let [beta, rest] = betas(update.count);
        let gradient = gradient * update.clip;
        let squares = gradient.clone().square() + EPSILON;
        let blend = |moment: &Tensor<1>, mean: Tensor<1>| moment.clone() * beta + mean * rest;
        let (scaled, first) = match (state, factored_dims(update.shape)) {
            ([first, row, column], Some([rows, columns])) => {
                let squares = squares.reshape([rows, columns]);
                *row = blend(row, squares.clone().mean_dim(1).reshape([rows]));
                *column = blend(column, squares.mean_dim(0).reshape([columns]));
                let by_row = (row.clone() / row.clone().mean()).sqrt().recip().reshape([rows, 1]);
                let by_column = column.clone().sqrt().recip().reshape([1, columns]);
                let scaled = gradient.reshape([rows, columns]) * by_row * by_column;
                (scaled.reshape([rows * columns]), first)
            }
            ([first, second], _) => {
                *second = blend(second, squares);
                (gradient / second.clone().sqrt(), first)
            }
            _ => return value,
        };
        *first = first.clone() * self.momentum + scaled * (1.0 - self.momentum);
        value * update.decay_factor - first.clone() * update.rate
    }
}

/// Updates the second moment and divides the clipped gradient by its square root, in place.
fn scale_unfactored(gradient: &mut [f32], clip: f32, [beta, rest]: [f32; 2], second: &mut [f32]) {
    let chunks = gradient.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
    chunks.for_each(|(gradient, second)| {
        for (gradient, second) in gradient.iter_mut().zip(second) {
            *gradient *= clip;
            *second = beta * *second + rest * (*gradient * *gradient + EPSILON as f32);
            *gradient /= second.sqrt();
        }
    });
}

/// The same with the second moment of a matrix factored into `row` and `column`.
fn scale_factored(gradient: &mut [f32], clip: f32, [beta, rest]: [f32; 2], row: &mut [f32], column: &mut [f32]) {
    let (rows, columns) = (row.len(), column.len());
    // Block sizes, and so the sums over blocks, do not depend on the number of threads.
    let rows_per_task = (CHUNK / columns).max(1);
    let blocks = gradient.par_chunks_mut(rows_per_task * columns).zip(row.par_chunks_mut(rows_per_task));
    let sums: Vec<Vec<f32>> = blocks
        .map(|(gradient, row)| {
            let mut sums = vec![0.0; columns];
            for (gradient, row) in gradient.chunks_exact_mut(columns).zip(row) {
                for (gradient, sum) in gradient.iter_mut().zip(&mut sums) {
                    *gradient *= clip;
                    *sum += *gradient * *gradient + EPSILON as f32;
                }
                let mean = lane_sum(gradient, |value| value * value + EPSILON as f32) / columns as f32;
                *row = beta * *row + rest * mean;
            }
            sums
        })
        .collect();
    for (at, column) in column.iter_mut().enumerate() {
        let sum: f64 = sums.iter().map(|sums| f64::from(sums[at])).sum();
        *column = beta * *column + rest * (sum / rows as f64) as f32;
    }
    let mean = (total(row) / rows as f64) as f32;
    let by_column: Vec<f32> = column.iter().map(|column| column.sqrt().recip()).collect();
    let blocks = gradient.par_chunks_mut(rows_per_task * columns).zip(row.par_chunks(rows_per_task));
    blocks.for_each(|(gradient, row)| {
        for (gradient, row) in gradient.chunks_exact_mut(columns).zip(row) {
            let by_row = (row / mean).sqrt().recip();
            gradient.iter_mut().zip(&by_column).for_each(|(gradient, by_column)| *gradient *= by_row * by_column);
        }
    });
}

/// Sum of `term` over `values`, in [`LANES`] partial sums.
fn lane_sum(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|&value| term(value)).sum();
    chunks.for_each(|chunk| lanes.iter_mut().zip(chunk).for_each(|(lane, &value)| *lane += term(value)));
    lanes.iter().sum::<f32>() + rest
}

fn total(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_rises_with_update_count() {
        assert_eq!(betas(1), [0.0, 1.0]);
        assert!((betas(10)[0] - 0.841_510_68).abs() < 1e-8);
        assert_eq!(betas(1_000_000)[0], 0.999);
    }

    #[test]
    fn factors_only_large_matrices() {
        let names = |shape: &[usize]| {
            let state = Adafactor { momentum: 0.9 }.state(shape);
            state.into_iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>()
        };
        assert_eq!(names(&[32, 64]), ["first 2048", "row 32", "column 64"]);
        assert_eq!(names(&[31, 64]), ["first 1984", "second 1984"]);
        assert_eq!(names(&[64]), ["first 64", "second 64"]);
    }
}
