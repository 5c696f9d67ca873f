//! Softmax attention over packed sequences: no row is padding, and no matrix of probabilities is kept.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::DropoutMask;

/// How [`attention`] cuts its rows.
#[derive(Debug, Clone)]
pub struct Sequences {
    /// Rows of each sequence.
    pub lengths: Arc<[usize]>,
    /// Heads that the width is cut into.
    pub heads: usize,
    /// Whether a row sees only itself and those before it.
    pub causal: bool,
    /// Dropout of the probabilities. Places are counted in `[batch, heads, longest, longest]`.
    pub dropout: Option<DropoutMask>,
}

/// Whether this crate has kernels for the device of `x`.
pub fn has_kernel(x: &Tensor<2>) -> bool {
    #[cfg(feature = "flex")]
    return crate::record::is_fused(x);
    #[cfg(not(feature = "flex"))]
    {
        let _ = x;
        false
    }
}

/// Multi-head attention (Vaswani et al., 2017, sec. 3.2) of rows that hold query, key and value side by side:
/// `[rows, 3 * width]` to `[rows, width]`. `None` where this crate has no kernel for the device.
pub fn attention(qkv: &Tensor<2>, sequences: &Sequences) -> Option<Tensor<2>> {
    #[cfg(feature = "flex")]
    if crate::record::is_fused(qkv) {
        return fused::attention(qkv, sequences);
    }
    let _ = (qkv, sequences);
    None
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;

    use super::Sequences;
    use crate::buffer::{CHUNK_ROWS, Scratch, by_groups, write};
    use crate::product::{Matrix, product, product_into};
    use crate::record::{Input, Values, record, tensor};
    use crate::simd::{exp, largest, sum, vectorised};

    #[derive(Debug, Clone)]
    struct Kept {
        qkv: Values,
        /// Of every row and head: the logarithm of the sum that its probabilities were divided by, `[rows, heads]`.
        log_sums: Vec<f32>,
        sequences: Sequences,
    }

    /// One sequence within its group of sequences.
    struct Sequence {
        number: usize,
        /// Its first row, counted in the group.
        start: usize,
        rows: usize,
        /// Rows of the longest sequence of all.
        longest: usize,
    }

    pub fn attention(qkv: &Tensor<2>, sequences: &Sequences) -> Option<Tensor<2>> {
        let [rows, triple] = qkv.dims();
        let width = triple / 3;
        if sequences.lengths.iter().sum::<usize>() != rows {
            return None;
        }
        let forward = |[qkv]: &[Values; 1], _| {
            let groups = Groups::new(sequences);
            let [values, log_sums] = by_groups(&groups.ends, [width, sequences.heads], |first, [out, log_sums]| {
                let (out, log_sums) = (write(out, |_| 0.0), write(log_sums, |_| 0.0));
                let rows = out.len() / width;
                let qkv = &qkv.get()[first * triple..][..rows * triple];
                let mut scratch = Scratch::new(groups.longest * groups.longest);
                for sequence in groups.of(first) {
                    forward_sequence(qkv, &sequence, sequences, width, (&mut *out, &mut *log_sums), &mut scratch);
                }
                [out, log_sums]
            });
            (tensor(values, [rows, width]), Kept { qkv: qkv.clone(), log_sums, sequences: sequences.clone() })
        };
        Some(record([Input::of(qkv.clone())?], forward, |kept, gradient, _| [Some(backward(&kept, &gradient))]))
    }

    /// Sequences gathered so that a task has about as many rows as elsewhere.
    struct Groups {
        ends: Vec<usize>,
        longest: usize,
        /// First row, first sequence and past-the-last sequence of each group.
        members: Vec<(usize, std::ops::Range<usize>)>,
        lengths: std::sync::Arc<[usize]>,
    }

    impl Groups {
        fn new(sequences: &Sequences) -> Self {
            let lengths = std::sync::Arc::clone(&sequences.lengths);
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
            Self { ends, longest: lengths.iter().copied().max().unwrap_or(0), members, lengths }
        }

        fn of(&self, first_row: usize) -> impl Iterator<Item = Sequence> {
            let found = self.members.binary_search_by_key(&first_row, |(row, _)| *row).ok();
            let numbers = found.map_or(0..0, |group| self.members[group].1.clone());
            let mut start = 0;
            numbers.map(move |number| {
                let sequence = Sequence { number, start, rows: self.lengths[number], longest: self.longest };
                start += sequence.rows;
                sequence
            })
        }
    }

    /// Query, key and value of one head of a sequence, `[rows, dim]` each.
    fn head<'a>(qkv: &'a [f32], sequence: &Sequence, head: usize, width: usize, dim: usize) -> [Matrix<'a>; 3] {
        let rows = Matrix::new(qkv, 3 * width).rows(sequence.start, sequence.rows);
        [0, 1, 2].map(|part| rows.cols(part * width + head * dim, dim))
    }

    fn forward_sequence(
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
            let scores = product(query, key.t(), scratch.blank(rows * rows));
            let head = Head { sequence, sequences, number: n, scale };
            softmax(&mut *scores, &mut *log_sums, head);
            product_into(Matrix::new(scores, rows), value, &mut out[sequence.start * width + n * dim..], width, false);
        }
    }

    /// Which of the score matrices is at hand, and what its scores are multiplied by.
    struct Head<'a> {
        sequence: &'a Sequence,
        sequences: &'a Sequences,
        number: usize,
        scale: f32,
    }

    impl Head<'_> {
        /// How many keys a query sees.
        #[inline(always)]
        fn seen(&self, row: usize) -> usize {
            if self.sequences.causal { row + 1 } else { self.sequence.rows }
        }

        /// Where the sum of a query stands among those of its group.
        #[inline(always)]
        fn log_sum(&self, row: usize) -> usize {
            (self.sequence.start + row) * self.sequences.heads + self.number
        }

        /// The place of a query's first probability, as dropout counts.
        #[inline(always)]
        fn place(&self, row: usize) -> usize {
            let longest = self.sequence.longest;
            ((self.sequence.number * self.sequences.heads + self.number) * longest + row) * longest
        }
    }

    vectorised! {
        /// Turns scores into probabilities, with dropout.
        fn softmax(scores: &'a mut [f32], log_sums: &'a mut [f32], head: Head<'a>) {
            for (row, scores) in scores.chunks_exact_mut(head.sequence.rows).enumerate() {
                let seen = head.seen(row);
                let (scores, hidden) = scores.split_at_mut(seen);
                hidden.fill(0.0);
                let top = largest(scores, f32::NEG_INFINITY) * head.scale;
                scores.iter_mut().for_each(|score| *score = exp(score.mul_add(head.scale, -top)));
                let total = sum(seen, |i| scores[i]);
                let inverse = total.recip();
                match head.sequences.dropout {
                    None => scores.iter_mut().for_each(|score| *score *= inverse),
                    Some(mask) => {
                        let place = head.place(row);
                        scores.iter_mut().enumerate().for_each(|(i, score)| *score *= inverse * mask.factor(place + i));
                    }
                }
                log_sums[head.log_sum(row)] = top + total.ln();
            }
        }
    }

    vectorised! {
        /// Turns scores into probabilities with dropout, and the gradients of these into those of the scores.
        fn score_gradients(scores: &'a mut [f32], slopes: &'a mut [f32], log_sums: &'a [f32], head: Head<'a>) {
            let rows = head.sequence.rows;
            for (row, (scores, slopes)) in scores.chunks_exact_mut(rows).zip(slopes.chunks_exact_mut(rows)).enumerate() {
                let seen = head.seen(row);
                scores[seen..].fill(0.0);
                slopes[seen..].fill(0.0);
                let (probabilities, slopes) = (&mut scores[..seen], &mut slopes[..seen]);
                let log_sum = log_sums[head.log_sum(row)];
                probabilities.iter_mut().for_each(|p| *p = exp(p.mul_add(head.scale, -log_sum)));
                let place = head.place(row);
                if let Some(mask) = head.sequences.dropout {
                    slopes.iter_mut().enumerate().for_each(|(i, slope)| *slope *= mask.factor(place + i));
                }
                let mean = sum(seen, |i| probabilities[i] * slopes[i]);
                for (p, slope) in probabilities.iter_mut().zip(slopes) {
                    *slope = *p * (*slope - mean) * head.scale;
                }
                // The value's gradient takes the dropped probabilities, the score's took the whole ones.
                if let Some(mask) = head.sequences.dropout {
                    probabilities.iter_mut().enumerate().for_each(|(i, p)| *p *= mask.factor(place + i));
                }
            }
        }
    }

    fn backward(kept: &Kept, gradient: &Values) -> FlexTensor {
        let sequences = &kept.sequences;
        let rows = kept.log_sums.len() / sequences.heads;
        let width = gradient.get().len() / rows.max(1);
        let groups = Groups::new(sequences);
        let [values] = by_groups(&groups.ends, [3 * width], |first, [out]| {
            let out = write(out, |_| 0.0);
            let rows = out.len() / (3 * width);
            let of_group = Group {
                qkv: &kept.qkv.get()[first * 3 * width..][..rows * 3 * width],
                gradient: &gradient.get()[first * width..][..rows * width],
                log_sums: &kept.log_sums[first * sequences.heads..][..rows * sequences.heads],
                width,
            };
            let mut scratch = [(); 2].map(|()| Scratch::new(groups.longest * groups.longest));
            for sequence in groups.of(first) {
                backward_sequence(&of_group, &sequence, sequences, out, &mut scratch);
            }
            [out]
        });
        tensor(values, [rows, 3 * width])
    }

    /// What the gradient of a group is made from.
    struct Group<'a> {
        qkv: &'a [f32],
        gradient: &'a [f32],
        log_sums: &'a [f32],
        width: usize,
    }

    /// With P the probabilities, D their dropout, and G the gradient of the output (Dao et al., 2022, app. B.4, with dropout):
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
        let [first, second] = scratch;
        for n in 0..heads {
            let [query, key, value] = head(qkv, sequence, n, width, dim);
            let gradient = Matrix::new(gradient, width).rows(sequence.start, rows).cols(n * dim, dim);
            let probabilities = product(query, key.t(), first.blank(rows * rows));
            let slopes = product(gradient, value.t(), second.blank(rows * rows));
            let out = &mut out[sequence.start * stride + n * dim..];
            let head = Head { sequence, sequences, number: n, scale };
            score_gradients(&mut *probabilities, &mut *slopes, log_sums, head);
            let (probabilities, slopes) = (Matrix::new(probabilities, rows), Matrix::new(slopes, rows));
            product_into(slopes, key, out, stride, false);
            product_into(slopes.t(), query, &mut out[width..], stride, false);
            product_into(probabilities.t(), gradient, &mut out[2 * width..], stride, false);
        }
    }
}
