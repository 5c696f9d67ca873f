//! Log-sum-exps of blocks of logits over rows and columns, and the pairs that a block holds.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::contrastive::objective::ColumnSums;
use crate::cpu::chunks::CHUNK_ROWS;
use crate::cpu::product::tile::PANEL;
use crate::cpu::simd::{LANES, exp, greater, vectorised};

/// Columns per task of adding up log-sum-exps over columns.
const TASK_COLUMNS: usize = 512;

/// The largest logits of the columns over some rows, and the sums of exponentials relative to them.
#[derive(Debug)]
pub(crate) struct Columns {
    largest: Vec<f32>,
    sums: Vec<f32>,
}

impl Columns {
    /// Of `count` columns over no row.
    pub(crate) fn new(count: usize) -> Self {
        Self { largest: vec![f32::MIN; count], sums: vec![0.0; count] }
    }

    /// Of the `rows` of a block, `[panels, rows, PANEL]`; columns that fill up the last panel are columns too.
    pub(crate) fn of_block(block: &[f32], rows: usize) -> Self {
        let mut columns = Self::new(block.len() / rows.max(1));
        column_sums(block, rows, &mut columns.largest, &mut columns.sums);
        columns
    }

    /// Adds other rows, block after block. What they have of further columns is left out.
    pub(crate) fn add(&mut self, blocks: &[Self]) {
        let tasks = self.largest.par_chunks_mut(TASK_COLUMNS).zip(self.sums.par_chunks_mut(TASK_COLUMNS));
        tasks.enumerate().for_each(|(task, (largest, sums))| {
            for block in blocks {
                let first = task * TASK_COLUMNS;
                add_column_sums(largest, sums, &block.largest[first..], &block.sums[first..]);
            }
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
    /// The log-sum-exps of the rows of a block, `[panels, rows, PANEL]`, as many as `log_sums`, at most [`CHUNK_ROWS`].
    pub(crate) fn row_log_sums(block: &'a [f32], log_sums: &'a mut [f32]) {
        let rows = log_sums.len();
        let panels = || block.chunks_exact((rows * PANEL).max(1)).map(|panel| panel.as_chunks::<PANEL>().0);
        let mut lanes = [[f32::MIN; LANES]; CHUNK_ROWS];
        let lanes = &mut lanes[..rows];
        for panel in panels() {
            for (lanes, row) in lanes.iter_mut().zip(panel) {
                let mut tops = *lanes;
                for part in row.as_chunks::<LANES>().0 {
                    tops.iter_mut().zip(part).for_each(|(top, value)| *top = greater(*top, *value));
                }
                *lanes = tops;
            }
        }
        for (top, lanes) in log_sums.iter_mut().zip(&mut *lanes) {
            *top = lanes.iter().copied().fold(f32::MIN, greater);
            *lanes = [0.0; LANES];
        }
        for panel in panels() {
            for ((lanes, row), top) in lanes.iter_mut().zip(panel).zip(&*log_sums) {
                let mut sums = *lanes;
                for part in row.as_chunks::<LANES>().0 {
                    sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += exp(value - top));
                }
                *lanes = sums;
            }
        }
        for (top, lanes) in log_sums.iter_mut().zip(lanes) {
            *top += lanes.iter().sum::<f32>().ln();
        }
    }
}

vectorised! {
    /// Sets the maxima and sums of [`Columns`] to those of a block.
    fn column_sums(block: &'a [f32], rows: usize, largest: &'a mut [f32], sums: &'a mut [f32]) {
        let columns = largest.as_chunks_mut::<PANEL>().0.iter_mut().zip(sums.as_chunks_mut::<PANEL>().0);
        for (panel, (largest, sums)) in block.chunks_exact((rows * PANEL).max(1)).zip(columns) {
            let panel = panel.as_chunks::<PANEL>().0;
            // A few registers wide, so that maxima and sums stay in registers from row to row.
            let mut tops = [f32::MIN; PANEL];
            for row in panel {
                tops.iter_mut().zip(row).for_each(|(top, value)| *top = greater(*top, *value));
            }
            let mut totals = [0.0; PANEL];
            for row in panel {
                for (total, (value, top)) in totals.iter_mut().zip(row.iter().zip(&tops)) {
                    *total += exp(value - top);
                }
            }
            (*largest, *sums) = (tops, totals);
        }
    }
}

vectorised! {
    /// Adds maxima and sums of [`Columns`] over other rows.
    fn add_column_sums(largest: &'a mut [f32], sums: &'a mut [f32], tops: &'a [f32], totals: &'a [f32]) {
        let columns = largest.iter_mut().zip(sums).zip(tops.iter().zip(totals));
        for ((largest, sum), (top, total)) in columns {
            let before = *largest;
            *largest = greater(before, *top);
            *sum = *sum * exp(before - *largest) + total * exp(top - *largest);
        }
    }
}
