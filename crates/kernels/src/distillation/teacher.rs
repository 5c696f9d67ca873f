//! The logits of a teacher, and how those of a student are compared with them.

use burn::tensor::Tensor;

/// The logits of a teacher: the cosines of its embeddings times `scale`.
#[derive(Debug, Clone, Copy)]
pub struct TeacherLogits<'a> {
    /// Embeddings of the images, `[batch, teacher dim]`, L2-normalised; of some rows, `[rows, teacher dim]`.
    pub image: &'a Tensor<2>,
    /// Embeddings of the texts of the batch, likewise, `[batch, teacher dim]`.
    pub text: &'a Tensor<2>,
    /// Factor of the cosines.
    pub scale: f64,
    /// How they are compared.
    pub loss: TeacherLoss,
    /// The log-sum-exps of all columns over all rows, `[1, batch]`, for softmax over some rows: from
    /// [`teacher_column_sums`](crate::teacher_column_sums).
    pub column_log_sums: Option<&'a Tensor<2>>,
}

/// A divergence of the student's logits from the teacher's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TeacherLoss {
    /// The Kullback-Leibler divergence KL(teacher || student) of the softmax over each row, and of that over each
    /// column: the sum of both over the batch, divided by 2 `batch` (MobileCLIP, arXiv:2311.17049, sec. 3).
    Softmax,
    /// The Kullback-Leibler divergence of the sigmoid of each logit: the sum over all pairs, divided by `batch`. It is
    /// the binary cross-entropy with the teacher's probability as the target, less the entropy of that target.
    Sigmoid {
        /// Is added to the teacher's logits.
        bias: f64,
    },
}

impl TeacherLoss {
    /// The bias of the teacher's logits.
    pub(super) fn bias(self) -> f64 {
        match self {
            Self::Softmax => 0.0,
            Self::Sigmoid { bias } => bias,
        }
    }
}

/// A logit that is left out on both sides: so far below any other that its probability is 0, yet finite, so that its
/// difference and its product with 0 are 0.
pub(super) const MASKED: f32 = -1e30;
