//! Rows of features less a shift, with weights, and sums over them: what covariances are made of.

use rayon::prelude::*;

use crate::cpu::chunks::{CHUNK_ROWS, chunk_ends};
use crate::cpu::gemm::Matrix;
use crate::cpu::product::blocked::{Blocks, blocked_cols, pack_block};
use crate::cpu::product::row_sums::add_wide_row_sums;
use crate::cpu::simd::vectorised;
use crate::cpu::uninit::par_groups;

/// Rows of features less a shift, with weights, packed for products.
#[derive(Debug)]
pub struct WeightedRows {
    /// As [`Blocks`].
    values: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl WeightedRows {
    /// Each row is the sum of `factor * (row of features - shift)` over its terms, computed in `f64` and rounded once.
    ///
    /// - `features`: `[rows, width]`, flat.
    /// - `terms`: of each row after the other, rows of the features and their factors.
    /// - `ends`: where the terms of each row end.
    ///
    /// # Panics
    /// If a term or an end is out of range.
    #[must_use]
    pub fn new(features: &[f32], shift: &[f32], terms: &[(usize, f64)], ends: &[usize]) -> Self {
        let (rows, cols) = (ends.len(), shift.len());
        let width = blocked_cols(cols);
        let of_row = |at: usize| &features[at * cols..][..cols];
        let [values] = par_groups(&chunk_ends(rows, CHUNK_ROWS), [width], |first, [out]| {
            let count = CHUNK_ROWS.min(rows - first);
            let (mut chunk, mut sums) = (vec![0.0; count * cols], vec![0.0; cols]);
            for (row, out) in (first..).zip(chunk.chunks_exact_mut(cols.max(1))) {
                let start = if row == 0 { 0 } else { ends[row - 1] };
                match &terms[start..ends[row]] {
                    [(at, factor)] => scale(of_row(*at), shift, *factor, out),
                    terms => {
                        sums.fill(0.0);
                        terms.iter().for_each(|(at, factor)| add_scaled(of_row(*at), shift, *factor, &mut sums));
                        out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = *sum as f32);
                    }
                }
            }
            [pack_block(Matrix::new(&chunk, cols), out)]
        });
        Self { values, rows, cols }
    }

    /// Adds `self^T other` to `sums`, `[columns of self, columns of other]`. The products of these rows are summed in
    /// `f32`.
    ///
    /// # Panics
    /// If the numbers of rows or the size of `sums` do not fit.
    pub fn add_products(&self, other: &Self, sums: &mut [f64]) {
        add_wide_row_sums(self.blocks(), other.blocks(), false, sums);
    }

    /// Adds the lower triangle of `self^T self` to `sums`, as [`WeightedRows::add_products`]. Values above the diagonal
    /// mean nothing afterwards.
    ///
    /// # Panics
    /// If the size of `sums` does not fit.
    pub fn add_squares(&self, sums: &mut [f64]) {
        add_wide_row_sums(self.blocks(), self.blocks(), true, sums);
    }

    fn blocks(&self) -> Blocks<'_> {
        Blocks::new(&self.values, self.rows, self.cols, [0, 1])
    }
}

/// The sum of `factor * (row of features - shift)` over `terms`, in `f64`.
///
/// # Panics
/// If a term is out of range.
#[must_use]
pub fn weighted_sum(features: &[f32], shift: &[f32], terms: &[(usize, f64)]) -> Vec<f64> {
    let cols = shift.len();
    let of_chunk = |terms: &[(usize, f64)]| {
        let mut sums = vec![0.0; cols];
        terms.iter().for_each(|(at, factor)| add_scaled(&features[at * cols..][..cols], shift, *factor, &mut sums));
        sums
    };
    let of_chunks: Vec<Vec<f64>> = terms.par_chunks(CHUNK_ROWS).map(of_chunk).collect();
    let mut sums = vec![0.0; cols];
    for of_chunk in of_chunks {
        sums.iter_mut().zip(of_chunk).for_each(|(sum, value)| *sum += value);
    }
    sums
}

vectorised! {
    /// Sets `out` to `factor * (row - shift)`, rounded once.
    fn scale(row: &'a [f32], shift: &'a [f32], factor: f64, out: &'a mut [f32]) {
        for ((out, value), shift) in out.iter_mut().zip(row).zip(shift) {
            *out = (factor * (f64::from(*value) - f64::from(*shift))) as f32;
        }
    }
}

vectorised! {
    /// Adds `factor * (row - shift)`.
    fn add_scaled(row: &'a [f32], shift: &'a [f32], factor: f64, sums: &'a mut [f64]) {
        for ((sum, value), shift) in sums.iter_mut().zip(row).zip(shift) {
            *sum += factor * (f64::from(*value) - f64::from(*shift));
        }
    }
}
