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
    use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
    use crate::cpu::chunks::CHUNK_ROWS;
    use crate::cpu::gemm::{Matrix, matmul, matmul_into};
    use crate::cpu::simd::{exp, max, sum, vectorised};
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
                let mut scratch = Scratch::new(groups.longest * groups.longest);
                for sequence in groups.starting_at(first) {
                    forward_sequence(qkv, &sequence, sequences, width, (&mut *out, &mut *log_sums), &mut scratch);
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

    /// Query, key and value of one head of a sequence, `[rows, dim]` each; `qkv` holds the rows of the group.
    pub fn head<'a>(qkv: &'a [f32], sequence: &Sequence, head: usize, width: usize, dim: usize) -> [Matrix<'a>; 3] {
        let rows = Matrix::new(qkv, 3 * width).rows(sequence.start, sequence.rows);
        [0, 1, 2].map(|part| rows.cols(part * width + head * dim, dim))
    }

    pub fn forward_sequence(
        qkv: &[f32],
        sequence: &Sequence,
        sequences: &Sequences,
        width: usize,
        (out, log_sums): (&mut [f32], &mut [f32]),
        scratch: &mut Scratch,
    ) {
        let (heads, rows) = (sequences.heads, sequence.rows);
        let dim = width / heads;
        let scale = (dim as f32).sqrt().recip();
        for n in 0..heads {
            let [query, key, value] = head(qkv, sequence, n, width, dim);
            let scores = matmul(query, key.t(), scratch.uninit(rows * rows));
            let head = Head { sequence, sequences, index: n, scale };
            softmax(&mut *scores, rows, &mut *log_sums, head);
            matmul_into(Matrix::new(scores, rows), value, &mut out[sequence.start * width + n * dim..], width);
        }
    }

    /// One head of one sequence, whose scores are a matrix `[rows, rows]`.
    pub struct Head<'a> {
        pub sequence: &'a Sequence,
        pub sequences: &'a Sequences,
        pub index: usize,
        /// `1 / sqrt(dim)`.
        pub scale: f32,
    }

    impl Head<'_> {
        /// Number of keys that the query of a row attends to.
        #[inline(always)]
        fn num_keys(&self, row: usize) -> usize {
            if self.sequences.causal { row + 1 } else { self.sequence.rows }
        }

        /// Index of a row's log-sum-exp within the group.
        #[inline(always)]
        fn log_sum_index(&self, row: usize) -> usize {
            (self.sequence.start + row) * self.sequences.heads + self.index
        }

        /// Dropout position of a row's first probability.
        #[inline(always)]
        fn dropout_position(&self, row: usize) -> u64 {
            let longest = self.sequence.longest as u64;
            let matrix = self.sequence.index as u64 * self.sequences.heads as u64 + self.index as u64;
            (matrix * longest + row as u64) * longest
        }
    }

    vectorised! {
        /// Replaces scores by probabilities with dropout, and writes their log-sum-exp. Rows are `distance` values
        /// apart, of which those after the keys become 0.
        pub fn softmax(scores: &'a mut [f32], distance: usize, log_sums: &'a mut [f32], head: Head<'a>) {
            for (row, scores) in scores.chunks_exact_mut(distance).take(head.sequence.rows).enumerate() {
                let num_keys = head.num_keys(row);
                let (scores, hidden) = scores.split_at_mut(num_keys);
                hidden.fill(0.0);
                let top = max(scores, f32::NEG_INFINITY) * head.scale;
                scores.iter_mut().for_each(|score| *score = exp(score.mul_add(head.scale, -top)));
                let total = sum(num_keys, |i| scores[i]);
                let inverse = total.recip();
                match head.sequences.dropout {
                    None => scores.iter_mut().for_each(|score| *score *= inverse),
                    Some(mask) => {
                        let mask = mask.starting_at(head.dropout_position(row));
                        for (i, score) in scores.iter_mut().enumerate() {
                            *score *= inverse * mask.factor(i);
                        }
                    }
                }
                log_sums[head.log_sum_index(row)] = top + total.ln();
            }
        }
    }

    vectorised! {
        /// Replaces scores by probabilities with dropout, and `slopes`, the gradient of the probabilities, by the
        /// gradient of the scores.
        fn score_gradients(scores: &'a mut [f32], slopes: &'a mut [f32], log_sums: &'a [f32], head: Head<'a>) {
            let rows = head.sequence.rows;
            let matrices = scores.chunks_exact_mut(rows).zip(slopes.chunks_exact_mut(rows));
            for (row, (scores, slopes)) in matrices.enumerate() {
                let num_keys = head.num_keys(row);
                scores[num_keys..].fill(0.0);
                slopes[num_keys..].fill(0.0);
                let (probabilities, slopes) = (&mut scores[..num_keys], &mut slopes[..num_keys]);
                let log_sum = log_sums[head.log_sum_index(row)];
                probabilities.iter_mut().for_each(|p| *p = exp(p.mul_add(head.scale, -log_sum)));
                let mask = head.sequences.dropout.map(|mask| mask.starting_at(head.dropout_position(row)));
                if let Some(mask) = mask {
                    slopes.iter_mut().enumerate().for_each(|(i, slope)| *slope *= mask.factor(i));
                }
                let mean = sum(num_keys, |i| probabilities[i] * slopes[i]);
                for (p, slope) in probabilities.iter_mut().zip(slopes) {
                    *slope = *p * (*slope - mean) * head.scale;
                }
                // The gradient of the values needs the probabilities after dropout, that of the scores those before it.
                if let Some(mask) = mask {
                    probabilities.iter_mut().enumerate().for_each(|(i, p)| *p *= mask.factor(i));
                }
            }
        }
    }

    fn backward(saved: &Saved, gradient: &Values) -> FlexTensor {
        let sequences = &saved.sequences;
        let rows = saved.log_sums.len() / sequences.heads;
        let width = gradient.get().len() / rows.max(1);
        let groups = Groups::new(sequences);
        let [values] = par_groups(&groups.ends, [3 * width], |first, [out]| {
            let out = write(out, |_| 0.0);
            let rows = out.len() / (3 * width);
            let group = Group {
                qkv: &saved.qkv.get()[first * 3 * width..][..rows * 3 * width],
                gradient: &gradient.get()[first * width..][..rows * width],
                log_sums: &saved.log_sums[first * sequences.heads..][..rows * sequences.heads],
                width,
            };
            let mut scratch = [(); 2].map(|()| Scratch::new(groups.longest * groups.longest));
            for sequence in groups.starting_at(first) {
                backward_sequence(&group, &sequence, sequences, out, &mut scratch);
            }
            [out]
        });
        flex_tensor(values, [rows, 3 * width])
    }

    /// The rows of one group that its gradient is computed from.
    struct Group<'a> {
        qkv: &'a [f32],
        gradient: &'a [f32],
        log_sums: &'a [f32],
        width: usize,
    }

    /// Writes the gradient of a sequence to `out`, the rows `[rows, 3 * width]` of its group.
    ///
    /// With P the probabilities, D their dropout, and G the gradient of the output (Dao et al., 2022, arXiv:2205.14135,
    /// app. B.4, with dropout):
    /// dV = (D P)^T G; dP = D (G V^T); dS = P (dP - rowsum(P dP)); dQ = dS K / sqrt(dim); dK = dS^T Q / sqrt(dim).
    fn backward_sequence(
        group: &Group<'_>,
        sequence: &Sequence,
        sequences: &Sequences,
        out: &mut [f32],
        scratch: &mut [Scratch; 2],
    ) {
        let Group { qkv, gradient, log_sums, width } = *group;
        let (heads, rows) = (sequences.heads, sequence.rows);
        let (dim, stride) = (width / heads, 3 * width);
        let scale = (dim as f32).sqrt().recip();
        let [for_scores, for_slopes] = scratch;
        for n in 0..heads {
            let [query, key, value] = head(qkv, sequence, n, width, dim);
            let gradient = Matrix::new(gradient, width).rows(sequence.start, rows).cols(n * dim, dim);
            let probabilities = matmul(query, key.t(), for_scores.uninit(rows * rows));
            let slopes = matmul(gradient, value.t(), for_slopes.uninit(rows * rows));
            let out = &mut out[sequence.start * stride + n * dim..];
            let head = Head { sequence, sequences, index: n, scale };
            score_gradients(&mut *probabilities, &mut *slopes, log_sums, head);
            let (probabilities, slopes) = (Matrix::new(probabilities, rows), Matrix::new(slopes, rows));
            matmul_into(slopes, key, out, stride);
            matmul_into(slopes.t(), query, &mut out[width..], stride);
            matmul_into(probabilities.t(), gradient, &mut out[2 * width..], stride);
        }
    }
}
