//! The teacher's term: the divergence of the logits of a batch from those of a trained model (MobileCLIP,
//! arXiv:2311.17049, sec. 3). The formula is in `crates/kernels/src/distillation/`.

use std::ops::Range;

use burn::tensor::Tensor;
use dualenc_kernels::{ColumnSums, Logits, TeacherLogits, TeacherLoss, distillation_loss, teacher_column_sums};

use crate::loss::slots;
use crate::loss::targets::{Rows, Targets};

/// The teacher's term of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TeacherTerm {
    /// Of the term; the contrastive loss has the rest to 1.
    pub weight: f64,
    /// Factor of the teacher's cosines.
    pub scale: f64,
    pub loss: TeacherLoss,
}

impl TeacherTerm {
    /// The part of `rows` in the divergence without the weight, `[1]`: the mean over the slots of the captions. The
    /// parts of all rows add up to the divergence.
    ///
    /// `teacher` and `embeds` are L2-normalised embeddings of the images, `[batch, dim]`, and of the texts, `[batch *
    /// slots, dim]`. Pairs that `targets` mask are left out on both sides, so that the sums of the student's columns
    /// are those of the contrastive loss at the whole width; those of the teacher's follow the ones of all `widths`.
    pub fn loss(
        &self,
        targets: &Targets,
        [teacher_image, teacher_text]: [&Tensor<2>; 2],
        [image, text]: [&Tensor<2>; 2],
        (logit_scale, logit_bias): (&Tensor<1>, Option<&Tensor<1>>),
        (rows, widths): (&Rows<'_>, usize),
    ) -> Tensor<1> {
        let logit_bias = logit_bias.filter(|_| self.loss != TeacherLoss::Softmax);
        let slots = targets.masked().len();
        let [teacher_image, image] = [teacher_image, image].map(|images| rows.of(images));
        let [teacher_slots, student_slots] = [teacher_text, text].map(|texts| slots::by_slot(texts, slots));
        let texts = teacher_slots.iter().zip(&student_slots);
        let losses = targets.masked().zip(texts).enumerate().map(|(slot, (masked, (teacher_text, text)))| {
            let of_teacher = rows.of_matrix(widths * slots + slot).and_then(|rows| rows.column_log_sums);
            let teacher = self.logits([&teacher_image, teacher_text], of_teacher.as_ref());
            let student = Logits { image_embeds: &image, text_embeds: text, logit_scale, logit_bias };
            distillation_loss(&teacher, student, masked, rows.of_matrix(slot).as_ref())
        });
        slots::mean(losses.collect())
    }

    /// The log-sum-exps of the columns of the teacher's logits over `rows`, of each slot; none for the sigmoid loss.
    pub fn column_sums(
        &self,
        targets: &Targets,
        [image, text]: [&Tensor<2>; 2],
        rows: &Range<usize>,
    ) -> Vec<ColumnSums> {
        if self.loss != TeacherLoss::Softmax {
            return Vec::new();
        }
        let own = image.clone().slice(rows.clone());
        let texts = slots::by_slot(text, targets.masked().len());
        let of_slot = |(masked, text)| teacher_column_sums(&self.logits([&own, text], None), masked, rows.start);
        targets.masked().zip(&texts).map(of_slot).collect()
    }

    fn logits<'a>(
        &self,
        [image, text]: [&'a Tensor<2>; 2],
        column_log_sums: Option<&'a Tensor<2>>,
    ) -> TeacherLogits<'a> {
        TeacherLogits { image, text, scale: self.scale, loss: self.loss, column_log_sums }
    }
}
