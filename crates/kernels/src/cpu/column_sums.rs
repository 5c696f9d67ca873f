//! Sums of the columns of a matrix: gradients of biases.

use rayon::prelude::*;

use crate::cpu::gemm::Matrix;
use crate::cpu::simd::vectorised;

/// Columns per task: whole cache lines.
const SUM_COLUMNS: usize = 64;

vectorised! {
    /// Adds each row to `sums`.
    pub(crate) fn add_rows(sums: &'a mut [f32], rows: Matrix<'a>) {
        for row in 0..rows.num_rows() {
            sums.iter_mut().zip(rows.row(row)).for_each(|(sum, value)| *sum += value);
        }
    }
}

/// The sums of the columns of `x`, which must not be transposed.
pub(crate) fn column_sums(x: Matrix<'_>) -> Vec<f32> {
    let mut sums = vec![0.0; x.num_cols()];
    sums.par_chunks_mut(SUM_COLUMNS).enumerate().for_each(|(block, sums)| {
        add_rows(sums, x.cols(block * SUM_COLUMNS, sums.len()));
    });
    sums
}
