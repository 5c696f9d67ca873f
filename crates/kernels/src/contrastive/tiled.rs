//! Both losses in Burn's own operations, for every device: no matrix is larger than a tile, and no tile enters the
//! autodiff graph. The gradients are computed beforehand and enter the graph as constants.

use std::ops::Range;

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};

use crate::contrastive::objective::PairLoss;
use crate::portable::transfers::upload;

/// [`pair_loss`](crate::pair_loss) in Burn's own operations, whatever the device.
///
/// `image_embeds` and `text_embeds` are `[batch, dim]` and L2-normalised; `logit_scale` and `logit_bias` are `[1]`. A
/// tile holds at most `tile_logits` logits, but at least one row.
pub fn tiled_pair_loss(
    (image_embeds, text_embeds): (&Tensor<2>, &Tensor<2>),
    logit_scale: &Tensor<1>,
    logit_bias: Option<&Tensor<1>>,
    loss: &PairLoss,
    tile_logits: usize,
) -> Tensor<1> {
    let [batch, _] = image_embeds.dims();
    let image = image_embeds.clone().without_autodiff();
    let pass = Pass {
        text: text_embeds.clone().without_autodiff(),
        scale: logit_scale.clone().without_autodiff().exp(),
        bias: logit_bias.map(|bias| bias.clone().without_autodiff()),
        device: image.device(),
        image,
        batch,
        tile_rows: (tile_logits / batch.max(1)).clamp(1, batch.max(1)),
        tracked: [image_embeds.is_autodiff(), text_embeds.is_autodiff(), logit_scale.is_autodiff()].contains(&true)
            || logit_bias.is_some_and(Tensor::is_autodiff),
    };
    let outcome = match loss {
        PairLoss::Softmax { targets, masked } => pass.with_targets(pass.softmax(masked), targets),
        PairLoss::Sigmoid { positives, masked } => {
            // log sigmoid(z) = log sigmoid(-z) + z: a match lowers the loss of a pair by its logit z.
            let share = (batch as f32).recip();
            let pairs = (0..batch).map(|pair| (pair, pair)).chain(positives.iter().copied());
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

/// The loss and, if an input is tracked, its gradients.
struct Outcome {
    loss: Tensor<1>,
    gradients: Option<Gradients>,
}

/// Gradients of the embeddings, `[batch, dim]`, with respect to cosine similarities until [`Pass::with_targets`]
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
    batch: usize,
    tile_rows: usize,
    /// Whether gradients are needed.
    tracked: bool,
}

impl Pass {
    /// The rows of each tile.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (batch, size) = (self.batch, self.tile_rows);
        (0..batch.div_ceil(size)).map(move |tile| tile * size..batch.min((tile + 1) * size))
    }

    /// The logits of some rows, `[rows, batch]`; masked ones are minus infinity.
    fn logits(&self, rows: &Range<usize>, masked: &[(usize, usize)]) -> Tensor<2> {
        let images = self.image.clone().slice(rows.clone());
        let mut logits = images.matmul(self.text.clone().transpose()) * self.scale.clone().unsqueeze();
        if let Some(bias) = &self.bias {
            logits = logits + bias.clone().unsqueeze();
        }
        let first = masked.partition_point(|&(row, _)| row < rows.start);
        let end = masked.partition_point(|&(row, _)| row < rows.end);
        let masked = &masked[first..end];
        if masked.is_empty() {
            return logits;
        }
        let indices = masked.iter().map(|&(row, column)| (row - rows.start) * self.batch + column);
        let infinite = Tensor::full([masked.len()], f32::NEG_INFINITY, &self.device);
        let flat: Tensor<1> = logits.reshape([rows.len() * self.batch]);
        flat.select_assign(0, self.indices(indices), infinite, IndexingUpdateOp::Add).reshape([rows.len(), self.batch])
    }

    /// (mean log-sum-exp of the rows + mean log-sum-exp of the columns) / 2, without the targets.
    fn softmax(&self, masked: &[(usize, usize)]) -> Outcome {
        let mut row_sums = Vec::new();
        // Running maxima of the columns, and sums of exponentials relative to them.
        let mut tops = Tensor::<2>::full([1, self.batch], f32::MIN, &self.device);
        let mut sums = Tensor::<2>::zeros([1, self.batch], &self.device);
        let mut whole = None;
        for rows in self.tiles() {
            let logits = self.logits(&rows, masked);
            let top = logits.clone().max_dim(1);
            row_sums.push((logits.clone() - top.clone()).exp().sum_dim(1).log() + top);
            let top = tops.clone().max_pair(logits.clone().max_dim(0));
            sums = sums * (tops - top.clone()).exp() + (logits.clone() - top.clone()).exp().sum_dim(0);
            tops = top;
            // A single tile serves the gradient too; several are computed again.
            whole = (self.tracked && rows.len() == self.batch).then_some(logits);
        }
        let (row_sums, column_sums) = (Tensor::cat(row_sums, 0), sums.log() + tops);
        let loss = (row_sums.clone().mean() + column_sums.clone().mean()) * 0.5;
        let share = 0.5 / self.batch as f64;
        let gradients = self.tracked.then(|| {
            self.gradients(|rows| {
                let logits = whole.take().unwrap_or_else(|| self.logits(rows, masked));
                let over_texts = (logits.clone() - row_sums.clone().slice(rows.clone())).exp();
                (over_texts + (logits - column_sums.clone()).exp()) * share
            })
        });
        Outcome { loss, gradients }
    }

    /// -sum(log sigmoid(-logit)) / batch, as if no pair matched.
    fn sigmoid(&self, masked: &[(usize, usize)]) -> Outcome {
        let share = 1.0 / self.batch as f64;
        let mut loss = Tensor::zeros([1], &self.device);
        let mut bias = Tensor::zeros([1], &self.device);
        let mut slopes = |rows: &Range<usize>| {
            let logits = self.logits(rows, masked);
            let losses = logits.clone().clamp_min(0.0) + logits.clone().abs().neg().exp().log1p();
            loss = loss.clone() + losses.sum() * share;
            let slopes = sigmoid(logits) * share;
            bias = bias.clone() + slopes.clone().sum();
            slopes
        };
        let gradients = if self.tracked {
            Some(self.gradients(slopes))
        } else {
            self.tiles().for_each(|rows| drop(slopes(&rows)));
            None
        };
        let gradients = gradients.map(|gradients| Gradients { bias: self.bias.is_some().then_some(bias), ..gradients });
        Outcome { loss, gradients }
    }

    /// The gradients of the embeddings, from `slopes`, the derivatives of the loss by the logits of a tile, `[rows,
    /// batch]`.
    fn gradients(&self, mut slopes: impl FnMut(&Range<usize>) -> Tensor<2>) -> Gradients {
        let mut image = Vec::new();
        let mut text = self.text.zeros_like();
        for rows in self.tiles() {
            let slopes = slopes(&rows);
            image.push(slopes.clone().matmul(self.text.clone()));
            text = text + slopes.transpose().matmul(self.image.clone().slice(rows));
        }
        Gradients { image: Tensor::cat(image, 0), text, bias: None }
    }

    /// Subtracts the weighted logits of the targets (row, column, weight) from the loss, and multiplies the gradients
    /// of the embeddings by the scale.
    ///
    /// The target of every pair is on the diagonal, where embeddings need not be gathered. There are few others, which
    /// are added one after the other on most devices.
    fn with_targets(&self, Outcome { mut loss, mut gradients }: Outcome, targets: &[(usize, usize, f32)]) -> Outcome {
        let (diagonal, others): (Vec<_>, Vec<_>) = targets.iter().partition(|(row, column, _)| row == column);
        let mut weights = vec![0.0; self.batch];
        diagonal.into_iter().for_each(|(row, _, weight)| weights[row] += weight);
        let weights = self.column(weights);
        let (images, texts) = (self.image.clone() * weights.clone(), self.text.clone());
        loss = loss - self.logit_sum(&images, &texts, &weights);
        gradients = gradients.map(|Gradients { image, text, bias }| Gradients {
            image: image - texts * weights.clone(),
            text: text - images,
            bias: bias.map(|bias| bias - weights.sum()),
        });
        for others in others.chunks(self.batch.max(1)) {
            let weights = self.column(others.iter().map(|&(.., weight)| weight).collect());
            let rows = self.indices(others.iter().map(|&(row, ..)| row));
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
