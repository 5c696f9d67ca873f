//! Which rows of a packed `[rows, width]` tensor belong to which sequence. Only attention and pooling need it.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Bool, Device, Float, Tensor, TensorData};
use dualenc_kernels::{MOST_SLICES, RowGather, is_remote, upload};

/// Sequences concatenated as rows, without padding between them.
#[derive(Debug, Clone)]
pub struct SequenceLayout {
    /// Number of sequences.
    pub batch: usize,
    /// Number of rows of the longest sequence.
    pub longest: usize,
    lengths: Arc<[usize]>,
    /// Rows of all sequences, and those that follow the last one and belong to none: on devices, up to a multiple of
    /// [`MOST_SLICES`] if lengths differ.
    rows: usize,
    /// `None` if all sequences have the same length: a reshape then suffices.
    ragged: Option<Arc<Ragged>>,
}

/// How sequences of different lengths are padded. Its tensors are made when they are first asked for, since attention
/// with a kernel does not need them.
#[derive(Debug)]
struct Ragged {
    device: Device,
    to_slots: OnceLock<RowGather>,
    padding: OnceLock<Tensor<4, Bool>>,
}

impl SequenceLayout {
    /// Sequences of these `lengths`, each at least 1. Index tensors are placed on `device`.
    pub fn new(lengths: Vec<usize>, device: &Device) -> Self {
        let device = &device.clone().without_autodiff();
        let (batch, longest) = (lengths.len(), lengths.iter().copied().max().unwrap_or(0));
        let tokens: usize = lengths.iter().sum();
        let step = if is_remote(device) && tokens < batch * longest { MOST_SLICES } else { 1 };
        let num_rows = tokens.next_multiple_of(step);
        let ragged = (tokens < batch * longest)
            .then(|| Arc::new(Ragged { device: device.clone(), to_slots: OnceLock::new(), padding: OnceLock::new() }));
        Self { batch, longest, lengths: lengths.into(), rows: num_rows, ragged }
    }

    /// `batch` sequences of `length` rows each.
    pub fn uniform(batch: usize, length: usize) -> Self {
        Self { batch, longest: length, lengths: vec![length; batch].into(), rows: batch * length, ragged: None }
    }

    /// The number of rows of each sequence.
    pub(crate) fn lengths(&self) -> Arc<[usize]> {
        Arc::clone(&self.lengths)
    }

    /// The total number of rows, those of no sequence included.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows of sequences alone, `[tokens, width]`, followed by zeros for the rows of no sequence: `[rows, width]`.
    pub(crate) fn fill_up(&self, x: Tensor<2>) -> Tensor<2> {
        let [tokens, width] = x.dims();
        if tokens == self.rows {
            return x;
        }
        let zeros = Tensor::zeros([self.rows - tokens, width], (&x.device(), x.dtype()));
        Tensor::cat(vec![x, zeros], 0)
    }

    /// The rows of sequences alone, `[tokens, width]`, of `[rows, width]`.
    pub(crate) fn tokens(&self, x: Tensor<2>) -> Tensor<2> {
        let tokens: usize = self.lengths.iter().sum();
        if tokens == self.rows { x } else { x.narrow(0, 0, tokens) }
    }

    /// The row of each padded slot, `batch * longest`; `None` for padding.
    fn row_of_slot(&self) -> Vec<Option<usize>> {
        let mut rows = 0..;
        let of_sequence = |&length: &usize| {
            let rows: Vec<_> = rows.by_ref().take(length).map(Some).collect();
            rows.into_iter().chain(std::iter::repeat(None)).take(self.longest)
        };
        self.lengths.iter().flat_map(of_sequence).collect()
    }

    /// From rows to padded slots, `batch * longest`.
    fn to_slots<'a>(&self, ragged: &'a Ragged) -> &'a RowGather {
        ragged.to_slots.get_or_init(|| RowGather::new(&self.row_of_slot(), self.rows, &ragged.device))
    }

    /// Maps `[rows, heads * dim]` to padded `[batch, heads, longest, dim]`.
    pub(crate) fn to_heads(&self, x: Tensor<2>, heads: usize) -> Tensor<4> {
        let [_, width] = x.dims();
        let padded = match &self.ragged {
            // Any values will do for padding: it is masked as a key and dropped as a query.
            Some(ragged) => self.to_slots(ragged).apply_unfilled(x),
            None => x,
        };
        padded.reshape([self.batch, self.longest, heads, width / heads]).swap_dims(1, 2)
    }

    /// Maps padded `[batch, heads, longest, dim]` back to `[rows, heads * dim]`.
    pub(crate) fn to_rows(&self, x: Tensor<4>) -> Tensor<2> {
        let [batch, heads, longest, dim] = x.dims();
        let padded = x.swap_dims(1, 2).reshape([batch * longest, heads * dim]);
        match &self.ragged {
            Some(ragged) => self.to_slots(ragged).inverse().apply(padded),
            None => padded,
        }
    }

    /// `[batch, 1, 1, longest]`, true for padding; `None` if there is none.
    pub(crate) fn padding(&self) -> Option<Tensor<4, Bool>> {
        let ragged = self.ragged.as_ref()?;
        let make = || {
            let padding: Vec<bool> = self.row_of_slot().iter().map(Option::is_none).collect();
            upload(TensorData::new(padding, [self.batch, 1, 1, self.longest]), &ragged.device)
        };
        Some(ragged.padding.get_or_init(make).clone())
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
            rows.push(Some(start + position(sequence, length)));
            start += length;
        }
        RowGather::new(&rows, self.rows, &x.device()).apply(x)
    }

    /// The mean of each sequence, without its first `skip` rows: `[rows, width]` to `[batch, width]`.
    ///
    /// If all lengths are equal, each sequence is summed on its own, so that its mean does not depend on the rest of
    /// the batch, bit for bit.
    pub(crate) fn mean(&self, x: Tensor<2>, skip: usize) -> Tensor<2> {
        let (rows, [_, width], device) = (self.rows(), x.dims(), x.device().without_autodiff());
        let Some(ragged) = &self.ragged else {
            let sequences = x.reshape([self.batch, self.longest, width]);
            return sequences.slice_dim(1, skip..self.longest).mean_dim(1).reshape([self.batch, width]);
        };
        if is_remote(&device) {
            // The matrix below grows with the square of the batch, and has to be copied to the device.
            let weight = |position: usize, length: usize| {
                if (skip..length).contains(&position) { 1.0 / (length - skip) as f32 } else { 0.0 }
            };
            let of_sequence = |&length: &usize| (0..self.longest).map(move |position| weight(position, length));
            let weights: Vec<f32> = self.lengths.iter().flat_map(of_sequence).collect();
            let weights = upload::<3, Float>(TensorData::new(weights, [self.batch, self.longest, 1]), &device);
            let padded = self.to_slots(ragged).apply(x).reshape([self.batch, self.longest, width]);
            let weighted = padded.clone() * weights.cast(padded.dtype());
            return weighted.sum_dim(1).reshape([self.batch, width]);
        }
        let mut weights = vec![0.0f32; self.batch * rows];
        let mut start = 0;
        for (sequence, &length) in self.lengths.iter().enumerate() {
            let counted = length - skip;
            weights[sequence * rows + start + skip..sequence * rows + start + length].fill(1.0 / counted as f32);
            start += length;
        }
        upload::<2, Float>(TensorData::new(weights, [self.batch, rows]), &device).cast(x.dtype()).matmul(x)
    }
}

#[cfg(feature = "flex")]
#[cfg(test)]
mod tests {
    use dualenc_kernels::with_plain_forms;

    use super::*;

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_into_vec().unwrap()
    }

    #[test]
    fn rows_of_no_sequence_change_nothing() {
        let device = Device::flex();
        let lengths = vec![3, 1, 5];
        let x = Tensor::<1, burn::tensor::Int>::arange(0..9 * 4, &device).float().reshape([9, 4]);
        let host = SequenceLayout::new(lengths.clone(), &device);
        assert_eq!((host.rows(), values(host.fill_up(x.clone()))), (9, values(x.clone())));
        with_plain_forms(|| {
            let padded = SequenceLayout::new(lengths, &device);
            assert_eq!(padded.rows(), MOST_SLICES);
            let filled = padded.fill_up(x.clone());
            assert_eq!(filled.dims(), [MOST_SLICES, 4]);
            assert_eq!(values(padded.tokens(filled.clone())), values(x.clone()));
            assert_eq!(values(padded.first(filled.clone())), values(host.first(x.clone())));
            assert_eq!(values(padded.last(filled.clone())), values(host.last(x.clone())));
            assert_eq!(values(padded.mean(filled.clone(), 1).slice(2..3)), values(host.mean(x.clone(), 1).slice(2..3)));
            let heads = padded.to_heads(filled.clone(), 2);
            assert_eq!(values(padded.tokens(padded.to_rows(heads))), values(x));
            // Sequences of one length need no gather.
            assert_eq!(SequenceLayout::new(vec![5; 3], &device).rows(), 15);
        });
    }
}
