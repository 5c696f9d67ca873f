//! Both losses in Burn's own operations, for every device: no matrix is larger than a tile, and no tile enters the
//! autodiff graph. The gradients are computed beforehand and enter the graph as constants.

use std::ops::Range;

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};

use crate::contrastive::objective::{ColumnSums, Logits, LossRows, PairLoss};
use crate::portable::transfers::upload;

/// [`pair_loss`](crate::pair_loss), or its part of the rows that `rows` names, in Burn's own operations, whatever the
/// device. A tile holds at most `tile_logits` logits, but at least one row.
pub fn tiled_pair_loss(logits: Logits<'_>, loss: &PairLoss, rows: Option<&LossRows>, tile_logits: usize) -> Tensor<1> {
    let Logits { image_embeds, text_embeds, logit_scale, logit_bias } = logits;
    let first = rows.map_or(0, |rows| rows.first);
    let pass = Pass::new(logits, first, tile_logits);
    let (own, batch) = (pass.rows, pass.batch);
    assert!(if rows.is_some() { first + own <= batch } else { own == batch }, "rows of the embeddings of a batch");
    let columns = rows.and_then(|rows| rows.column_log_sums.clone());
    let outcome = match loss {
        PairLoss::Softmax { targets, masked } => {
            pass.with_targets(pass.softmax(masked, columns), within(targets, |target| target.0, pass.own_rows()))
        }
        PairLoss::Sigmoid { positives, masked } => {
            // log sigmoid(z) = log sigmoid(-z) + z: a match lowers the loss of a pair by its logit z.
            let share = (batch as f32).recip();
            let positives = within(positives, |pair| pair.0, pass.own_rows());
            let pairs = pass.own_rows().map(|pair| (pair, pair)).chain(positives.iter().copied());
            let targets: Vec<_> = pairs.map(|(row, column)| (row, column, share)).collect();
            pass.with_targets(pass.sigmoid(masked), &targets)
        }
    };
    let Some(Gradients { image, text, bias }) = outcome.gradients else { return outcome.loss };
    // The derivative by `logit_scale`: a logit without its bias is proportional to exp(logit_scale).
    let scale_gradient = (pass.image.clone() * image.clone()).sum();
    // Linear in every input, so its gradients are exactly the ones computed above; its value is subtracted again.
    let mut surrogate = (image_embeds.clone() * image).sum()
        + (text_embeds.clone() * text).sum()
        + logit_scale.clone() * scale_gradient;
    if let Some((tracked, gradient)) = logit_bias.zip(bias) {
        surrogate = surrogate + tracked.clone() * gradient;
    }
    let value = surrogate.clone().without_autodiff();
    surrogate - value + outcome.loss
}

/// [`column_sums`](crate::column_sums) in Burn's own operations, whatever the device.
pub(crate) fn tiled_column_sums(
    logits: Logits<'_>,
    masked: &[(usize, usize)],
    first: usize,
    tile_logits: usize,
) -> ColumnSums {
    Pass::new(logits, first, tile_logits).column_sums(masked)
}

/// [`tiled_column_sums`] of the cosines of image and text embeddings times `scale`.
pub(crate) fn tiled_column_sums_of(
    embeds: [&Tensor<2>; 2],
    scale: f64,
    masked: &[(usize, usize)],
    first: usize,
    tile_logits: usize,
) -> ColumnSums {
    let scale = Tensor::full([1], scale, &embeds[0].device().without_autodiff());
    Pass::untracked(embeds, scale, first, tile_logits).column_sums(masked)
}

/// The items of these rows of a slice sorted by `row`.
fn within<T>(sorted: &[T], row: impl Fn(&T) -> usize, rows: Range<usize>) -> &[T] {
    let start = sorted.partition_point(|item| row(item) < rows.start);
    let end = sorted.partition_point(|item| row(item) < rows.end);
    &sorted[start..end]
}

/// The loss and, if an input is tracked, its gradients.
struct Outcome {
    loss: Tensor<1>,
    gradients: Option<Gradients>,
}

/// Gradients of the embeddings, `[rows, dim]` and `[batch, dim]`, by cosine similarities until [`Pass::with_targets`]
/// multiplies them by the scale; and of the bias, `[1]`.
struct Gradients {
    image: Tensor<2>,
    text: Tensor<2>,
    bias: Option<Tensor<1>>,
}

/// The inputs, outside of the autodiff graph.
struct Pass {
    image: Tensor<2>,
    text: Tensor<2>,
    /// `exp(logit_scale)`.
    scale: Tensor<1>,
    bias: Option<Tensor<1>>,
    device: Device,
    /// The first row of the logits that this pass computes, and their number.
    first: usize,
    rows: usize,
    batch: usize,
    tile_rows: usize,
    /// Whether gradients are needed.
    tracked: bool,
}

impl Pass {
    fn new(logits: Logits<'_>, first: usize, tile_logits: usize) -> Self {
        let Logits { image_embeds, text_embeds, logit_scale, logit_bias } = logits;
        let scale = logit_scale.clone().without_autodiff().exp();
        Self {
            bias: logit_bias.map(|bias| bias.clone().without_autodiff()),
            tracked: [image_embeds.is_autodiff(), text_embeds.is_autodiff(), logit_scale.is_autodiff()].contains(&true)
                || logit_bias.is_some_and(Tensor::is_autodiff),
            ..Self::untracked([image_embeds, text_embeds], scale, first, tile_logits)
        }
    }

    fn untracked([image, text]: [&Tensor<2>; 2], scale: Tensor<1>, first: usize, tile_logits: usize) -> Self {
        let ([rows, _], [batch, _]) = (image.dims(), text.dims());
        let image = image.clone().without_autodiff();
        Self {
            text: text.clone().without_autodiff(),
            scale,
            bias: None,
            device: image.device(),
            image,
            first,
            rows,
            batch,
            tile_rows: (tile_logits / batch.max(1)).clamp(1, rows.max(1)),
            tracked: false,
        }
    }

    fn own_rows(&self) -> Range<usize> {
        self.first..self.first + self.rows
    }

    /// The rows of each tile.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (Range { start, end }, size) = (self.own_rows(), self.tile_rows);
        (start..end).step_by(size).map(move |first| first..end.min(first + size))
    }

    /// The place of rows among those of this pass.
    fn place(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start - self.first..rows.end - self.first
    }

    fn column_sums(&self, masked: &[(usize, usize)]) -> ColumnSums {
        let columns = ColumnSums::of_none(self.batch, &self.device);
        self.tiles().fold(columns, |columns, rows| columns.with_rows(&self.logits(&rows, masked)))
    }

    /// The logits of some rows, `[rows, batch]`; masked ones are minus infinity.
    fn logits(&self, rows: &Range<usize>, masked: &[(usize, usize)]) -> Tensor<2> {
        let images = self.image.clone().slice(self.place(rows));
        let mut logits = images.matmul(self.text.clone().transpose()) * self.scale.clone().unsqueeze();
        if let Some(bias) = &self.bias {
            logits = logits + bias.clone().unsqueeze();
        }
        let masked = within(masked, |&(row, _)| row, rows.clone());
        if masked.is_empty() {
            return logits;
        }
        let indices = masked.iter().map(|&(row, column)| (row - rows.start) * self.batch + column);
        let infinite = Tensor::full([masked.len()], f32::NEG_INFINITY, &self.device);
        let flat: Tensor<1> = logits.reshape([rows.len() * self.batch]);
        flat.select_assign(0, self.indices(indices), infinite, IndexingUpdateOp::Add).reshape([rows.len(), self.batch])
    }

    /// (mean log-sum-exp of the rows + mean log-sum-exp of the columns) / 2, without the targets. Of some rows, it is
    /// the share of their log-sum-exps and of those of the columns of the same numbers, which `given` has.
    fn softmax(&self, masked: &[(usize, usize)], given: Option<Tensor<2>>) -> Outcome {
        let mut whole = None;
        let columns = given.unwrap_or_else(|| {
            let mut columns = ColumnSums::of_none(self.batch, &self.device);
            for rows in self.tiles() {
                let logits = self.logits(&rows, masked);
                columns = columns.with_rows(&logits);
                // A single tile serves the gradient too; several are computed again.
                whole = (rows.len() == self.batch).then_some(logits);
            }
            columns.log_sums()
        });
        let share = 0.5 / self.batch as f64;
        let mut all_row_sums = Vec::new();
        let mut slopes = |rows: &Range<usize>| {
            let logits = whole.take().unwrap_or_else(|| self.logits(rows, masked));
            let top = logits.clone().max_dim(1);
            let row_sums = (logits.clone() - top.clone()).exp().sum_dim(1).log() + top;
            all_row_sums.push(row_sums.clone());
            self.tracked.then(|| {
                let over_texts = (logits.clone() - row_sums).exp();
                (over_texts + (logits - columns.clone()).exp()) * share
            })
        };
        let gradients = self.gradients(&mut slopes);
        let row_sums = Tensor::cat(all_row_sums, 0);
        let loss = if self.rows == self.batch {
            (row_sums.mean() + columns.mean()) * 0.5
        } else {
            (row_sums.sum() + columns.slice([0..1, self.own_rows()]).sum()) * share
        };
        Outcome { loss, gradients }
    }

    /// -sum(log sigmoid(-logit)) / batch, as if no pair matched.
    fn sigmoid(&self, masked: &[(usize, usize)]) -> Outcome {
        let share = 1.0 / self.batch as f64;
        let mut loss = Tensor::zeros([1], &self.device);
        let mut bias = Tensor::zeros([1], &self.device);
        let slopes = |rows: &Range<usize>| {
            let logits = self.logits(rows, masked);
            let losses = logits.clone().clamp_min(0.0) + logits.clone().abs().neg().exp().log1p();
            loss = loss.clone() + losses.sum() * share;
            let slopes = sigmoid(logits) * share;
            bias = bias.clone() + slopes.clone().sum();
            self.tracked.then_some(slopes)
        };
        let gradients = self.gradients(slopes);
        let gradients = gradients.map(|gradients| Gradients { bias: self.bias.is_some().then_some(bias), ..gradients });
        Outcome { loss, gradients }
    }

    /// The gradients of the embeddings, from `slopes`, the derivatives of the loss by the logits of a tile, `[rows,
    /// batch]`; `None`: no input is tracked.
    fn gradients(&self, mut slopes: impl FnMut(&Range<usize>) -> Option<Tensor<2>>) -> Option<Gradients> {
        let mut image = Vec::new();
        let mut text = self.text.zeros_like();
        for rows in self.tiles() {
            if let Some(slopes) = slopes(&rows) {
                image.push(slopes.clone().matmul(self.text.clone()));
                text = text + slopes.transpose().matmul(self.image.clone().slice(self.place(&rows)));
            }
        }
        self.tracked.then(|| Gradients { image: Tensor::cat(image, 0), text, bias: None })
    }

    /// Subtracts the weighted logits of the targets (row, column, weight) from the loss, and multiplies the gradients
    /// of the embeddings by the scale.
    ///
    /// The target of every pair is on the diagonal, where embeddings need not be gathered. There are few others, which
    /// are added one after the other on most devices.
    fn with_targets(&self, Outcome { mut loss, mut gradients }: Outcome, targets: &[(usize, usize, f32)]) -> Outcome {
        let (diagonal, others): (Vec<_>, Vec<_>) = targets.iter().partition(|(row, column, _)| row == column);
        let mut weights = vec![0.0; self.rows];
        diagonal.into_iter().for_each(|(row, _, weight)| weights[row - self.first] += weight);
        let weights = self.column(weights);
        let own = |text: &Tensor<2>| match self.rows == self.batch {
            true => text.clone(),
            false => text.clone().slice(self.own_rows()),
        };
        let (images, texts) = (self.image.clone() * weights.clone(), own(&self.text));
        loss = loss - self.logit_sum(&images, &texts, &weights);
        gradients = gradients.map(|Gradients { image, text, bias }| Gradients {
            image: image - texts * weights.clone(),
            text: match self.rows == self.batch {
                true => text - images,
                false => text.clone().slice_assign(self.own_rows(), own(&text) - images),
            },
            bias: bias.map(|bias| bias - weights.sum()),
        });
        for others in others.chunks(self.batch.max(1)) {
            let weights = self.column(others.iter().map(|&(.., weight)| weight).collect());
            let rows = self.indices(others.iter().map(|&(row, ..)| row - self.first));
            let columns = self.indices(others.iter().map(|&(_, column, _)| column));
            let images = self.image.clone().select(0, rows.clone()) * weights.clone();
            let texts = self.text.clone().select(0, columns.clone());
            loss = loss - self.logit_sum(&images, &texts, &weights);
            if let Some(Gradients { image, text, bias }) = &mut gradients {
                let add = IndexingUpdateOp::Add;
                *image = image.clone().select_assign(0, rows, (texts * weights.clone()).neg(), add);
                *text = text.clone().select_assign(0, columns, images.neg(), add);
                *bias = bias.take().map(|bias| bias - weights.sum());
            }
        }
        let scaled = |gradient: Tensor<2>| gradient * self.scale.clone().unsqueeze();
        let gradients = gradients.map(|Gradients { image, text, bias }| Gradients {
            image: scaled(image),
            text: scaled(text),
            bias,
        });
        Outcome { loss, gradients }
    }

    /// The sum of the logits of pairs of rows, `[1]`; the `images` are multiplied by the weights of the pairs, `[rows,
    /// 1]`.
    fn logit_sum(&self, images: &Tensor<2>, texts: &Tensor<2>, weights: &Tensor<2>) -> Tensor<1> {
        let sum = (images.clone() * texts.clone()).sum() * self.scale.clone();
        match &self.bias {
            Some(bias) => sum + weights.clone().sum() * bias.clone(),
            None => sum,
        }
    }

    /// `[values.len(), 1]`
    fn column(&self, values: Vec<f32>) -> Tensor<2> {
        let shape = [values.len(), 1];
        upload(TensorData::new(values, shape), &self.device)
    }

    fn indices(&self, indices: impl Iterator<Item = usize>) -> Tensor<1, Int> {
        let indices: Vec<i64> = indices.map(|index| index as i64).collect();
        let count = indices.len();
        upload(TensorData::new(indices, [count]), &self.device)
    }
}
