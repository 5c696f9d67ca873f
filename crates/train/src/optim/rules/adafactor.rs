//! Adafactor (Shazeer and Stern, arXiv:1804.04235) in the variant that big_vision uses for large vision transformers
//! (`big_vision/optax.py: scale_by_adafactor`; Zhai et al., arXiv:2106.04560, sec. 3.4). The second moment of a tensor
//! is factored over its two longest dimensions (optax's `scale_by_factored_rms`), momentum is taken of the scaled
//! gradient, and learning rates are absolute.
//!
//! As in big_vision, updates are not clipped by their root mean square (sec. 6 of the first paper). Momentum is f32
//! here, bfloat16 there. A tensor is factored in the shape that it has here: patch embeddings and the projections of
//! attention are matrices, which flax stores with three and four dimensions.

use burn::tensor::Tensor;
use dualenc_kernels::CHUNK;
use rayon::prelude::*;

use crate::error::TrainError;
use crate::optim::rules::update_rule::{Update, UpdateRule, arrays};

/// Tensors are factored if two dimensions have at least this length (`min_dim_size_to_factor`).
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

/// A tensor as `[outer, rows, middle, columns, inner]`, where rows and columns are the dimensions that its second
/// moment is factored over.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Factored {
    outer: usize,
    rows: usize,
    middle: usize,
    columns: usize,
    inner: usize,
}

impl Factored {
    /// `None` if the second moment of a tensor of this shape is not factored.
    ///
    /// The two longest dimensions are factored. Of equally long ones the last are, as in optax, where numpy sorts the
    /// lengths: with fewer than 16 of them, by insertion, which is stable.
    fn new(shape: &[usize]) -> Option<Self> {
        let mut dims: Vec<usize> = (0..shape.len()).collect();
        dims.sort_by_key(|&dim| shape[dim]);
        let [.., second, longest] = dims[..] else { return None };
        if shape[second] < MIN_FACTORED_SIDE {
            return None;
        }
        let (row, column) = (second.min(longest), second.max(longest));
        let count = |dims: &[usize]| dims.iter().product();
        Some(Self {
            outer: count(&shape[..row]),
            rows: shape[row],
            middle: count(&shape[row + 1..column]),
            columns: shape[column],
            inner: count(&shape[column + 1..]),
        })
    }

    /// Number of values between the starts of two rows.
    fn width(&self) -> usize {
        self.middle * self.columns * self.inner
    }

    /// Number of means over columns, `[outer, rows, middle, inner]`, and over rows, `[outer, middle, columns, inner]`.
    fn means(&self) -> [usize; 2] {
        [self.outer * self.rows * self.middle * self.inner, self.outer * self.width()]
    }
}

/// The second moment's beta at the update `count`, and 1 minus beta.
fn betas(count: i32) -> [f64; 2] {
    let beta = (1.0 - f64::from(count).powf(-DECAY_EXPONENT)).min(MAX_BETA);
    [beta, 1.0 - beta]
}

// There is no `on_host_rows`: every value of a factored table takes part in the means over its columns, and is scaled
// by them, so that an update of any row changes all rows that have momentum. What a row without a gradient adds to the
// means, `EPSILON` for each value, would have to be added in the same order, or the sums would have other bits.
impl UpdateRule for Adafactor {
    fn state(&self, shape: &[usize]) -> Vec<(&'static str, usize)> {
        let count = shape.iter().product();
        match Factored::new(shape).map(|factored| factored.means()) {
            Some([row, column]) => vec![("first", count), ("row", row), ("column", column)],
            None => vec![("first", count), ("second", count)],
        }
    }

    fn on_host(
        &self,
        update: Update<'_>,
        values: &mut [f32],
        gradient: &mut [f32],
        state: &mut [Vec<f32>],
    ) -> Result<(), TrainError> {
        let betas = betas(update.count).map(|beta| beta as f32);
        let clip = update.clip as f32;
        let first = match Factored::new(update.shape) {
            Some(factored) => {
                let [first, row, column] = arrays(state)?;
                let [row_len, column_len] = factored.means().map(|count| count / factored.outer);
                let outer = gradient.chunks_exact_mut(factored.rows * factored.width());
                for ((gradient, row), column) in
                    outer.zip(row.chunks_exact_mut(row_len)).zip(column.chunks_exact_mut(column_len))
                {
                    scale_factored(factored, gradient, clip, betas, row, column);
                }
                first
            }
            None => {
                let [first, second] = arrays(state)?;
                scale_unfactored(gradient, clip, betas, second);
                first
            }
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
        Ok(())
    }

    fn on_device(
        &self,
        update: Update<'_>,
        value: Tensor<1>,
        gradient: Tensor<1>,
        state: &mut [Tensor<1>],
    ) -> Result<Tensor<1>, TrainError> {
        let [beta, rest] = betas(update.count);
        let gradient = gradient * update.clip;
        let squares = gradient.clone().square() + EPSILON;
        let blend = |moment: &Tensor<1>, mean: Tensor<1>| moment.clone() * beta + mean * rest;
        let (scaled, first) = match Factored::new(update.shape) {
            Some(factored) => {
                let [first, row, column] = arrays(state)?;
                let Factored { outer, rows, middle, columns, inner } = factored;
                let [row_len, column_len] = factored.means();
                let squares = squares.reshape([outer, rows, middle, columns, inner]);
                *row = blend(row, squares.clone().mean_dim(3).reshape([row_len]));
                *column = blend(column, squares.mean_dim(1).reshape([column_len]));
                let by_row = row.clone().reshape([outer, rows, middle, 1, inner]);
                let by_row = (by_row.clone() / by_row.mean_dim(1)).sqrt().recip();
                let by_column = column.clone().sqrt().recip().reshape([outer, 1, middle, columns, inner]);
                let scaled = gradient.reshape([outer, rows, middle, columns, inner]) * by_row * by_column;
                (scaled.reshape([outer * rows * factored.width()]), first)
            }
            None => {
                let [first, second] = arrays(state)?;
                *second = blend(second, squares);
                (gradient / second.clone().sqrt(), first)
            }
        };
        *first = first.clone() * self.momentum + scaled * (1.0 - self.momentum);
        Ok(value * update.decay_factor - first.clone() * update.rate)
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

/// The same with the second moment factored into `row` and `column`, for one of the outer slices of a tensor.
fn scale_factored(
    factored: Factored,
    gradient: &mut [f32],
    clip: f32,
    [beta, rest]: [f32; 2],
    row: &mut [f32],
    column: &mut [f32],
) {
    let Factored { rows, columns, middle, inner, .. } = factored;
    let (width, per_row) = (factored.width(), middle * inner);
    // Block sizes, and so the sums over blocks, do not depend on the number of threads.
    let rows_per_task = (CHUNK / width).max(1);
    let blocks = gradient.par_chunks_mut(rows_per_task * width).zip(row.par_chunks_mut(rows_per_task * per_row));
    let sums: Vec<Vec<f32>> = blocks
        .map(|(gradient, row)| {
            let mut sums = vec![0.0; width];
            for (gradient, row) in gradient.chunks_exact_mut(width).zip(row.chunks_exact_mut(per_row)) {
                for (gradient, sum) in gradient.iter_mut().zip(&mut sums) {
                    *gradient *= clip;
                    *sum += *gradient * *gradient + EPSILON as f32;
                }
                let slices = gradient.chunks_exact(columns * inner).zip(row.chunks_exact_mut(inner));
                for (gradient, row) in slices {
                    blend_column_means(gradient, [beta, rest], row);
                }
            }
            sums
        })
        .collect();
    for (at, column) in column.iter_mut().enumerate() {
        let sum: f64 = sums.iter().map(|sums| f64::from(sums[at])).sum();
        *column = beta * *column + rest * (sum / rows as f64) as f32;
    }
    let of_rows = |at: usize| row.iter().skip(at).step_by(per_row);
    let means: Vec<f32> = (0..per_row).map(|at| (total(of_rows(at)) / rows as f64) as f32).collect();
    let by_column: Vec<f32> = column.iter().map(|column| column.sqrt().recip()).collect();
    let blocks = gradient.par_chunks_mut(rows_per_task * width).zip(row.par_chunks(rows_per_task * per_row));
    blocks.for_each(|(gradient, row)| {
        for (gradient, row) in gradient.chunks_exact_mut(width).zip(row.chunks_exact(per_row)) {
            let by_row: Vec<f32> = row.iter().zip(&means).map(|(row, mean)| (row / mean).sqrt().recip()).collect();
            let slices = gradient.chunks_exact_mut(columns * inner).zip(by_column.chunks_exact(columns * inner));
            for ((gradient, by_column), by_row) in slices.zip(by_row.chunks_exact(inner)) {
                scale_slice(gradient, by_column, by_row);
            }
        }
    });
}

/// Blends the means over the columns of squared gradients `[columns, inner]` into `row` `[inner]`.
fn blend_column_means(gradient: &[f32], [beta, rest]: [f32; 2], row: &mut [f32]) {
    let square = |value: f32| value * value + EPSILON as f32;
    let columns = gradient.len() / row.len();
    if let [row] = row {
        *row = beta * *row + rest * (lane_sum(gradient, square) / columns as f32);
        return;
    }
    let mut sums = vec![0.0; row.len()];
    for gradient in gradient.chunks_exact(row.len()) {
        sums.iter_mut().zip(gradient).for_each(|(sum, &value)| *sum += square(value));
    }
    row.iter_mut().zip(sums).for_each(|(row, sum)| *row = beta * *row + rest * (sum / columns as f32));
}

/// Multiplies gradients `[columns, inner]` by the factors of their row `[inner]` and of their columns.
fn scale_slice(gradient: &mut [f32], by_column: &[f32], by_row: &[f32]) {
    if let &[by_row] = by_row {
        gradient.iter_mut().zip(by_column).for_each(|(gradient, by_column)| *gradient *= by_row * by_column);
        return;
    }
    let inner = by_row.len();
    for (gradient, by_column) in gradient.chunks_exact_mut(inner).zip(by_column.chunks_exact(inner)) {
        let factors = by_row.iter().zip(by_column);
        gradient.iter_mut().zip(factors).for_each(|(gradient, (by_row, by_column))| *gradient *= by_row * by_column);
    }
}

/// Sum of `term` over `values`, in [`LANES`] partial sums.
fn lane_sum(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|&value| term(value)).sum();
    chunks.for_each(|chunk| lanes.iter_mut().zip(chunk).for_each(|(lane, &value)| *lane += term(value)));
    lanes.iter().sum::<f32>() + rest
}

fn total<'a>(values: impl Iterator<Item = &'a f32>) -> f64 {
    values.map(|&value| f64::from(value)).sum()
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
    fn factors_two_longest_dimensions() {
        let names = |shape: &[usize]| {
            let state = Adafactor { momentum: 0.9 }.state(shape);
            state.into_iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>()
        };
        assert_eq!(names(&[32, 64]), ["first 2048", "row 32", "column 64"]);
        assert_eq!(names(&[31, 64]), ["first 1984", "second 1984"]);
        assert_eq!(names(&[64]), ["first 64", "second 64"]);
        assert_eq!(names(&[]), ["first 1", "second 1"]);
        // The kernels of convolutions: a 3x3 one, a patch embedding with too small and with large enough patches, and a
        // depthwise one.
        assert_eq!(names(&[64, 48, 3, 3]), ["first 27648", "row 576", "column 432"]);
        assert_eq!(names(&[64, 3, 16, 16]), ["first 49152", "second 49152"]);
        assert_eq!(names(&[96, 3, 32, 32]), ["first 294912", "row 9216", "column 3072"]);
        assert_eq!(names(&[96, 1, 7, 7]), ["first 4704", "second 4704"]);
    }

    #[test]
    fn last_of_equal_dimensions_are_factored() {
        let dims = |shape: &[usize]| {
            let Factored { outer, rows, middle, columns, inner } = Factored::new(shape).unwrap();
            [outer, rows, middle, columns, inner]
        };
        assert_eq!(dims(&[40, 40]), [1, 40, 1, 40, 1]);
        assert_eq!(dims(&[40, 40, 40]), [40, 40, 1, 40, 1]);
        assert_eq!(dims(&[64, 3, 40, 40]), [1, 64, 120, 40, 1]);
        assert_eq!(dims(&[40, 64, 40, 2]), [40, 64, 1, 40, 2]);
        assert_eq!(dims(&[40, 64, 41, 2]), [40, 64, 1, 41, 2]);
        assert_eq!(dims(&[40, 5, 64, 2]), [1, 40, 5, 64, 2]);
    }
}
