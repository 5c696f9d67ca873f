//! Log-sum-exps of tiles of logits over rows and columns, and the pairs that a tile holds.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::contrastive::objective::ColumnSums;
use crate::cpu::gemm::Matrix;
use crate::cpu::simd::{LANES, exp, max, sum, vectorised};

/// Columns per task of a log-sum-exp over columns.
const TASK_COLUMNS: usize = 512;

/// Running maxima of the columns, and sums of exponentials relative to them.
pub(crate) struct Columns {
    largest: Vec<f32>,
    sums: Vec<f32>,
}

impl Columns {
    /// Of `count` columns.
    pub(crate) fn new(count: usize) -> Self {
        Self { largest: vec![f32::MIN; count], sums: vec![0.0; count] }
    }

    /// Adds rows of logits.
    pub(crate) fn add(&mut self, logits: &[f32]) {
        let count = self.largest.len();
        let tasks = self.largest.par_chunks_mut(TASK_COLUMNS).zip(self.sums.par_chunks_mut(TASK_COLUMNS));
        tasks.enumerate().for_each(|(task, (largest, sums))| {
            let width = largest.len();
            update_column_sums(largest, sums, Matrix::new(logits, count).cols(task * TASK_COLUMNS, width));
        });
    }

    /// As tensors of `device`.
    pub(crate) fn into_sums(self, device: &Device) -> ColumnSums {
        let tensor = |values: Vec<f32>| {
            let shape = [1, values.len()];
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        ColumnSums { largest: tensor(self.largest), sums: tensor(self.sums) }
    }

    /// The log-sum-exp of each column.
    pub(crate) fn log_sums(&self) -> Vec<f32> {
        self.largest.iter().zip(&self.sums).map(|(largest, sum)| largest + sum.ln()).collect()
    }
}

/// The items in rows `first..first + rows` of a slice sorted by `row`.
pub(crate) fn within<T>(sorted: &[T], row: impl Fn(&T) -> usize, first: usize, rows: usize) -> &[T] {
    let start = sorted.partition_point(|item| row(item) < first);
    let end = sorted.partition_point(|item| row(item) < first + rows);
    &sorted[start..end]
}

vectorised! {
    /// Multiplies values by `factor` and adds `term`.
    pub(crate) fn multiply_add(values: &'a mut [f32], factor: f32, term: f32) {
        values.iter_mut().for_each(|value| *value = value.mul_add(factor, term));
    }
}

vectorised! {
    /// The log-sum-exp of a row.
    pub(crate) fn row_log_sum(logits: &'a [f32]) -> f32 {
        let top = max(logits, f32::MIN);
        top + sum([logits], |[logit]| exp(logit - top)).ln()
    }
}

vectorised! {
    /// Adds rows of logits to the running maxima and sums of [`Columns`].
    fn update_column_sums(top: &'a mut [f32], sums: &'a mut [f32], logits: Matrix<'a>) {
        // A few registers wide, so that maxima and sums stay in registers from row to row.
        const WIDTH: usize = 4 * LANES;
        let greater = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
        let mut start = 0;
        while start < top.len() {
            let width = WIDTH.min(top.len() - start);
            let mut tops = [f32::MIN; WIDTH];
            tops[..width].copy_from_slice(&top[start..][..width]);
            let before = tops;
            for row in 0..logits.num_rows() {
                let row = &logits.row(row)[start..][..width];
                tops.iter_mut().zip(row).for_each(|(top, value)| *top = greater(*top, *value));
            }
            let mut totals = [0.0; WIDTH];
            totals[..width].copy_from_slice(&sums[start..][..width]);
            for (total, (before, top)) in totals.iter_mut().zip(before.iter().zip(&tops)) {
                *total *= exp(before - top);
            }
            for row in 0..logits.num_rows() {
                let row = &logits.row(row)[start..][..width];
                for (total, (value, top)) in totals.iter_mut().zip(row.iter().zip(&tops)) {
                    *total += exp(value - top);
                }
            }
            top[start..][..width].copy_from_slice(&tops[..width]);
            sums[start..][..width].copy_from_slice(&totals[..width]);
            start += width;
        }
    }
}
