//! Both losses over slices: the blocks of a tile are spread over all cores, and the gradients are computed with the
//! loss. A pass computes all rows of the logits, or some of them.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::contrastive::blocks::{EmbedGradients, Factors, LogitBlock, LogitRows, SUM_ROWS, Tiles, add_lanes, padded};
use crate::contrastive::log_sums::{Columns, within};
use crate::contrastive::objective::{ColumnSums, Logits, LossRows, PairLoss};
use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
use crate::cpu::gemm::Matrix;
use crate::cpu::product::tile::PANEL;
use crate::cpu::simd::{exp, ln_1p, vectorised};

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
            factors: Factors {
                image: Matrix::new(image.get(), dim),
                text: Matrix::new(text.get(), dim),
                scale: value(scale).exp(),
                bias: if has_bias { value(bias) } else { 0.0 },
            },
            first,
            rows: own,
            batch,
            tiles: Tiles::new(own, batch, tile_logits),
            tracked,
        };
        let outcome = match loss {
            PairLoss::Softmax { targets, masked } => pass.softmax(targets, masked, columns.as_ref().map(Values::get)),
            PairLoss::Sigmoid { positives, masked } => pass.sigmoid(positives, masked),
        };
        (flex_tensor(vec![outcome.loss as f32], [1]), Gradients { dim, ..outcome.gradients })
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
    let ([rows, dim], [batch, width]) = (image_embeds.dims(), text_embeds.dims());
    assert_eq!(width, dim, "width of the text embeddings of a batch");
    let (image, text) = (Values::untracked(image_embeds)?, Values::untracked(text_embeds)?);
    let pass = Pass {
        factors: Factors { image: Matrix::new(image.get(), dim), text: Matrix::new(text.get(), dim), scale, bias },
        first,
        rows,
        batch,
        tiles: Tiles::new(rows, batch, tile_logits),
        tracked: false,
    };
    let (logits, mut columns) = (pass.logits(), Columns::new(batch));
    for images in pass.tiles.images() {
        columns.add(&pass.tile(&logits, images, &[], masked, LogitBlock::columns).1);
    }
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
    factors: Factors<'a>,
    /// The first row of the logits that this pass computes, and their number.
    first: usize,
    rows: usize,
    batch: usize,
    tiles: Tiles,
    /// Whether gradients are needed.
    tracked: bool,
}

/// Rows of the logits that are in memory at once.
struct Tile {
    blocks: Vec<LogitBlock>,
    /// The weighted sum of the target logits.
    target_sum: f64,
}

impl<'a> Pass<'a> {
    fn logits(&self) -> LogitRows<'a> {
        LogitRows::new(self.factors, self.batch, self.first, f32::NEG_INFINITY)
    }

    /// The logits of some images; masked ones are minus infinity, after those of targets have been added up. `then` is
    /// called with each block.
    fn tile<T: Send>(
        &self,
        logits: &LogitRows<'_>,
        images: Range<usize>,
        targets: &[(usize, usize, f32)],
        masked: &[(usize, usize)],
        then: impl Fn(&LogitBlock) -> T + Sync,
    ) -> (Tile, Vec<T>) {
        let (blocks, results) = logits.blocks(images, |block| {
            let targets = within(targets, |&(row, ..)| row, block.first, block.rows).iter();
            let target_sum: f64 =
                targets.map(|&(row, column, factor)| f64::from(factor) * f64::from(*block.at(row, column))).sum();
            block.mask(masked);
            (target_sum, then(block))
        });
        let (target_sums, results): (Vec<f64>, _) = results.into_iter().unzip();
        (Tile { blocks, target_sum: target_sums.into_iter().sum() }, results)
    }

    /// (mean log-sum-exp of the rows + mean log-sum-exp of the columns) / 2 - weighted sum of the target logits.
    ///
    /// Of some rows, it is their share in the sums: their log-sum-exps, their targets, and the `given` log-sum-exps of
    /// the columns of the same numbers. `given` are those over all rows.
    fn softmax(&self, targets: &[(usize, usize, f32)], masked: &[(usize, usize)], given: Option<&[f32]>) -> Outcome {
        let batch = self.batch;
        let (logits, mut whole) = (self.logits(), None);
        let columns = given.map_or_else(
            || {
                let mut columns = Columns::new(batch);
                for images in self.tiles.images() {
                    let (tile, of_blocks) = self.tile(&logits, images, targets, masked, LogitBlock::columns);
                    columns.add(&of_blocks);
                    // A single tile serves the gradient too; several are computed again.
                    whole = self.tiles.is_one().then_some(tile);
                }
                columns.log_sums()
            },
            <[f32]>::to_vec,
        );
        let share = 0.5 / batch as f32;
        let padded = padded(&columns, batch);
        let slopes = |block: &mut LogitBlock| {
            let row_sums = block.row_log_sums();
            if !self.tracked {
                return (row_sums, 0.0);
            }
            let scale = softmax_slopes(&mut block.values, &row_sums, &padded, share);
            for &(row, column, factor) in within(targets, |&(row, ..)| row, block.first, block.rows) {
                *block.at(row, column) -= factor;
            }
            (row_sums, scale)
        };
        let (mut row_sums, mut target_sum, mut scale) = (Vec::with_capacity(self.rows), 0.0, 0.0);
        let tile = |images| self.tile(&logits, images, targets, masked, |_| ()).0;
        let gradients = self.gradients(whole, tile, slopes, |tile_targets, of_blocks| {
            target_sum += tile_targets;
            for (of_rows, of_scale) in of_blocks {
                row_sums.extend(of_rows);
                scale += of_scale;
            }
        });
        let mean = |sums: &[f32]| sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() / batch as f64;
        let own_columns = &columns[self.first..self.first + self.rows];
        Outcome {
            loss: 0.5 * (mean(&row_sums) + mean(own_columns)) - target_sum,
            // The derivative of a logit by `logit_scale` is the logit itself.
            gradients: Gradients { logit_scale: (scale - target_sum) as f32, ..gradients },
        }
    }

    /// -sum(log sigmoid(sign * logit)) / batch.
    fn sigmoid(&self, positives: &[(usize, usize)], masked: &[(usize, usize)]) -> Outcome {
        let (logits, share) = (self.logits(), (self.batch as f32).recip());
        // Computes the losses and replaces logits by derivatives as if only the diagonal matched; then corrects the few
        // other pairs that match.
        let slopes = |block: &mut LogitBlock| {
            let positives = within(positives, |&(row, _)| row, block.first, block.rows);
            let before: Vec<f32> = positives.iter().map(|&(row, column)| *block.at(row, column)).collect();
            let [mut loss, mut scale, mut bias] =
                sigmoid_slopes(&mut block.values, block.rows, block.first, share, self.factors.bias);
            for (&(row, column), logit) in positives.iter().zip(before) {
                // log sigmoid(z) = log sigmoid(-z) + z, and the derivative falls by one.
                loss -= f64::from(logit * share);
                scale -= f64::from((logit - self.factors.bias) * share);
                bias -= f64::from(share);
                *block.at(row, column) -= share;
            }
            [loss, scale, bias]
        };
        let mut sums = [0.0; 3];
        let tile = |images| self.tile(&logits, images, &[], masked, |_| ()).0;
        let gradients = self.gradients(None, tile, slopes, |_, of_blocks| {
            for of_block in of_blocks {
                sums.iter_mut().zip(of_block).for_each(|(sum, of_block)| *sum += of_block);
            }
        });
        let [loss, scale, bias] = sums;
        Outcome { loss, gradients: Gradients { logit_scale: scale as f32, bias: bias as f32, ..gradients } }
    }

    /// The gradients of the embeddings, tile by tile; those of `logit_scale` and `logit_bias` are left to the caller.
    ///
    /// `slopes` replaces the logits of a block by the derivatives of the loss; `add` gets what it returned for the
    /// blocks of a tile, and the weighted sum of the tile's target logits. `whole` is the tile of all rows if it is in
    /// memory already; `tile` computes others.
    fn gradients<T: Send>(
        &self,
        mut whole: Option<Tile>,
        tile: impl Fn(Range<usize>) -> Tile,
        slopes: impl Fn(&mut LogitBlock) -> T + Sync,
        mut add: impl FnMut(f64, Vec<T>),
    ) -> Gradients {
        // Without gradients, none of their memory is needed.
        let mut embeds = self.tracked.then(|| EmbedGradients::new(self.factors));
        for images in self.tiles.images() {
            let Tile { mut blocks, target_sum } = whole.take().unwrap_or_else(|| tile(images));
            add(target_sum, blocks.par_iter_mut().map(&slopes).collect());
            if let Some(embeds) = &mut embeds {
                embeds.add(&blocks);
            }
        }
        let [image, text] = embeds.map_or_else(Default::default, |embeds| embeds.finish(self.factors.scale));
        Gradients { image, text, ..Gradients::default() }
    }
}

vectorised! {
    /// Replaces each logit of a block by its derivative, `share * (softmax over the row + softmax over the column)`;
    /// returns the sum of logits times derivatives.
    fn softmax_slopes(block: &'a mut [f32], row_sums: &'a [f32], column_sums: &'a [f32], share: f32) -> f64 {
        let mut totals = [0.0];
        let panels = block.chunks_exact_mut((row_sums.len() * PANEL).max(1));
        for (panel, column_sums) in panels.zip(column_sums.as_chunks::<PANEL>().0) {
            let rows = panel.as_chunks_mut::<PANEL>().0;
            for (rows, row_sums) in rows.chunks_mut(SUM_ROWS).zip(row_sums.chunks(SUM_ROWS)) {
                let mut lanes = [[0.0; PANEL]];
                for (logits, row_sum) in rows.iter_mut().zip(row_sums) {
                    softmax_row(logits, *row_sum, column_sums, share, &mut lanes[0]);
                }
                add_lanes(&mut totals, lanes);
            }
        }
        totals[0]
    }
}

/// As [`softmax_slopes`] in the columns of a panel; adds logits times derivatives to `products`.
#[inline(always)]
fn softmax_row(
    logits: &mut [f32; PANEL],
    row_sum: f32,
    column_sums: &[f32; PANEL],
    share: f32,
    products: &mut [f32; PANEL],
) {
    for ((logit, column_sum), product) in logits.iter_mut().zip(column_sums).zip(products) {
        let slope = share * (exp(*logit - row_sum) + exp(*logit - column_sum));
        let masked = *logit == f32::NEG_INFINITY;
        *product += if masked { 0.0 } else { slope * *logit };
        *logit = if masked { 0.0 } else { slope };
    }
}

vectorised! {
    /// Replaces each logit of a block by its derivative; returns the loss and its derivatives by `logit_scale` and
    /// `logit_bias`. `first` is the column of the pair that matches the first row.
    fn sigmoid_slopes(block: &'a mut [f32], rows: usize, first: usize, share: f32, bias: f32) -> [f64; 3] {
        let mut totals = [0.0; 3];
        for (panel_index, panel) in block.chunks_exact_mut((rows * PANEL).max(1)).enumerate() {
            let mut diagonal = first.wrapping_sub(panel_index * PANEL);
            for rows in panel.as_chunks_mut::<PANEL>().0.chunks_mut(SUM_ROWS) {
                let mut lanes = [[0.0; PANEL]; 3];
                for logits in rows {
                    sigmoid_row(logits, diagonal, share, bias, &mut lanes);
                    diagonal = diagonal.wrapping_add(1);
                }
                add_lanes(&mut totals, lanes);
            }
        }
        totals
    }
}

/// As [`sigmoid_slopes`] in the columns of a panel; adds to the sums. The row matches the column `diagonal`; if that
/// pair is in another panel, there is no such column.
#[inline(always)]
fn sigmoid_row(
    logits: &mut [f32; PANEL],
    diagonal: usize,
    share: f32,
    bias: f32,
    [losses, scales, biases]: &mut [[f32; PANEL]; 3],
) {
    for (lane, logit) in logits.iter_mut().enumerate() {
        let (z, masked) = (*logit, *logit == f32::NEG_INFINITY);
        let target = if lane == diagonal { 1.0 } else { 0.0 };
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
