//! Adafactor (Shazeer and Stern, arXiv:1804.04235) for one parameter, as big_vision sets it for large vision transformers
//! (`big_vision/optax.py: scale_by_adafactor`; Zhai et al., arXiv:2106.04560, sec. 3.4): the second moment of a matrix is kept
//! by its rows and columns, momentum is that of the scaled update, rates are absolute.
//!
//! As there, updates are not clipped by their root mean square (sec. 6 of the first paper). Momentum is kept in f32; big_vision
//! keeps bfloat16.

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::optim::rule::{CHUNK, Update, UpdateRule};

/// Matrices with a side shorter than this keep their whole second moment (`min_dim_size_to_factor`).
const SHORTEST_FACTORED: usize = 32;

/// The second moment's beta is 1 - n^-0.8 at the n-th update (`decay_rate`; sec. 7.2 of the paper).
const DECAY_EXPONENT: f64 = 0.8;

/// And at most this (`beta2_cap`; Zhai et al., sec. 3.4).
const LARGEST_BETA: f64 = 0.999;

/// Added to squared gradients (`eps`; table 4 of the paper).
const EPSILON: f64 = 1e-30;

/// Sums run in so many lanes, which the compiler keeps in one register.
const LANES: usize = 16;

/// Adafactor.
#[derive(Debug)]
pub(crate) struct Adafactor {
    /// Weight of what was in the momentum.
    pub momentum: f64,
}

/// Rows and columns of a matrix whose second moment is factored.
fn factored(shape: &[usize]) -> Option<[usize; 2]> {
    match *shape {
        [rows, columns] if rows.min(columns) >= SHORTEST_FACTORED => Some([rows, columns]),
        _ => None,
    }
}

/// The second moment's beta at this update, and what is left of 1.
fn betas(count: i32) -> [f64; 2] {
    let beta = (1.0 - f64::from(count).powf(-DECAY_EXPONENT)).min(LARGEST_BETA);
    [beta, 1.0 - beta]
}

impl UpdateRule for Adafactor {
    fn state(&self, shape: &[usize]) -> Vec<(&'static str, usize)> {
        let count = shape.iter().product();
        match factored(shape) {
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
                scale_whole(gradient, clip, [beta, rest], second);
                first
            }
            _ => return,
        };
        let gain = 1.0 - self.momentum;
        let [keep, rate, momentum, gain] = [update.keep, update.rate, self.momentum, gain].map(|number| number as f32);
        let chunks = values.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).zip(first.par_chunks_mut(CHUNK));
        chunks.for_each(|((values, scaled), first)| {
            for ((value, scaled), first) in values.iter_mut().zip(scaled).zip(first) {
                *first = momentum * *first + gain * scaled;
                *value = *value * keep - rate * *first;
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
        let moved = |moment: &Tensor<1>, mean: Tensor<1>| moment.clone() * beta + mean * rest;
        let (scaled, first) = match (state, factored(update.shape)) {
            ([first, row, column], Some([rows, columns])) => {
                let squares = squares.reshape([rows, columns]);
                *row = moved(row, squares.clone().mean_dim(1).reshape([rows]));
                *column = moved(column, squares.mean_dim(0).reshape([columns]));
                let by_row = (row.clone() / row.clone().mean()).sqrt().recip().reshape([rows, 1]);
                let by_column = column.clone().sqrt().recip().reshape([1, columns]);
                let scaled = gradient.reshape([rows, columns]) * by_row * by_column;
                (scaled.reshape([rows * columns]), first)
            }
            ([first, second], _) => {
                *second = moved(second, squares);
                (gradient / second.clone().sqrt(), first)
            }
            _ => return value,
        };
        *first = first.clone() * self.momentum + scaled * (1.0 - self.momentum);
        value * update.keep - first.clone() * update.rate
    }
}

/// Moves the second moment on and scales the gradient by it, in place.
fn scale_whole(gradient: &mut [f32], clip: f32, [beta, rest]: [f32; 2], second: &mut [f32]) {
    let chunks = gradient.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
    chunks.for_each(|(gradient, second)| {
        for (gradient, second) in gradient.iter_mut().zip(second) {
            *gradient *= clip;
            *second = beta * *second + rest * (*gradient * *gradient + EPSILON as f32);
            *gradient /= second.sqrt();
        }
    });
}

/// The same with a second moment by rows and columns.
fn scale_factored(gradient: &mut [f32], clip: f32, [beta, rest]: [f32; 2], row: &mut [f32], column: &mut [f32]) {
    let (rows, columns) = (row.len(), column.len());
    // Blocks do not depend on the number of threads, so sums over them do not either.
    let rows_a_task = (CHUNK / columns).max(1);
    let blocks = gradient.par_chunks_mut(rows_a_task * columns).zip(row.par_chunks_mut(rows_a_task));
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
    let blocks = gradient.par_chunks_mut(rows_a_task * columns).zip(row.par_chunks(rows_a_task));
    blocks.for_each(|(gradient, row)| {
        for (gradient, row) in gradient.chunks_exact_mut(columns).zip(row) {
            let by_row = (row / mean).sqrt().recip();
            gradient.iter_mut().zip(&by_column).for_each(|(gradient, by_column)| *gradient *= by_row * by_column);
        }
    });
}

fn lane_sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|&value| of(value)).sum();
    chunks.for_each(|chunk| lanes.iter_mut().zip(chunk).for_each(|(lane, &value)| *lane += of(value)));
    lanes.iter().sum::<f32>() + rest
}

fn total(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_moment_forgets_as_the_parameter_ages() {
        assert_eq!(betas(1), [0.0, 1.0]);
        assert!((betas(10)[0] - 0.841_510_68).abs() < 1e-8);
        assert_eq!(betas(1_000_000)[0], 0.999);
    }

    #[test]
    fn only_large_matrices_are_factored() {
        let names = |shape: &[usize]| {
            let state = Adafactor { momentum: 0.9 }.state(shape);
            state.into_iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>()
        };
        assert_eq!(names(&[32, 64]), ["first 2048", "row 32", "column 64"]);
        assert_eq!(names(&[31, 64]), ["first 1984", "second 1984"]);
        assert_eq!(names(&[64]), ["first 64", "second 64"]);
    }
}
