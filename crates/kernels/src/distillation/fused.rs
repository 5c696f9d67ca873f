//! The divergence from a teacher over slices: the blocks of a tile are spread over all cores, and the gradients are
//! computed with the loss.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::contrastive::blocks::{EmbedGradients, Factors, LogitBlock, LogitRows, SUM_ROWS, Tiles, add_lanes, padded};
use crate::contrastive::log_sums::Columns;
use crate::contrastive::objective::{Logits, LossRows};
use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
use crate::cpu::gemm::Matrix;
use crate::cpu::product::tile::PANEL;
use crate::cpu::simd::{exp, ln_1p, vectorised};
use crate::distillation::teacher::{MASKED, TeacherLogits, TeacherLoss};

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
            teacher: Factors {
                image: Matrix::new(teacher_image.get(), teacher_dim),
                text: Matrix::new(teacher_text.get(), teacher_dim),
                scale: teacher.scale as f32,
                bias: teacher.loss.bias() as f32,
            },
            student: Factors {
                image: Matrix::new(image.get(), dim),
                text: Matrix::new(text.get(), dim),
                scale: value(scale).exp(),
                bias: if has_bias { value(bias) } else { 0.0 },
            },
            masked,
            first: rows.map_or(0, |rows| rows.first),
            batch,
            tiles: Tiles::new(own, batch, tile),
            tracked,
        };
        let (loss, gradients) = match teacher.loss {
            TeacherLoss::Softmax => pass.softmax(columns.as_ref().map(|sides| sides.each_ref().map(Values::get))),
            TeacherLoss::Sigmoid { .. } => pass.sigmoid(),
        };
        (flex_tensor(vec![loss as f32], [1]), Gradients { dim, ..gradients })
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

struct Pass<'a> {
    teacher: Factors<'a>,
    student: Factors<'a>,
    masked: &'a [(usize, usize)],
    /// The first row of the logits that this pass computes.
    first: usize,
    batch: usize,
    tiles: Tiles,
    /// Whether gradients are needed.
    tracked: bool,
}

/// The logits of some rows that are in memory at once, the teacher's and the student's.
type Tile = [Vec<LogitBlock>; 2];

impl<'a> Pass<'a> {
    /// Of the teacher and of the student.
    fn logits(&self) -> [LogitRows<'a>; 2] {
        [self.teacher, self.student].map(|factors| LogitRows::new(factors, self.batch, self.first, MASKED))
    }

    /// The logits of some images. `then` is called with each block of both.
    fn tile<T: Send>(
        &self,
        logits: &[LogitRows<'_>; 2],
        images: &Range<usize>,
        then: impl Fn(&LogitBlock) -> T + Sync,
    ) -> [(Vec<LogitBlock>, Vec<T>); 2] {
        logits.each_ref().map(|logits| {
            logits.blocks(images.clone(), |block| {
                block.mask(self.masked);
                then(block)
            })
        })
    }

    /// `given`: the log-sum-exps of the columns over all rows, the teacher's and the student's.
    fn softmax(&self, given: Option<[&[f32]; 2]>) -> (f64, Gradients) {
        let batch = self.batch;
        let (logits, mut whole) = (self.logits(), None);
        let columns = given.map_or_else(
            || {
                let mut columns = [Columns::new(batch), Columns::new(batch)];
                for images in self.tiles.images() {
                    let tile = self.tile(&logits, &images, LogitBlock::columns);
                    for (columns, (_, of_blocks)) in columns.iter_mut().zip(&tile) {
                        columns.add(of_blocks);
                    }
                    // A single tile serves the gradient too; several are computed again.
                    whole = self.tiles.is_one().then_some(tile.map(|(blocks, _)| blocks));
                }
                columns.map(|columns| padded(&columns.log_sums(), batch))
            },
            |given| given.map(|sums| padded(sums, batch)),
        );
        let share = 0.5 / batch as f32;
        self.gradients(&logits, whole, share, |teacher, student| {
            let sums = [teacher, &*student].map(LogitBlock::row_log_sums);
            let [row_sums, column_sums] = [&sums, &columns].map(|sides| sides.each_ref().map(Vec::as_slice));
            let [loss, scale] = softmax_slopes(&teacher.values, &mut student.values, row_sums, column_sums);
            [loss, scale, 0.0]
        })
    }

    fn sigmoid(&self) -> (f64, Gradients) {
        let bias = self.student.bias;
        let share = (self.batch as f32).recip();
        self.gradients(&self.logits(), None, share, |teacher, student| {
            sigmoid_slopes(&teacher.values, &mut student.values, bias)
        })
    }

    /// The loss and its gradients, tile by tile.
    ///
    /// `slopes` takes the logits of a block, replaces the student's by the derivatives of the loss, and returns the
    /// loss with its derivatives by `logit_scale` and `logit_bias`; all are multiplied by `share` here. `whole` is the
    /// tile of all rows if it is in memory already.
    fn gradients(
        &self,
        logits: &[LogitRows<'_>; 2],
        mut whole: Option<Tile>,
        share: f32,
        slopes: impl Fn(&LogitBlock, &mut LogitBlock) -> [f64; 3] + Sync,
    ) -> (f64, Gradients) {
        let mut embeds = self.tracked.then(|| EmbedGradients::new(self.student));
        let mut totals = [0.0; 3];
        for images in self.tiles.images() {
            let computed = || self.tile(logits, &images, |_| ()).map(|(blocks, _)| blocks);
            let [teacher, mut student] = whole.take().unwrap_or_else(computed);
            let of_blocks = student.par_iter_mut().zip(&teacher);
            let sums: Vec<[f64; 3]> = of_blocks.map(|(student, teacher)| slopes(teacher, student)).collect();
            for of_block in sums {
                totals.iter_mut().zip(of_block).for_each(|(total, of_block)| *total += of_block);
            }
            drop(teacher);
            if let Some(embeds) = &mut embeds {
                embeds.add(&student);
            }
        }
        let [image, text] = embeds.map_or_else(Default::default, |embeds| embeds.finish(self.student.scale * share));
        let [loss, logit_scale, logit_bias] = totals.map(|total| total * f64::from(share));
        (loss, Gradients { image, text, logit_scale, logit_bias, dim: 0 })
    }
}

vectorised! {
    /// Of a block: the divergences of the softmax of its rows, and of their share in those of the columns. Replaces
    /// each of the student's logits by its derivative; also returns the sum of logits times derivatives.
    ///
    /// `row_sums` and `column_sums`: log-sum-exps, the teacher's and the student's.
    fn softmax_slopes(
        teacher: &'a [f32],
        student: &'a mut [f32],
        row_sums: [&'a [f32]; 2],
        column_sums: [&'a [f32]; 2],
    ) -> [f64; 2] {
        let mut totals = [0.0; 2];
        let size = (row_sums[0].len() * PANEL).max(1);
        let columns = column_sums.map(|sums| sums.as_chunks::<PANEL>().0);
        for (n, (student, teacher)) in student.chunks_exact_mut(size).zip(teacher.chunks_exact(size)).enumerate() {
            let columns = columns.map(|sums| &sums[n]);
            let student = student.as_chunks_mut::<PANEL>().0.chunks_mut(SUM_ROWS);
            let logits = student.zip(teacher.as_chunks::<PANEL>().0.chunks(SUM_ROWS));
            let of_rows = row_sums[0].chunks(SUM_ROWS).zip(row_sums[1].chunks(SUM_ROWS));
            for ((student, teacher), of_rows) in logits.zip(of_rows) {
                let mut lanes = [[0.0; PANEL]; 2];
                let of_rows = of_rows.0.iter().zip(of_rows.1);
                for ((student, teacher), of_row) in student.iter_mut().zip(teacher).zip(of_rows) {
                    softmax_row(teacher, student, [*of_row.0, *of_row.1], columns, &mut lanes);
                }
                add_lanes(&mut totals, lanes);
            }
        }
        totals
    }
}

/// As [`softmax_slopes`] in the columns of a panel; adds to the sums.
#[inline(always)]
fn softmax_row(
    teacher: &[f32; PANEL],
    student: &mut [f32; PANEL],
    [teacher_row, student_row]: [f32; 2],
    [teacher_columns, student_columns]: [&[f32; PANEL]; 2],
    [losses, scales]: &mut [[f32; PANEL]; 2],
) {
    for lane in 0..PANEL {
        let (teacher, logit) = (teacher[lane], student[lane]);
        let (p_row, p_column) = (teacher - teacher_row, teacher - teacher_columns[lane]);
        let (q_row, q_column) = (logit - student_row, logit - student_columns[lane]);
        let (over_texts, over_images) = (exp(p_row), exp(p_column));
        losses[lane] += over_texts * (p_row - q_row) + over_images * (p_column - q_column);
        let slope = (exp(q_row) - over_texts) + (exp(q_column) - over_images);
        scales[lane] += slope * logit;
        student[lane] = slope;
    }
}

vectorised! {
    /// Of a block: the divergences of its sigmoids. Replaces each of the student's logits by its derivative; also
    /// returns the derivatives by `logit_scale` and `logit_bias`.
    fn sigmoid_slopes(teacher: &'a [f32], student: &'a mut [f32], bias: f32) -> [f64; 3] {
        let mut totals = [0.0; 3];
        let student = student.as_chunks_mut::<PANEL>().0.chunks_mut(SUM_ROWS);
        for (student, teacher) in student.zip(teacher.as_chunks::<PANEL>().0.chunks(SUM_ROWS)) {
            let mut lanes = [[0.0; PANEL]; 3];
            for (student, teacher) in student.iter_mut().zip(teacher) {
                sigmoid_row(teacher, student, bias, &mut lanes);
            }
            add_lanes(&mut totals, lanes);
        }
        totals
    }
}

/// As [`sigmoid_slopes`] in the columns of a panel; adds to the sums.
#[inline(always)]
fn sigmoid_row(
    teacher: &[f32; PANEL],
    student: &mut [f32; PANEL],
    bias: f32,
    [losses, scales, biases]: &mut [[f32; PANEL]; 3],
) {
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
