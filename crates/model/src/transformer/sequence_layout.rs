//! Which rows of a packed `[rows, width]` tensor belong to which sequence. Only attention and pooling need it.

use std::sync::Arc;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// Sequences concatenated as rows, without padding.
#[derive(Debug, Clone)]
pub struct SequenceLayout {
    /// Number of sequences.
    pub batch: usize,
    /// Number of rows of the longest sequence.
    pub longest: usize,
    lengths: Arc<[usize]>,
    /// `None` if all sequences have the same length: a reshape then suffices.
    ragged: Option<Ragged>,
}

#[derive(Debug, Clone)]
struct Ragged {
    /// `[batch * longest]`: the row in each padded slot; row 0 for padding, which is masked.
    row_of_slot: Tensor<1, Int>,
    /// `[rows]`: the padded slot of each row.
    slot_of_row: Tensor<1, Int>,
    /// `[batch, 1, 1, longest]`: true for padding.
    padding: Tensor<4, Bool>,
}

impl SequenceLayout {
    /// Sequences of these `lengths`, each at least 1. Index tensors are placed on `device`.
    pub fn new(lengths: Vec<usize>, device: &Device) -> Self {
        let device = &device.clone().without_autodiff();
        let (batch, longest) = (lengths.len(), lengths.iter().copied().max().unwrap_or(0));
        let ragged = lengths.iter().any(|&length| length != longest).then(|| {
            let mut row_of_slot = vec![0i32; batch * longest];
            let mut padding = vec![true; batch * longest];
            let mut slot_of_row = Vec::new();
            for (sequence, &length) in lengths.iter().enumerate() {
                for slot in sequence * longest..sequence * longest + length {
                    row_of_slot[slot] = slot_of_row.len() as i32;
                    padding[slot] = false;
                    slot_of_row.push(slot as i32);
                }
            }
            let rows = slot_of_row.len();
            Ragged {
                row_of_slot: Tensor::from_data(TensorData::new(row_of_slot, [batch * longest]), device),
                slot_of_row: Tensor::from_data(TensorData::new(slot_of_row, [rows]), device),
                padding: Tensor::from_data(TensorData::new(padding, [batch, 1, 1, longest]), device),
            }
        });
        Self { batch, longest, lengths: lengths.into(), ragged }
    }

    /// `batch` sequences of `length` rows each.
    pub fn uniform(batch: usize, length: usize) -> Self {
        Self { batch, longest: length, lengths: vec![length; batch].into(), ragged: None }
    }

    /// The number of rows of each sequence.
    pub(crate) fn lengths(&self) -> Arc<[usize]> {
        Arc::clone(&self.lengths)
    }

    /// The total number of rows.
    pub fn rows(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Maps `[rows, heads * dim]` to padded `[batch, heads, longest, dim]`.
    pub(crate) fn to_heads(&self, x: Tensor<2>, heads: usize) -> Tensor<4> {
        let [_, width] = x.dims();
        let padded = match &self.ragged {
            Some(ragged) => x.select(0, ragged.row_of_slot.clone()),
            None => x,
        };
        padded.reshape([self.batch, self.longest, heads, width / heads]).swap_dims(1, 2)
    }

    /// Maps padded `[batch, heads, longest, dim]` back to `[rows, heads * dim]`.
    pub(crate) fn to_rows(&self, x: Tensor<4>) -> Tensor<2> {
        let [batch, heads, longest, dim] = x.dims();
        let padded = x.swap_dims(1, 2).reshape([batch * longest, heads * dim]);
        match &self.ragged {
            Some(ragged) => padded.select(0, ragged.slot_of_row.clone()),
            None => padded,
        }
    }

    /// `[batch, 1, 1, longest]`, true for padding; `None` if there is none.
    pub(crate) fn padding(&self) -> Option<Tensor<4, Bool>> {
        self.ragged.as_ref().map(|ragged| ragged.padding.clone())
    }

    /// The first row of each sequence: `[rows, width]` to `[batch, width]`.
    pub(crate) fn first(&self, x: Tensor<2>) -> Tensor<2> {
        self.pick(x, |_, _| 0)
    }

    /// The last row of each sequence: `[rows, width]` to `[batch, width]`.
    pub(crate) fn last(&self, x: Tensor<2>) -> Tensor<2> {
        self.pick(x, |_, length| length - 1)
    }

    /// One row of each sequence: `[rows, width]` to `[batch, width]`. `position` returns the position of the row, given
    /// the index and length of the sequence.
    pub(crate) fn pick(&self, x: Tensor<2>, position: impl Fn(usize, usize) -> usize) -> Tensor<2> {
        let mut start = 0;
        let mut rows = Vec::with_capacity(self.batch);
        for (sequence, &length) in self.lengths.iter().enumerate() {
            rows.push((start + position(sequence, length)) as i32);
            start += length;
        }
        let device = x.device().without_autodiff();
        x.select(0, Tensor::<1, Int>::from_data(TensorData::new(rows, [self.batch]), &device))
    }

    /// The mean of each sequence, without its first `skip` rows: `[rows, width]` to `[batch, width]`.
    ///
    /// If all lengths are equal, each sequence is summed on its own, so that its mean does not depend on the rest of
    /// the batch, bit for bit.
    pub(crate) fn mean(&self, x: Tensor<2>, skip: usize) -> Tensor<2> {
        let rows = self.rows();
        if self.ragged.is_none() {
            let [_, width] = x.dims();
            let sequences = x.reshape([self.batch, self.longest, width]);
            return sequences.slice_dim(1, skip..self.longest).mean_dim(1).reshape([self.batch, width]);
        }
        let mut weights = vec![0.0f32; self.batch * rows];
        let mut start = 0;
        for (sequence, &length) in self.lengths.iter().enumerate() {
            let counted = length - skip;
            weights[sequence * rows + start + skip..sequence * rows + start + length].fill(1.0 / counted as f32);
            start += length;
        }
        let device = x.device().without_autodiff();
        Tensor::<2>::from_data(TensorData::new(weights, [self.batch, rows]), &device).cast(x.dtype()).matmul(x)
    }
}
