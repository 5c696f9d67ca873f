//! The divergence from a teacher in Burn's own operations, for every device: no matrix is larger than a tile, and no
//! tile enters the autodiff graph. The gradients are computed beforehand and enter it as constants.

use std::ops::Range;

use burn::tensor::activation::sigmoid;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use crate::contrastive::objective::{ColumnSums, Logits, LossRows};
use crate::distillation::teacher::{MASKED, TeacherLogits, TeacherLoss};
use crate::portable::transfers::upload;

/// [`distillation_loss`](crate::distillation_loss) in Burn's own operations, whatever the device. A tile holds at most
/// `tile` logits of each matrix, but at least one row.
pub fn tiled_distillation_loss(
    teacher: &TeacherLogits<'_>,
    Logits { image_embeds, text_embeds, logit_scale, logit_bias }: Logits<'_>,
    masked: &[(usize, usize)],
    rows: Option<&LossRows>,
    tile: usize,
) -> Tensor<1> {
    let ([own, _], [batch, _]) = (image_embeds.dims(), text_embeds.dims());
    let plain = |embeds: &Tensor<2>| embeds.clone().without_autodiff();
    let (image, text) = (plain(image_embeds), plain(text_embeds));
    let scale = logit_scale.clone().without_autodiff().exp();
    let constant = |value: f64| scale.full_like(value);
    let pass = Pass {
        teacher: Side {
            image: plain(teacher.image),
            text: plain(teacher.text),
            scale: constant(teacher.scale),
            bias: constant(teacher.loss.bias()),
        },
        student: Side {
            image: image.clone(),
            text: text.clone(),
            bias: logit_bias.map_or_else(|| constant(0.0), |bias| bias.clone().without_autodiff()),
            scale: scale.clone(),
        },
        masked,
        first: rows.map_or(0, |rows| rows.first),
        rows: own,
        batch,
        tile_rows: (tile / batch.max(1)).clamp(1, own.max(1)),
    };
    let tracked = image_embeds.is_autodiff()
        || text_embeds.is_autodiff()
        || logit_scale.is_autodiff()
        || logit_bias.is_some_and(Tensor::is_autodiff);
    let mut slopes_of = match teacher.loss {
        TeacherLoss::Softmax => {
            let student = rows.and_then(|rows| rows.column_log_sums.as_ref());
            let given = teacher.column_log_sums.zip(student);
            pass.softmax(given.map(|(teacher, student)| [teacher.clone(), student.clone()]))
        }
        TeacherLoss::Sigmoid { .. } => pass.sigmoid(),
    };
    let mut loss = scale.zeros_like();
    let (mut by_image, mut by_text, mut by_bias) = (Vec::new(), text.zeros_like(), scale.zeros_like());
    for rows in pass.tiles() {
        let (divergence, slopes) = slopes_of(&rows);
        loss = loss + divergence;
        if tracked {
            by_bias = by_bias + slopes.clone().sum();
            by_image.push(slopes.clone().matmul(text.clone()));
            by_text = by_text + slopes.transpose().matmul(image.clone().slice(pass.place(&rows)));
        }
    }
    if !tracked {
        return loss;
    }
    let scaled = |gradient: Tensor<2>| gradient * scale.clone().unsqueeze();
    let (by_image, by_text) = (scaled(Tensor::cat(by_image, 0)), scaled(by_text));
    // The derivative by `logit_scale`: a logit without its bias is proportional to exp(logit_scale).
    let by_scale = (image * by_image.clone()).sum();
    // Linear in every input, so its gradients are exactly the ones computed above; its value is subtracted again.
    let mut surrogate = (image_embeds.clone() * by_image).sum()
        + (text_embeds.clone() * by_text).sum()
        + logit_scale.clone() * by_scale;
    if let Some(logit_bias) = logit_bias {
        surrogate = surrogate + logit_bias.clone() * by_bias;
    }
    let value = surrogate.clone().without_autodiff();
    surrogate - value + loss
}

/// What one side's logits are computed from, outside of the autodiff graph.
struct Side {
    /// `[rows, dim]`
    image: Tensor<2>,
    /// `[batch, dim]`
    text: Tensor<2>,
    /// `[1]`
    scale: Tensor<1>,
    /// `[1]`
    bias: Tensor<1>,
}

struct Pass<'a> {
    teacher: Side,
    student: Side,
    masked: &'a [(usize, usize)],
    /// The first row of the logits that this pass computes, and their number.
    first: usize,
    rows: usize,
    batch: usize,
    tile_rows: usize,
}

/// Computes the share of some rows in the loss, `[1]`, and its derivatives by their logits, `[rows, batch]`.
type Slopes<'a> = Box<dyn FnMut(&Range<usize>) -> (Tensor<1>, Tensor<2>) + 'a>;

impl Pass<'_> {
    /// The rows of each tile.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (first, end, size) = (self.first, self.first + self.rows, self.tile_rows);
        (first..end).step_by(size).map(move |first| first..end.min(first + size))
    }

    /// The place of rows among those of this pass.
    fn place(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start - self.first..rows.end - self.first
    }

    /// The logits of some rows, the teacher's and the student's, `[rows, batch]`.
    fn logits(&self, rows: &Range<usize>) -> [Tensor<2>; 2] {
        [&self.teacher, &self.student].map(|side| {
            let images = side.image.clone().slice(self.place(rows));
            let logits = images.matmul(side.text.clone().transpose()) * side.scale.clone().unsqueeze();
            self.mask(logits + side.bias.clone().unsqueeze(), rows)
        })
    }

    fn mask(&self, logits: Tensor<2>, rows: &Range<usize>) -> Tensor<2> {
        let first = self.masked.partition_point(|&(row, _)| row < rows.start);
        let end = self.masked.partition_point(|&(row, _)| row < rows.end);
        let masked = &self.masked[first..end];
        if masked.is_empty() {
            return logits;
        }
        let indices = masked.iter().map(|&(row, column)| ((row - rows.start) * self.batch + column) as i64);
        let indices = TensorData::new(indices.collect::<Vec<i64>>(), [masked.len()]);
        let indices = upload::<1, Int>(indices, &logits.device());
        // A logit vanishes beside it.
        let added = Tensor::full([masked.len()], MASKED, &logits.device());
        let shape = logits.dims();
        let flat: Tensor<1> = logits.reshape([shape[0] * shape[1]]);
        flat.select_assign(0, indices, added, IndexingUpdateOp::Add).reshape(shape)
    }

    /// `given`: the log-sum-exps of the columns over all rows, the teacher's and the student's.
    fn softmax(&self, given: Option<[Tensor<2>; 2]>) -> Slopes<'_> {
        let mut whole = None;
        let [teacher_columns, student_columns] = given.unwrap_or_else(|| {
            let none = || ColumnSums::of_none(self.batch, &self.student.text.device());
            let (mut teacher, mut student) = (none(), none());
            for rows in self.tiles() {
                let logits = self.logits(&rows);
                teacher = teacher.with_rows(&logits[0]);
                student = student.with_rows(&logits[1]);
                // A single tile serves the gradient too; several are computed again.
                whole = (rows.len() == self.batch).then_some(logits);
            }
            [teacher, student].map(|columns| columns.log_sums())
        });
        let share = 0.5 / self.batch as f64;
        let over_row = |logits: &Tensor<2>| {
            let top = logits.clone().max_dim(1);
            logits.clone() - ((logits.clone() - top.clone()).exp().sum_dim(1).log() + top)
        };
        Box::new(move |rows| {
            let [teacher, student] = whole.take().unwrap_or_else(|| self.logits(rows));
            let divergence = |p: Tensor<2>, q: Tensor<2>| {
                let probabilities = p.clone().exp();
                let slopes = q.clone().exp() - probabilities.clone();
                ((probabilities * (p - q)).sum(), slopes)
            };
            let (over_texts, by_row) = divergence(over_row(&teacher), over_row(&student));
            let (over_images, by_column) =
                divergence(teacher - teacher_columns.clone(), student - student_columns.clone());
            ((over_texts + over_images) * share, (by_row + by_column) * share)
        })
    }

    fn sigmoid(&self) -> Slopes<'_> {
        let share = 1.0 / self.batch as f64;
        // log(1 + e^z) = max(z, 0) + log(1 + e^-|z|)
        let softplus = |z: Tensor<2>| z.clone().clamp_min(0.0) + z.abs().neg().exp().log1p();
        Box::new(move |rows| {
            let [teacher, student] = self.logits(rows);
            let target = sigmoid(teacher.clone());
            let difference = softplus(student.clone()) - softplus(teacher.clone());
            let loss = (target.clone() * (teacher - student.clone()) + difference).sum();
            (loss * share, (sigmoid(student) - target) * share)
        })
    }
}
