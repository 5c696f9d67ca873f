//! Both losses on host memory: blocks of image rows, shared out to the cores, and the gradients made with the loss.

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::PairLoss;
use crate::buffer::by_rows;
use crate::linear::fused::optional;
use crate::product::{Matrix, product, product_into};
use crate::record::{Input, Values, record, tensor};
use crate::simd::{LANES, exp, largest, log_1_plus, sum, vectorised};

/// Rows of the texts' gradient that one task makes.
const TASK_ROWS: usize = 128;

/// Columns that one task works on where columns are summed.
const TASK_COLUMNS: usize = 512;

pub fn pair_loss(
    (image_embeds, text_embeds): (&Tensor<2>, &Tensor<2>),
    logit_scale: &Tensor<1>,
    logit_bias: Option<&Tensor<1>>,
    loss: &PairLoss,
    block_logits: usize,
) -> Option<Tensor<1>> {
    let [batch, dim] = image_embeds.dims();
    let inputs = [
        Input::of(image_embeds.clone())?,
        Input::of(text_embeds.clone())?,
        Input::of(logit_scale.clone())?,
        optional(logit_bias)?,
    ];
    let biased = logit_bias.is_some();
    let forward = |[image, text, scale, bias]: &[Values; 4], tracked: bool| {
        let first = |values: &Values| values.get().first().copied().unwrap_or(0.0);
        let pass = Pass {
            image: Matrix::new(image.get(), dim),
            text: Matrix::new(text.get(), dim),
            scale: first(scale).exp(),
            bias: if biased { first(bias) } else { 0.0 },
            batch,
            dim,
            block_rows: (block_logits / batch.max(1)).clamp(1, batch),
            tracked,
        };
        let outcome = match loss {
            PairLoss::Softmax { targets, masked } => pass.softmax(targets, masked),
            PairLoss::Sigmoid { positives, masked } => pass.sigmoid(positives, masked),
        };
        (tensor(vec![outcome.loss as f32], [1]), outcome.gradients)
    };
    Some(record(inputs, forward, backward))
}

/// The loss, and its gradients where they are asked for.
struct Outcome {
    loss: f64,
    gradients: Gradients,
}

/// Of both embeddings, of the scale's logarithm and of the bias.
#[derive(Debug, Clone, Default)]
struct Gradients {
    image: Vec<f32>,
    text: Vec<f32>,
    scale: f32,
    bias: f32,
    shape: [usize; 2],
}

/// The gradients were made with the loss; only the output's own comes on top.
fn backward(gradients: Gradients, output: Values, needed: [bool; 4]) -> [Option<FlexTensor>; 4] {
    let factor = output.get().first().copied().unwrap_or(0.0);
    let Gradients { image, text, scale, bias, shape } = gradients;
    let times = |mut values: Vec<f32>| {
        if factor != 1.0 {
            values.par_iter_mut().for_each(|value| *value *= factor);
        }
        tensor(values, shape)
    };
    [
        needed[0].then(|| times(image)),
        needed[1].then(|| times(text)),
        needed[2].then(|| tensor(vec![scale * factor], [1])),
        needed[3].then(|| tensor(vec![bias * factor], [1])),
    ]
}

struct Pass<'a> {
    image: Matrix<'a>,
    text: Matrix<'a>,
    scale: f32,
    bias: f32,
    batch: usize,
    dim: usize,
    block_rows: usize,
    tracked: bool,
}

/// Rows of the matrix of logits.
struct Block {
    first: usize,
    rows: usize,
    logits: Vec<f32>,
}

impl Block {
    /// Puts the logits of `masked` at minus infinity.
    fn leave_out(&mut self, batch: usize, masked: &[(usize, usize)]) {
        for &(row, column) in within(masked, |pair| pair.0, self.first, self.rows) {
            self.logits[(row - self.first) * batch + column] = f32::NEG_INFINITY;
        }
    }
}

impl Pass<'_> {
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (batch, each) = (self.batch, self.block_rows);
        (0..batch.div_ceil(each)).map(move |block| (block * each, each.min(batch - block * each)))
    }

    /// The logits of some rows, those of `masked` at minus infinity.
    fn block(&self, first: usize, rows: usize, masked: &[(usize, usize)]) -> Block {
        let logits = by_rows(rows, self.batch, |start, out| {
            let out = product(self.image.rows(first + start, out.len() / self.batch), self.text.t(), out);
            multiply_add(out, self.scale, self.bias);
            out
        });
        let mut block = Block { first, rows, logits };
        block.leave_out(self.batch, masked);
        block
    }

    /// (mean logsumexp of the rows + mean logsumexp of the columns) / 2 - sum of the targets.
    fn softmax(&self, targets: &[(usize, usize, f32)], masked: &[(usize, usize)]) -> Outcome {
        let batch = self.batch;
        let (mut row_sums, mut columns) = (Vec::with_capacity(batch), Columns::new(batch));
        let (mut target_sum, mut whole) = (0.0, None);
        for (first, rows) in self.blocks() {
            let mut block = self.block(first, rows, &[]);
            let targets = within(targets, |target| target.0, first, rows).iter();
            target_sum += targets
                .map(|&(row, column, factor)| {
                    f64::from(factor) * f64::from(block.logits[(row - first) * batch + column])
                })
                .sum::<f64>();
            block.leave_out(batch, masked);
            row_sums.par_extend(block.logits.par_chunks(batch).map(row_log_sum));
            columns.add(&block.logits);
            // One block serves the gradient too; of several, each is computed again.
            whole = (rows == batch).then_some(block);
        }
        let column_sums = columns.log_sums();
        let mean = |sums: &[f32]| sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() / batch as f64;
        let loss = 0.5 * (mean(&row_sums) + mean(&column_sums)) - target_sum;
        if !self.tracked {
            return Outcome { loss, gradients: Gradients::default() };
        }
        let share = 0.5 / batch as f32;
        let slopes = |block: &mut Block| {
            let rows = block.logits.par_chunks_mut(batch).zip(&row_sums[block.first..]);
            let scale_slopes: Vec<f32> =
                rows.map(|(logits, row_sum)| softmax_slopes(logits, *row_sum, &column_sums, share)).collect();
            for &(row, column, factor) in within(targets, |target| target.0, block.first, block.rows) {
                block.logits[(row - block.first) * batch + column] -= factor;
            }
            scale_slopes.iter().map(|&slope| f64::from(slope)).sum()
        };
        let mut gradients = self.gradients(whole, masked, slopes);
        // The targets' part of the derivative by the logarithm of the scale: each logit's derivative is itself.
        gradients.scale -= target_sum as f32;
        Outcome { loss, gradients }
    }

    /// - sum of log sigmoid(sign * logit) / batch.
    fn sigmoid(&self, positives: &[(usize, usize)], masked: &[(usize, usize)]) -> Outcome {
        let batch = self.batch;
        let share = (batch as f32).recip();
        // The losses and, in the logits' place, their derivatives, as if no pair but the diagonal matched and none were
        // masked; the few others are set right after that.
        let slopes = |block: &mut Block| {
            let Block { first, rows, ref mut logits } = *block;
            let others = |pairs: &[(usize, usize)], logits: &[f32]| -> Vec<(usize, f32)> {
                let place = |&(row, column): &(usize, usize)| (row - first) * batch + column;
                within(pairs, |pair| pair.0, first, rows)
                    .iter()
                    .map(|pair| (place(pair), logits[place(pair)]))
                    .collect()
            };
            let matching = others(positives, logits);
            let (mut loss, mut scale, mut bias) = (0.0, 0.0, 0.0);
            let sums: Vec<[f32; 3]> = logits
                .par_chunks_mut(batch)
                .enumerate()
                .map(|(row, logits)| sigmoid_slopes(logits, first + row, share, self.bias))
                .collect();
            for [of_loss, of_scale, of_bias] in sums {
                loss += f64::from(of_loss);
                scale += f64::from(of_scale);
                bias += f64::from(of_bias);
            }
            for (place, logit) in matching {
                // log sigmoid(z) = log sigmoid(-z) + z, and the derivative falls by one.
                loss -= f64::from(logit * share);
                scale -= f64::from((logit - self.bias) * share);
                bias -= f64::from(share);
                logits[place] -= share;
            }
            (loss, scale, bias)
        };
        let (mut loss, mut bias) = (0.0, 0.0);
        let gradients = self.gradients(None, masked, |block| {
            let (of_loss, scale, of_bias) = slopes(block);
            loss += of_loss;
            bias += of_bias;
            scale
        });
        Outcome { loss, gradients: Gradients { bias: bias as f32, ..gradients } }
    }

    /// From the derivatives of the logits, which `slopes` puts in their place (giving that by the scale's logarithm), to the
    /// gradients of the embeddings. `whole` is the block of all rows, where it is at hand.
    fn gradients(
        &self,
        mut whole: Option<Block>,
        masked: &[(usize, usize)],
        mut slopes: impl FnMut(&mut Block) -> f64,
    ) -> Gradients {
        let (batch, dim) = (self.batch, self.dim);
        let (mut image, mut text) = (Vec::with_capacity(batch * dim), vec![0.0; batch * dim]);
        let mut scale = 0.0;
        for (first, rows) in self.blocks() {
            let mut block = whole.take().unwrap_or_else(|| self.block(first, rows, masked));
            scale += slopes(&mut block);
            if !self.tracked {
                continue;
            }
            let slopes = Matrix::new(&block.logits, batch);
            image.extend(by_rows(rows, dim, |start, out| {
                let out = product(slopes.rows(start, out.len() / dim), self.text, out);
                multiply_add(out, self.scale, 0.0);
                out
            }));
            let images = self.image.rows(first, rows);
            text.par_chunks_mut(TASK_ROWS * dim).enumerate().for_each(|(task, out)| {
                let slopes = slopes.cols(task * TASK_ROWS, out.len() / dim).t();
                product_into(slopes, images, out, dim, true);
            });
        }
        let by_scale = |values: &mut [f32]| multiply_add(values, self.scale, 0.0);
        text.par_chunks_mut(TASK_ROWS * dim).for_each(by_scale);
        Gradients { image, text, scale: scale as f32, bias: 0.0, shape: [batch, dim] }
    }
}

/// Maxima of the columns seen so far, and sums of exponentials relative to them.
struct Columns {
    largest: Vec<f32>,
    sums: Vec<f32>,
}

impl Columns {
    fn new(count: usize) -> Self {
        Self { largest: vec![f32::MIN; count], sums: vec![0.0; count] }
    }

    fn add(&mut self, logits: &[f32]) {
        let count = self.largest.len();
        let tasks = self.largest.par_chunks_mut(TASK_COLUMNS).zip(self.sums.par_chunks_mut(TASK_COLUMNS));
        tasks.enumerate().for_each(|(task, (largest, sums))| {
            let width = largest.len();
            column_sums(largest, sums, Matrix::new(logits, count).cols(task * TASK_COLUMNS, width));
        });
    }

    fn log_sums(&self) -> Vec<f32> {
        self.largest.iter().zip(&self.sums).map(|(largest, sum)| largest + sum.ln()).collect()
    }
}

/// What is sorted by `row` and has one among `rows` from `first` on.
fn within<T>(sorted: &[T], row: impl Fn(&T) -> usize, first: usize, rows: usize) -> &[T] {
    let from = sorted.partition_point(|item| row(item) < first);
    &sorted[from..sorted.partition_point(|item| row(item) < first + rows)]
}

vectorised! {
    fn multiply_add(values: &'a mut [f32], factor: f32, term: f32) {
        values.iter_mut().for_each(|value| *value = value.mul_add(factor, term));
    }
}

vectorised! {
    fn row_log_sum(logits: &'a [f32]) -> f32 {
        let top = largest(logits, f32::MIN);
        top + sum(logits.len(), |i| exp(logits[i] - top)).ln()
    }
}

vectorised! {
    fn column_sums(top: &'a mut [f32], sums: &'a mut [f32], logits: Matrix<'a>) {
        // As wide as some registers, so that maximum and sum stay in them from row to row.
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

vectorised! {
    /// Puts `share * (softmax over the row + softmax over the column)` in place of each logit; gives the sum of the
    /// products of the two.
    fn softmax_slopes(logits: &'a mut [f32], row_sum: f32, column_sums: &'a [f32], share: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        for (logits, column_sums) in logits.chunks_mut(LANES).zip(column_sums.chunks(LANES)) {
            for ((logit, column_sum), lane) in logits.iter_mut().zip(column_sums).zip(&mut lanes) {
                let slope = share * (exp(*logit - row_sum) + exp(*logit - column_sum));
                // A masked logit counts as nothing.
                let masked = *logit == f32::NEG_INFINITY;
                *lane += if masked { 0.0 } else { slope * *logit };
                *logit = if masked { 0.0 } else { slope };
            }
        }
        lanes.into_iter().sum()
    }
}

vectorised! {
    /// Puts the derivative by it in place of each logit; gives the loss, and its derivatives by the scale's logarithm and
    /// by the bias.
    fn sigmoid_slopes(logits: &'a mut [f32], diagonal: usize, share: f32, bias: f32) -> [f32; 3] {
        let (mut losses, mut scales, mut biases) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for (chunk, logits) in logits.chunks_mut(LANES).enumerate() {
            for (lane, logit) in logits.iter_mut().enumerate() {
                let (z, masked) = (*logit, *logit == f32::NEG_INFINITY);
                let target = if chunk * LANES + lane == diagonal { 1.0 } else { 0.0 };
                // - log sigmoid(-z) = max(z, 0) + log(1 + e^-|z|)
                let small = exp(-z.abs());
                let loss = share * (z.max(0.0) + log_1_plus(small) - target * z);
                let chance = if z > 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) };
                let slope = share * (chance - target);
                losses[lane] += if masked { 0.0 } else { loss };
                scales[lane] += if masked { 0.0 } else { slope * (z - bias) };
                biases[lane] += if masked { 0.0 } else { slope };
                *logit = if masked { 0.0 } else { slope };
            }
        }
        [losses, scales, biases].map(|lanes| lanes.into_iter().sum())
    }
}
