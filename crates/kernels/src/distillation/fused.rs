//! The divergence from a teacher over slices: the rows of a tile are spread over all cores, and the gradients are
//! computed with the loss.

use std::borrow::Cow;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::contrastive::log_sums::{Columns, multiply_add, row_log_sum, within};
use crate::contrastive::objective::{Logits, LossRows};
use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
use crate::cpu::gemm::{Matrix, matmul, matmul_add};
use crate::cpu::simd::{LANES, exp, ln_1p, vectorised};
use crate::cpu::uninit::par_rows;
use crate::distillation::teacher::{MASKED, TeacherLogits, TeacherLoss};

/// Rows per task of the gradient of the text embeddings.
const TASK_ROWS: usize = 128;

/// [`distillation_loss`](crate::distillation_loss) in tiles of at most `tile` logits of each matrix, but at least one
/// row. `None` if an input is not for the fused operations.
pub fn distillation_loss(
    teacher: &TeacherLogits<'_>,
    Logits { image_embeds, text_embeds, logit_scale, logit_bias }: Logits<'_>,
    masked: &[(usize, usize)],
    rows: Option<&LossRows>,
    tile: usize,
) -> Option<Tensor<1>> {
    let ([own, dim], [batch, width]) = (image_embeds.dims(), text_embeds.dims());
    let [_, teacher_dim] = teacher.image.dims();
    assert_eq!(width, dim, "width of the text embeddings of a batch");
    assert_eq!(teacher.image.dims(), [own, teacher_dim], "shape of the teacher's image embeddings");
    assert_eq!(teacher.text.dims(), [batch, teacher_dim], "shape of the teacher's text embeddings");
    let inputs = [
        Input::new(teacher.image.clone().without_autodiff())?,
        Input::new(teacher.text.clone().without_autodiff())?,
        Input::new(image_embeds.clone())?,
        Input::new(text_embeds.clone())?,
        Input::new(logit_scale.clone())?,
        Input::optional(logit_bias)?,
    ];
    let columns = match (teacher.column_log_sums, rows.and_then(|rows| rows.column_log_sums.as_ref())) {
        (Some(teacher), Some(student)) => Some([Values::untracked(teacher)?, Values::untracked(student)?]),
        _ => None,
    };
    let has_bias = logit_bias.is_some();
    let forward = |[teacher_image, teacher_text, image, text, scale, bias]: &[Values; 6], tracked: bool| {
        let value = |values: &Values| values.get()[0];
        let pass = Pass {
            teacher: Side {
                image: Matrix::new(teacher_image.get(), teacher_dim),
                text: Matrix::new(teacher_text.get(), teacher_dim),
                scale: teacher.scale as f32,
                bias: teacher.loss.bias() as f32,
            },
            student: Side {
                image: Matrix::new(image.get(), dim),
                text: Matrix::new(text.get(), dim),
                scale: value(scale).exp(),
                bias: if has_bias { value(bias) } else { 0.0 },
            },
            masked,
            first: rows.map_or(0, |rows| rows.first),
            rows: own,
            batch,
            dim,
            tile_rows: (tile / batch.max(1)).clamp(1, own.max(1)),
            tracked,
        };
        let (loss, gradients) = match teacher.loss {
            TeacherLoss::Softmax => pass.softmax(columns.as_ref().map(|sides| sides.each_ref().map(Values::get))),
            TeacherLoss::Sigmoid { .. } => pass.sigmoid(),
        };
        (flex_tensor(vec![loss as f32], [1]), gradients)
    };
    Some(custom_op(inputs, forward, backward))
}

/// Gradients of both embeddings, of `logit_scale` and of `logit_bias`.
#[derive(Debug, Clone)]
struct Gradients {
    image: Vec<f32>,
    text: Vec<f32>,
    logit_scale: f64,
    logit_bias: f64,
    /// Width of the embeddings.
    dim: usize,
}

/// The forward pass has computed the gradients; here they are multiplied by the gradient of the loss.
fn backward(gradients: Gradients, output: Values, needed: [bool; 6]) -> [Option<FlexTensor>; 6] {
    let factor = output.get()[0];
    let Gradients { image, text, logit_scale, logit_bias, dim } = gradients;
    let times = |mut values: Vec<f32>| {
        if factor != 1.0 {
            values.par_iter_mut().for_each(|value| *value *= factor);
        }
        let rows = values.len() / dim.max(1);
        flex_tensor(values, [rows, dim])
    };
    let scalar = |value: f64| flex_tensor(vec![value as f32 * factor], [1]);
    [
        None,
        None,
        needed[2].then(|| times(image)),
        needed[3].then(|| times(text)),
        needed[4].then(|| scalar(logit_scale)),
        needed[5].then(|| scalar(logit_bias)),
    ]
}

/// What one side's logits are computed from.
#[derive(Clone, Copy)]
struct Side<'a> {
    /// `[rows, dim]`.
    image: Matrix<'a>,
    /// `[batch, dim]`.
    text: Matrix<'a>,
    scale: f32,
    bias: f32,
}

/// Rows `first..first + rows` of the logits of both sides, `[rows, batch]`.
struct Tile {
    first: usize,
    rows: usize,
    teacher: Vec<f32>,
    student: Vec<f32>,
}

struct Pass<'a> {
    teacher: Side<'a>,
    student: Side<'a>,
    masked: &'a [(usize, usize)],
    /// The first row of the logits that this pass computes, and their number.
    first: usize,
    rows: usize,
    batch: usize,
    /// Of the student.
    dim: usize,
    tile_rows: usize,
    /// Whether gradients are needed.
    tracked: bool,
}

impl Pass<'_> {
    /// First row and number of rows of each tile.
    fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (first, rows, size) = (self.first, self.rows, self.tile_rows);
        (0..rows.div_ceil(size)).map(move |tile| (first + tile * size, size.min(rows - tile * size)))
    }

    fn tile(&self, (first, rows): (usize, usize)) -> Tile {
        let batch = self.batch;
        let logits = |side: Side<'_>| {
            let mut logits = par_rows(rows, batch, |start, out| {
                let images = side.image.rows(first - self.first + start, out.len() / batch);
                let out = matmul(images, side.text.t(), out);
                multiply_add(out, side.scale, side.bias);
                out
            });
            for &(row, column) in within(self.masked, |&(row, _)| row, first, rows) {
                logits[(row - first) * batch + column] = MASKED;
            }
            logits
        };
        Tile { first, rows, teacher: logits(self.teacher), student: logits(self.student) }
    }

    /// `given`: the log-sum-exps of the columns over all rows, the teacher's and the student's.
    fn softmax(&self, given: Option<[&[f32]; 2]>) -> (f64, Gradients) {
        let batch = self.batch;
        let mut whole = None;
        let columns = given.map(|sides| sides.map(Cow::Borrowed)).unwrap_or_else(|| {
            let mut columns = [Columns::new(batch), Columns::new(batch)];
            for range in self.tiles() {
                let tile = self.tile(range);
                columns[0].add(&tile.teacher);
                columns[1].add(&tile.student);
                // A single tile serves the gradient too; several are computed again.
                whole = (tile.rows == batch).then_some(tile);
            }
            columns.map(|columns| Cow::Owned(columns.log_sums()))
        });
        let share = 0.5 / batch as f32;
        self.gradients(whole, share, |teacher, student| {
            let sums = [row_log_sum(teacher), row_log_sum(student)];
            let [loss, scale] = softmax_slopes(teacher, student, sums, &columns[0], &columns[1]);
            [loss, scale, 0.0]
        })
    }

    fn sigmoid(&self) -> (f64, Gradients) {
        let bias = self.student.bias;
        let share = (self.batch as f32).recip();
        self.gradients(None, share, |teacher, student| sigmoid_slopes(teacher, student, bias))
    }

    /// The loss and its gradients, tile by tile.
    ///
    /// `slopes` takes the logits of a row, replaces the student's by the derivatives of the loss, and returns the loss
    /// with its derivatives by `logit_scale` and `logit_bias`; all are multiplied by `share` here. `whole` is the tile
    /// of all rows if it is in memory already.
    fn gradients(
        &self,
        mut whole: Option<Tile>,
        share: f32,
        slopes: impl Fn(&[f32], &mut [f32]) -> [f32; 3] + Sync,
    ) -> (f64, Gradients) {
        let (batch, dim) = (self.batch, self.dim);
        let mut image = Vec::with_capacity(if self.tracked { self.rows * dim } else { 0 });
        let mut text = vec![0.0; if self.tracked { batch * dim } else { 0 }];
        let (mut loss, mut logit_scale, mut logit_bias) = (0.0, 0.0, 0.0);
        let factor = self.student.scale * share;
        for range in self.tiles() {
            let Tile { first, rows, teacher, mut student } = whole.take().unwrap_or_else(|| self.tile(range));
            let of_rows = student.par_chunks_mut(batch).zip(teacher.par_chunks(batch));
            let sums: Vec<[f32; 3]> = of_rows.map(|(student, teacher)| slopes(teacher, student)).collect();
            for [of_loss, of_scale, of_bias] in sums {
                loss += f64::from(of_loss);
                logit_scale += f64::from(of_scale);
                logit_bias += f64::from(of_bias);
            }
            drop(teacher);
            if !self.tracked {
                continue;
            }
            let slopes = Matrix::new(&student, batch);
            image.extend(par_rows(rows, dim, |start, out| {
                let out = matmul(slopes.rows(start, out.len() / dim), self.student.text, out);
                multiply_add(out, factor, 0.0);
                out
            }));
            let images = self.student.image.rows(first - self.first, rows);
            text.par_chunks_mut(TASK_ROWS * dim).enumerate().for_each(|(task, out)| {
                let slopes = slopes.cols(task * TASK_ROWS, out.len() / dim).t();
                matmul_add(slopes, images, out, dim);
            });
        }
        text.par_chunks_mut(TASK_ROWS * dim).for_each(|values| multiply_add(values, factor, 0.0));
        let share = f64::from(share);
        let [logit_scale, logit_bias] = [logit_scale, logit_bias].map(|slope| slope * share);
        (loss * share, Gradients { image, text, logit_scale, logit_bias, dim })
    }
}

vectorised! {
    /// Of a row: the divergences of its softmax and of its share in those of the columns. Replaces each of the
    /// student's logits by its derivative; also returns the sum of logits times derivatives.
    ///
    /// `row_sums`: the log-sum-exps of the teacher's and the student's row.
    fn softmax_slopes(
        teacher: &'a [f32],
        student: &'a mut [f32],
        row_sums: [f32; 2],
        teacher_sums: &'a [f32],
        student_sums: &'a [f32],
    ) -> [f32; 2] {
        let [teacher_row, student_row] = row_sums;
        let (mut losses, mut scales) = ([0.0; LANES], [0.0; LANES]);
        let chunks = student.chunks_mut(LANES).zip(teacher.chunks(LANES));
        let sums = teacher_sums.chunks(LANES).zip(student_sums.chunks(LANES));
        for ((student, teacher), (teacher_sums, student_sums)) in chunks.zip(sums) {
            let cells = student.iter_mut().zip(teacher).zip(teacher_sums.iter().zip(student_sums)).enumerate();
            for (lane, ((student, teacher), (teacher_sum, student_sum))) in cells {
                let logit = *student;
                let (p_row, p_column) = (teacher - teacher_row, teacher - teacher_sum);
                let (q_row, q_column) = (logit - student_row, logit - student_sum);
                let (over_texts, over_images) = (exp(p_row), exp(p_column));
                losses[lane] += over_texts * (p_row - q_row) + over_images * (p_column - q_column);
                let slope = (exp(q_row) - over_texts) + (exp(q_column) - over_images);
                scales[lane] += slope * logit;
                *student = slope;
            }
        }
        [losses, scales].map(|lanes| lanes.into_iter().sum())
    }
}

vectorised! {
    /// Of a row: the divergences of its sigmoids. Replaces each of the student's logits by its derivative; also returns
    /// the derivatives by `logit_scale` and `logit_bias`.
    fn sigmoid_slopes(teacher: &'a [f32], student: &'a mut [f32], bias: f32) -> [f32; 3] {
        let (mut losses, mut scales, mut biases) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for (student, teacher) in student.chunks_mut(LANES).zip(teacher.chunks(LANES)) {
            for (lane, (student, &teacher)) in student.iter_mut().zip(teacher).enumerate() {
                let logit = *student;
                let [small, teacher_small] = [exp(-logit.abs()), exp(-teacher.abs())];
                let chance = (if logit > 0.0 { 1.0 } else { small }) / (1.0 + small);
                let target = (if teacher > 0.0 { 1.0 } else { teacher_small }) / (1.0 + teacher_small);
                // log(1 + e^z) = max(z, 0) + log(1 + e^-|z|)
                let tails = ln_1p(small) - ln_1p(teacher_small);
                losses[lane] += target * (teacher - logit) + (logit.max(0.0) - teacher.max(0.0)) + tails;
                let slope = chance - target;
                scales[lane] += slope * (logit - bias);
                biases[lane] += slope;
                *student = slope;
            }
        }
        [losses, scales, biases].map(|lanes| lanes.into_iter().sum())
    }
}
