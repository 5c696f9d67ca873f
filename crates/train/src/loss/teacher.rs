//! The teacher's term: the divergence of the logits of a batch from those of a trained model (MobileCLIP,
//! arXiv:2311.17049, sec. 3). The formula is in `crates/kernels/src/distillation/`.

use burn::tensor::Tensor;
use dualenc_kernels::{TeacherLogits, TeacherLoss, distillation_loss};

use crate::config::Duplicates;
use crate::loss::contrastive::{Objective, PairIds};
use crate::loss::slots;

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
    /// The divergence without the weight, `[1]`: the mean over the slots of the captions.
    ///
    /// `teacher` and `embeds` are L2-normalised embeddings of the images, `[batch, dim]`, and of the texts, `[batch *
    /// slots, dim]`. Pairs that `objective` masks are left out on both sides.
    pub fn loss(
        &self,
        objective: Objective,
        [teacher_image, teacher_text]: [&Tensor<2>; 2],
        [image, text]: [&Tensor<2>; 2],
        (logit_scale, logit_bias): (&Tensor<1>, Option<&Tensor<1>>),
        pairs: &PairIds,
    ) -> Tensor<1> {
        let logit_bias = logit_bias.filter(|_| self.loss != TeacherLoss::Softmax);
        let teacher_slots = slots::by_slot(teacher_text, pairs.slots());
        let student_slots = slots::by_slot(text, pairs.slots());
        let losses = teacher_slots.iter().zip(&student_slots).enumerate().map(|(slot, (teacher_text, text))| {
            let masked = if objective.duplicates == Duplicates::Mask { pairs.matches(slot) } else { Vec::new() };
            let teacher =
                TeacherLogits { image: teacher_image, text: teacher_text, scale: self.scale, loss: self.loss };
            distillation_loss(&teacher, (image, text), logit_scale, logit_bias, &masked)
        });
        slots::mean(losses.collect())
    }
}
