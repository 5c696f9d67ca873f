//! Softmax attention over packed sequences: rows of all sequences follow each other without padding, and the backward
//! pass recomputes the attention probabilities from one saved number per row and head.

use burn::tensor::Tensor;

use crate::arguments::sequences::Sequences;

/// Whether the host has kernels for the dtype of `x`, which is on it.
pub fn has_kernel<const D: usize>(x: &Tensor<D>) -> bool {
    #[cfg(feature = "flex")]
    return crate::cpu::autograd::supports_fused(x);
    #[cfg(not(feature = "flex"))]
    {
        let _ = x;
        false
    }
}

/// Multi-head attention (Vaswani et al., 2017, arXiv:1706.03762, sec. 3.2), `[rows, width]`, of packed sequences.
///
/// `qkv` is `[rows, 3 * width]`: query, key and value of a row side by side. Returns `None` if there is no kernel for
/// it (see [`attends_packed`]), or on the host if the lengths of the sequences do not add up to `rows`; on devices the
/// rows after all sequences are 0.
///
/// # Panics
///
/// If the columns are not three times a width of at least 1 that `sequences.heads` divides, if there are 0 heads, or if
/// a sequence is empty.
pub fn attention(qkv: &Tensor<2>, sequences: &Sequences) -> Option<Tensor<2>> {
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(qkv) {
        return fused::attention(qkv, sequences);
    }
    #[cfg(feature = "cube")]
    if let Some(output) = crate::cube::attention::attention(qkv, sequences) {
        return Some(output);
    }
    let _ = (qkv, sequences);
    None
}

/// Whether [`attention`] has a kernel for these sequences with heads of `dim` columns, on the device of `x`, from which
/// query, key and value are computed. `tracked`: whether these are in the gradient graph.
pub fn attends_packed(x: &Tensor<2>, tracked: bool, sequences: &Sequences, dim: usize) -> bool {
    #[cfg(feature = "cube")]
    if crate::cube::attention::takes(x, tracked, sequences, dim) {
        return true;
    }
    let _ = (tracked, sequences, dim);
    has_kernel(x)
}

#[cfg(feature = "flex")]
pub(crate) mod fused {
    use std::ops::Range;
    use std::sync::Arc;

    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;

    use crate::arguments::sequences::Sequences;
    use crate::cpu::attention::backward;
    use crate::cpu::attention::forward::{self, forward};
    use crate::cpu::attention::head::{Head, HeadDropout, HeadRows};
    use crate::cpu::attention::memory::Memory;
    use crate::cpu::attention::short_backward::{self, short_backward};
    use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
    use crate::cpu::chunks::CHUNK_ROWS;
    use crate::cpu::gemm::Matrix;
    use crate::cpu::uninit::{Scratch, par_groups, write};

    #[derive(Debug, Clone)]
    struct Saved {
        qkv: Values,
        /// The log-sum-exp of the scores of each row and head, `[rows, heads]`.
        log_sums: Vec<f32>,
        sequences: Sequences,
    }

    /// One sequence within its [`Groups`] task.
    pub struct Sequence {
        /// Index among all sequences.
        index: usize,
        /// Index of its first row within the group.
        pub start: usize,
        pub rows: usize,
        /// Number of rows of the longest sequence of all.
        longest: usize,
    }

    pub fn attention(qkv: &Tensor<2>, sequences: &Sequences) -> Option<Tensor<2>> {
        let [rows, triple] = qkv.dims();
        let width = checked_width(qkv, sequences)?;
        let forward = |[qkv]: &[Values; 1], _| {
            let groups = Groups::new(sequences);
            let [values, log_sums] = par_groups(&groups.ends, [width, sequences.heads], |first, [out, log_sums]| {
                let (out, log_sums) = (write(out, |_| 0.0), write(log_sums, |_| 0.0));
                let rows = out.len() / width;
                let qkv = &qkv.get()[first * triple..][..rows * triple];
                let mut memory = forward::memory(groups.longest, width / sequences.heads);
                for sequence in groups.starting_at(first) {
                    forward_sequence(qkv, &sequence, sequences, width, (&mut *out, &mut *log_sums), &mut memory);
                }
                [out, log_sums]
            });
            (flex_tensor(values, [rows, width]), Saved { qkv: qkv.clone(), log_sums, sequences: sequences.clone() })
        };
        Some(custom_op([Input::new(qkv.clone())?], forward, |saved, gradient, _| [Some(backward(&saved, &gradient))]))
    }

    /// The width of query, key and value each; `None` if the lengths of the sequences do not add up to the rows.
    pub fn checked_width(qkv: &Tensor<2>, sequences: &Sequences) -> Option<usize> {
        let [rows, triple] = qkv.dims();
        let (width, heads) = (triple / 3, sequences.heads);
        if sequences.lengths.iter().sum::<usize>() != rows {
            return None;
        }
        assert!(triple.is_multiple_of(3), "{triple} columns are not query, key and value");
        let divides = heads > 0 && width > 0 && width.is_multiple_of(heads);
        assert!(divides, "{heads} heads do not divide a width of {width}");
        assert!(sequences.lengths.iter().all(|&length| length > 0), "a sequence is empty");
        Some(width)
    }

    /// Whole sequences grouped into tasks of at least [`CHUNK_ROWS`] rows.
    pub struct Groups {
        /// End row of each group.
        pub ends: Vec<usize>,
        /// First row and sequences of each group.
        members: Vec<(usize, Range<usize>)>,
        lengths: Arc<[usize]>,
        pub longest: usize,
    }

    impl Groups {
        pub fn new(sequences: &Sequences) -> Self {
            let lengths = Arc::clone(&sequences.lengths);
            let (mut ends, mut members) = (Vec::new(), Vec::new());
            let (mut row, mut first_row, mut first) = (0, 0, 0);
            for (n, length) in lengths.iter().enumerate() {
                row += length;
                if row - first_row >= CHUNK_ROWS || n + 1 == lengths.len() {
                    ends.push(row);
                    members.push((first_row, first..n + 1));
                    (first_row, first) = (row, n + 1);
                }
            }
            Self { ends, members, longest: lengths.iter().copied().max().unwrap_or(0), lengths }
        }

        /// The sequences of the group that starts at `first_row`.
        pub fn starting_at(&self, first_row: usize) -> impl Iterator<Item = Sequence> {
            let Ok(group) = self.members.binary_search_by_key(&first_row, |(row, _)| *row) else {
                unreachable!("the tasks are the groups: each starts at the first row of one")
            };
            let indices = self.members[group].1.clone();
            let mut start = 0;
            indices.map(move |index| {
                let sequence = Sequence { index, start, rows: self.lengths[index], longest: self.longest };
                start += sequence.rows;
                sequence
            })
        }
    }

    /// A head of a sequence; `qkv` holds the rows of the group.
    pub fn head<'a>(
        qkv: &'a [f32],
        sequence: &Sequence,
        sequences: &Sequences,
        index: usize,
        width: usize,
    ) -> Head<'a> {
        let dim = width / sequences.heads;
        let rows = Matrix::new(qkv, 3 * width).rows(sequence.start, sequence.rows);
        let dropout = sequences.dropout.map(|mask| {
            let matrix = sequence.index as u64 * sequences.heads as u64 + index as u64;
            let longest = sequence.longest as u64;
            HeadDropout { mask, start: matrix * longest * longest, distance: sequence.longest }
        });
        let qkv = [0, 1, 2].map(|part| rows.cols(part * width + index * dim, dim));
        Head { qkv, causal: sequences.causal, dropout }
    }

    /// Writes the output of a sequence to `out`, the rows `[rows, width]` of its group, and the log-sum-exps of its
    /// scores.
    pub fn forward_sequence(
        qkv: &[f32],
        sequence: &Sequence,
        sequences: &Sequences,
        width: usize,
        (out, log_sums): (&mut [f32], &mut [f32]),
        memory: &mut Memory<3>,
    ) {
        let (heads, start) = (sequences.heads, sequence.start);
        for index in 0..heads {
            let head = head(qkv, sequence, sequences, index, width);
            let out = HeadRows { values: &mut out[start * width + index * (width / heads)..], stride: width };
            let log_sums = HeadRows { values: &mut log_sums[start * heads + index..], stride: heads };
            forward(&head, memory, out, log_sums);
        }
    }

    fn backward(saved: &Saved, gradient: &Values) -> FlexTensor {
        let sequences = &saved.sequences;
        let heads = sequences.heads;
        let rows = saved.log_sums.len() / heads;
        let width = gradient.get().len() / rows.max(1);
        let (dim, stride) = (width / heads, 3 * width);
        let groups = Groups::new(sequences);
        let [values] = par_groups(&groups.ends, [stride], |first, [out]| {
            let out = write(out, |_| 0.0);
            let rows = out.len() / stride;
            let qkv = &saved.qkv.get()[first * stride..][..rows * stride];
            let gradient = Matrix::new(&gradient.get()[first * width..][..rows * width], width);
            let log_sums = &saved.log_sums[first * heads..][..rows * heads];
            let mut memory = short_backward::memory(dim);
            let mut scratch = [(); 2].map(|()| Scratch::new(groups.longest * groups.longest));
            for sequence in groups.starting_at(first) {
                let start = sequence.start;
                for index in 0..heads {
                    let head = head(qkv, &sequence, sequences, index, width);
                    let gradient = gradient.rows(start, sequence.rows).cols(index * dim, dim);
                    let log_sums = (&log_sums[start * heads + index..], heads);
                    let out = &mut out[start * stride + index * dim..];
                    let rows = HeadRows { values: &mut *out, stride };
                    if !short_backward(&head, gradient, log_sums, &mut memory, rows) {
                        let rows = HeadRows { values: out, stride };
                        backward::backward(&head, gradient, log_sums, &mut scratch, rows);
                    }
                }
            }
            [out]
        });
        flex_tensor(values, [rows, stride])
    }
}
