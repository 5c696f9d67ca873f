//! Both losses over slices: the rows of a tile are spread over all cores, and the gradients are computed with the loss.
//! A pass computes all rows of the logits, or some of them.

use std::borrow::Cow;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::contrastive::log_sums::{Columns, multiply_add, row_log_sum, within};
use crate::contrastive::objective::{ColumnSums, Logits, LossRows, PairLoss};
use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
use crate::cpu::gemm::{Matrix, matmul, matmul_add};
use crate::cpu::simd::{LANES, exp, ln_1p, vectorised};
use crate::cpu::uninit::par_rows;

/// Rows per task of the gradient of the text embeddings.
const TASK_ROWS: usize = 128;

/// [`pair_loss`](crate::pair_loss), or its part of the rows that `rows` names, in tiles of at most `tile_logits`
/// logits, but at least one row. `None` if an input is not for the fused operations.
pub fn pair_loss(
    Logits { image_embeds, text_embeds, logit_scale, logit_bias }: Logits<'_>,
    loss: &PairLoss,
    rows: Option<&LossRows>,
    tile_logits: usize,
) -> Option<Tensor<1>> {
    let ([own, dim], [batch, width]) = (image_embeds.dims(), text_embeds.dims());
    let inputs = [
        Input::new(image_embeds.clone())?,
        Input::new(text_embeds.clone())?,
        Input::new(logit_scale.clone())?,
        Input::optional(logit_bias)?,
    ];
    let first = rows.map_or(0, |rows| rows.first);
    let is_whole = rows.is_none() && own == batch;
    let is_part = rows.is_some() && first + own <= batch;
    assert!(width == dim && (is_whole || is_part), "shape of the text embeddings of a batch");
    assert_eq!(logit_scale.dims(), [1], "shape of the logit scale");
    assert!(logit_bias.is_none_or(|bias| bias.dims() == [1]), "shape of the logit bias");
    let columns = values_if(rows.and_then(|rows| rows.column_log_sums.as_ref()))?;
    let has_bias = logit_bias.is_some();
    let forward = |[image, text, scale, bias]: &[Values; 4], tracked: bool| {
        let value = |values: &Values| values.get()[0];
        let pass = Pass {
            image: Matrix::new(image.get(), dim),
            text: Matrix::new(text.get(), dim),
            scale: value(scale).exp(),
            bias: if has_bias { value(bias) } else { 0.0 },
            first,
            rows: own,
            batch,
            dim,
            tile_rows: (tile_logits / batch.max(1)).clamp(1, own.max(1)),
            tracked,
        };
        let outcome = match loss {
            PairLoss::Softmax { targets, masked } => pass.softmax(targets, masked, columns.as_ref().map(Values::get)),
            PairLoss::Sigmoid { positives, masked } => pass.sigmoid(positives, masked),
        };
        (flex_tensor(vec![outcome.loss as f32], [1]), outcome.gradients)
    };
    Some(custom_op(inputs, forward, backward))
}

/// [`column_sums`](crate::column_sums) of rows from `first`, in tiles of at most `tile_logits` logits, but at least
/// one row. `None` if an input is not for the fused operations.
pub fn column_sums(
    Logits { image_embeds, text_embeds, logit_scale, logit_bias }: Logits<'_>,
    masked: &[(usize, usize)],
    first: usize,
    tile_logits: usize,
) -> Option<ColumnSums> {
    let (scale, bias) = (Values::untracked(logit_scale)?, values_if(logit_bias)?);
    let factors = [scale.get()[0].exp(), bias.map_or(0.0, |bias| bias.get()[0])];
    column_sums_of([image_embeds, text_embeds], factors, masked, first, tile_logits)
}

/// [`column_sums`] of the cosines of image and text embeddings times `scale`, plus `bias`.
pub(crate) fn column_sums_of(
    [image_embeds, text_embeds]: [&Tensor<2>; 2],
    [scale, bias]: [f32; 2],
    masked: &[(usize, usize)],
    first: usize,
    tile_logits: usize,
) -> Option<ColumnSums> {
    let ([rows, dim], [batch, _]) = (image_embeds.dims(), text_embeds.dims());
    let (image, text) = (Values::untracked(image_embeds)?, Values::untracked(text_embeds)?);
    let pass = Pass {
        image: Matrix::new(image.get(), dim),
        text: Matrix::new(text.get(), dim),
        scale,
        bias,
        first,
        rows,
        batch,
        dim,
        tile_rows: (tile_logits / batch.max(1)).clamp(1, rows.max(1)),
        tracked: false,
    };
    let mut columns = Columns::new(batch);
    pass.tiles().for_each(|(first, rows)| columns.add(&pass.tile(first, rows, &[], masked).logits));
    Some(columns.into_sums(&image_embeds.device().without_autodiff()))
}

/// As [`Values::untracked`], of a tensor that may be absent.
fn values_if<const D: usize>(tensor: Option<&Tensor<D>>) -> Option<Option<Values>> {
    match tensor {
        Some(tensor) => Values::untracked(tensor).map(Some),
        None => Some(None),
    }
}

/// The loss, and its gradients if an input is tracked.
struct Outcome {
    loss: f64,
    gradients: Gradients,
}

/// Gradients of both embeddings, of `logit_scale` and of `logit_bias`.
#[derive(Debug, Clone, Default)]
struct Gradients {
    image: Vec<f32>,
    text: Vec<f32>,
    logit_scale: f32,
    bias: f32,
    /// Width of the embeddings.
    dim: usize,
}

/// The forward pass has computed the gradients; here they are multiplied by the gradient of the loss.
fn backward(gradients: Gradients, output: Values, needed: [bool; 4]) -> [Option<FlexTensor>; 4] {
    let factor = output.get()[0];
    let Gradients { image, text, logit_scale, bias, dim } = gradients;
    let times = |mut values: Vec<f32>| {
        if factor != 1.0 {
            values.par_iter_mut().for_each(|value| *value *= factor);
        }
        let rows = values.len() / dim.max(1);
        flex_tensor(values, [rows, dim])
    };
    [
        needed[0].then(|| times(image)),
        needed[1].then(|| times(text)),
        needed[2].then(|| flex_tensor(vec![logit_scale * factor], [1])),
        needed[3].then(|| flex_tensor(vec![bias * factor], [1])),
    ]
}

struct Pass<'a> {
    /// `[rows, dim]`.
    image: Matrix<'a>,
    /// `[batch, dim]`.
    text: Matrix<'a>,
    /// `exp(logit_scale)`.
    scale: f32,
    bias: f32,
    /// The first row of the logits that this pass computes, and their number.
    first: usize,
    rows: usize,
    batch: usize,
    dim: usize,
    tile_rows: usize,
    /// Whether gradients are needed.
    tracked: bool,
}

/// Rows `first..first + rows` of the logits, `[rows, batch]`.
struct Tile {
    first: usize,
    rows: usize,
    logits: Vec<f32>,
    /// The weighted sum of the target logits.
    target_sum: f64,
}

impl Tile {
    /// Sets masked logits to minus infinity.
    fn mask(&mut self, batch: usize, masked: &[(usize, usize)]) {
        for &(row, column) in within(masked, |&(row, _)| row, self.first, self.rows) {
            self.logits[(row - self.first) * batch + column] = f32::NEG_INFINITY;
        }
    }
}

impl Pass<'_> {
    /// First row and number of rows of each tile.
    fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (first, rows, size) = (self.first, self.rows, self.tile_rows);
        (0..rows.div_ceil(size)).map(move |tile| (first + tile * size, size.min(rows - tile * size)))
    }

    /// The logits of rows `first..first + rows`; masked ones are minus infinity.
    fn tile(&self, first: usize, rows: usize, targets: &[(usize, usize, f32)], masked: &[(usize, usize)]) -> Tile {
        let logits = par_rows(rows, self.batch, |start, out| {
            let images = self.image.rows(first - self.first + start, out.len() / self.batch);
            let out = matmul(images, self.text.t(), out);
            multiply_add(out, self.scale, self.bias);
            out
        });
        let targets = within(targets, |&(row, ..)| row, first, rows).iter();
        let target_sum = targets
            .map(|&(row, column, factor)| f64::from(factor) * f64::from(logits[(row - first) * self.batch + column]))
            .sum();
        let mut tile = Tile { first, rows, logits, target_sum };
        tile.mask(self.batch, masked);
        tile
    }

    /// (mean log-sum-exp of the rows + mean log-sum-exp of the columns) / 2 - weighted sum of the target logits.
    ///
    /// Of some rows, it is their share in the sums: their log-sum-exps, their targets, and the `given` log-sum-exps of
    /// the columns of the same numbers. `given` are those over all rows.
    fn softmax(&self, targets: &[(usize, usize, f32)], masked: &[(usize, usize)], given: Option<&[f32]>) -> Outcome {
        let batch = self.batch;
        let mut whole = None;
        let columns = given.map_or_else(
            || {
                let mut columns = Columns::new(batch);
                for (first, rows) in self.tiles() {
                    let tile = self.tile(first, rows, targets, masked);
                    columns.add(&tile.logits);
                    // A single tile serves the gradient too; several are computed again.
                    whole = (rows == batch).then_some(tile);
                }
                Cow::Owned(columns.log_sums())
            },
            Cow::Borrowed,
        );
        let share = 0.5 / batch as f32;
        let (mut row_sums, mut target_sum) = (Vec::with_capacity(self.rows), 0.0);
        let slopes = |tile: &mut Tile| {
            target_sum += tile.target_sum;
            let before = row_sums.len();
            row_sums.par_extend(tile.logits.par_chunks(batch).map(row_log_sum));
            if !self.tracked {
                return 0.0;
            }
            let rows = tile.logits.par_chunks_mut(batch).zip(&row_sums[before..]);
            let scale_slopes: Vec<f32> =
                rows.map(|(logits, row_sum)| softmax_slopes(logits, *row_sum, &columns, share)).collect();
            for &(row, column, factor) in within(targets, |&(row, ..)| row, tile.first, tile.rows) {
                tile.logits[(row - tile.first) * batch + column] -= factor;
            }
            scale_slopes.iter().map(|&slope| f64::from(slope)).sum()
        };
        let mut gradients = self.gradients(whole, targets, masked, slopes);
        // The derivative of a logit by `logit_scale` is the logit itself.
        gradients.logit_scale -= target_sum as f32;
        let mean = |sums: &[f32]| sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() / batch as f64;
        let own_columns = &columns[self.first..self.first + self.rows];
        Outcome { loss: 0.5 * (mean(&row_sums) + mean(own_columns)) - target_sum, gradients }
    }

    /// -sum(log sigmoid(sign * logit)) / batch.
    fn sigmoid(&self, positives: &[(usize, usize)], masked: &[(usize, usize)]) -> Outcome {
        let batch = self.batch;
        let share = (batch as f32).recip();
        // Computes the losses and replaces logits by derivatives as if only the diagonal matched; then corrects the few
        // other pairs that match.
        let slopes = |tile: &mut Tile| {
            let Tile { first, rows, ref mut logits, .. } = *tile;
            let positives = within(positives, |&(row, _)| row, first, rows).iter();
            let positives: Vec<(usize, f32)> = positives
                .map(|&(row, column)| {
                    let index = (row - first) * batch + column;
                    (index, logits[index])
                })
                .collect();
            let (mut loss, mut scale, mut bias) = (0.0, 0.0, 0.0);
            let sums: Vec<[f32; 3]> = logits
                .par_chunks_mut(batch)
                .enumerate()
                .map(|(row, logits)| sigmoid_slopes(logits, first + row, share, self.bias))
                .collect();
            for [row_loss, row_scale, row_bias] in sums {
                loss += f64::from(row_loss);
                scale += f64::from(row_scale);
                bias += f64::from(row_bias);
            }
            for (index, logit) in positives {
                // log sigmoid(z) = log sigmoid(-z) + z, and the derivative falls by one.
                loss -= f64::from(logit * share);
                scale -= f64::from((logit - self.bias) * share);
                bias -= f64::from(share);
                logits[index] -= share;
            }
            (loss, scale, bias)
        };
        let (mut loss, mut bias) = (0.0, 0.0);
        let gradients = self.gradients(None, &[], masked, |tile| {
            let (tile_loss, scale, tile_bias) = slopes(tile);
            loss += tile_loss;
            bias += tile_bias;
            scale
        });
        Outcome { loss, gradients: Gradients { bias: bias as f32, ..gradients } }
    }

    /// The gradients of the embeddings and of `logit_scale`, tile by tile.
    ///
    /// `slopes` replaces the logits of a tile by the derivatives of the loss, and returns the derivative by
    /// `logit_scale`. `whole` is the tile of all rows if it is in memory already.
    fn gradients(
        &self,
        mut whole: Option<Tile>,
        targets: &[(usize, usize, f32)],
        masked: &[(usize, usize)],
        mut slopes: impl FnMut(&mut Tile) -> f64,
    ) -> Gradients {
        let (batch, dim) = (self.batch, self.dim);
        // Without gradients, none of their memory is needed.
        let count = if self.tracked { dim } else { 0 };
        let (mut image, mut text) = (Vec::with_capacity(self.rows * count), vec![0.0; batch * count]);
        let mut scale = 0.0;
        for (first, rows) in self.tiles() {
            let mut tile = whole.take().unwrap_or_else(|| self.tile(first, rows, targets, masked));
            scale += slopes(&mut tile);
            if !self.tracked {
                continue;
            }
            let slopes = Matrix::new(&tile.logits, batch);
            image.extend(par_rows(rows, dim, |start, out| {
                let out = matmul(slopes.rows(start, out.len() / dim), self.text, out);
                multiply_add(out, self.scale, 0.0);
                out
            }));
            let images = self.image.rows(first - self.first, rows);
            text.par_chunks_mut(TASK_ROWS * dim).enumerate().for_each(|(task, out)| {
                let slopes = slopes.cols(task * TASK_ROWS, out.len() / dim).t();
                matmul_add(slopes, images, out, dim);
            });
        }
        let by_scale = |values: &mut [f32]| multiply_add(values, self.scale, 0.0);
        text.par_chunks_mut(TASK_ROWS * dim).for_each(by_scale);
        Gradients { image, text, logit_scale: scale as f32, bias: 0.0, dim }
    }
}

vectorised! {
    /// Replaces each logit of a row by its derivative, `share * (softmax over the row + softmax over the column)`;
    /// returns the sum of logits times derivatives.
    fn softmax_slopes(logits: &'a mut [f32], row_sum: f32, column_sums: &'a [f32], share: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        for (logits, column_sums) in logits.chunks_mut(LANES).zip(column_sums.chunks(LANES)) {
            for ((logit, column_sum), lane) in logits.iter_mut().zip(column_sums).zip(&mut lanes) {
                let slope = share * (exp(*logit - row_sum) + exp(*logit - column_sum));
                let masked = *logit == f32::NEG_INFINITY;
                *lane += if masked { 0.0 } else { slope * *logit };
                *logit = if masked { 0.0 } else { slope };
            }
        }
        lanes.into_iter().sum()
    }
}

vectorised! {
    /// Replaces each logit of a row by its derivative; returns the loss and its derivatives by `logit_scale` and
    /// `logit_bias`. `diagonal` is the column of the matching pair.
    fn sigmoid_slopes(logits: &'a mut [f32], diagonal: usize, share: f32, bias: f32) -> [f32; 3] {
        let (mut losses, mut scales, mut biases) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for (chunk, logits) in logits.chunks_mut(LANES).enumerate() {
            for (lane, logit) in logits.iter_mut().enumerate() {
                let (z, masked) = (*logit, *logit == f32::NEG_INFINITY);
                let target = if chunk * LANES + lane == diagonal { 1.0 } else { 0.0 };
                // -log sigmoid(-z) = max(z, 0) + log(1 + e^-|z|)
                let small = exp(-z.abs());
                let loss = share * (z.max(0.0) + ln_1p(small) - target * z);
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
