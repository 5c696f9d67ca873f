//! Cosine similarities between many rows, computed in blocks, and the ranks within them.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_model::parameters;

use crate::error::TrainError;

/// Scores of one block: 64 MiB of f32.
pub(crate) const BLOCK_SCORES: usize = 1 << 24;

/// Similarities of rows with columns, where both are L2-normalised embeddings.
pub(crate) struct Scores {
    /// `[rows, dim]`, flat.
    rows: Vec<f32>,
    /// `[dim, columns]`
    columns: Tensor<2>,
    dim: usize,
}

impl Scores {
    /// `rows`: shape `[rows, dim]`, flat. `columns`: shape `[columns, dim]`, flat. Both are normalised.
    pub fn new(rows: Vec<f32>, columns: Vec<f32>, dim: usize, device: &Device) -> Self {
        let count = columns.len() / dim.max(1);
        let columns = Tensor::<2>::from_data(TensorData::new(columns, [count, dim]), device);
        Self { rows, columns: columns.transpose(), dim }
    }

    /// Scores of a range of rows: shape `[rows, columns]`, flat.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data.
    pub fn of_rows(&self, rows: Range<usize>) -> Result<Vec<f32>, TrainError> {
        let values = self.rows[rows.start * self.dim..rows.end * self.dim].to_vec();
        let rows = Tensor::<2>::from_data(TensorData::new(values, [rows.len(), self.dim]), &self.columns.device());
        Ok(parameters::host(rows.matmul(self.columns.clone()))?.values)
    }
}

/// Consecutive ranges that cover `rows`, each with about [`BLOCK_SCORES`] scores at `columns` scores per row.
pub(crate) fn blocks(rows: usize, columns: usize) -> impl Iterator<Item = Range<usize>> {
    let size = (BLOCK_SCORES / columns.max(1)).max(1);
    (0..rows).step_by(size).map(move |start| start..(start + size).min(rows))
}

/// Divides each row of `embeds`, shape `[rows, dim]`, flat, by its L2 norm.
pub(crate) fn normalize_rows(embeds: &mut [f32], dim: usize) {
    for row in embeds.chunks_exact_mut(dim.max(1)) {
        let norm = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt().max(1e-12);
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    }
}

/// Number of entries that come before `index` in descending order. Ties are in order of position.
pub(crate) fn rank_of(scores: &[f32], index: usize) -> usize {
    let own = scores[index];
    let is_before = |(other, &score): (usize, &f32)| score > own || (score == own && other < index);
    scores.iter().enumerate().filter(|&entry| is_before(entry)).count()
}
