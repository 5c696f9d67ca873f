//! Which loss to compute, which pairs of the batch match, and which rows of the logits a call computes.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

/// What logits are computed from: cosine similarities times `exp(logit_scale)`, plus `logit_bias`.
#[derive(Debug, Clone, Copy)]
pub struct Logits<'a> {
    /// L2-normalised embeddings of the rows, `[batch, dim]`; of some rows, `[rows, dim]`.
    pub image_embeds: &'a Tensor<2>,
    /// L2-normalised embeddings of the columns, `[batch, dim]`.
    pub text_embeds: &'a Tensor<2>,
    /// `[1]`, a logarithm.
    pub logit_scale: &'a Tensor<1>,
    /// `[1]`; `None`: 0.
    pub logit_bias: Option<&'a Tensor<1>>,
}

/// Some rows of the logits of a batch.
#[derive(Debug, Clone)]
pub struct LossRows {
    /// The number of the first.
    pub first: usize,
    /// The log-sum-exps of all columns over all rows, `[1, batch]`, outside of the autodiff graph: from
    /// [`ColumnSums::log_sums`]. For softmax.
    pub column_log_sums: Option<Tensor<2>>,
}

/// The log-sum-exps of columns over some rows, in a form that can be added up.
#[derive(Debug, Clone)]
pub struct ColumnSums {
    /// The largest logits, `[1, batch]`.
    pub largest: Tensor<2>,
    /// The sums of exponentials of logits minus the largest, `[1, batch]`.
    pub sums: Tensor<2>,
}

impl ColumnSums {
    /// Those of `batch` columns over no row.
    pub(crate) fn of_none(batch: usize, device: &Device) -> Self {
        let shape = [1, batch];
        Self { largest: Tensor::full(shape, f32::MIN, device), sums: Tensor::zeros(shape, device) }
    }

    /// With the rows of `logits`, `[rows, batch]`.
    pub(crate) fn with_rows(self, logits: &Tensor<2>) -> Self {
        let Self { largest: before, sums } = self;
        let largest = before.clone().max_pair(logits.clone().max_dim(0));
        let sums = sums * (before - largest.clone()).exp() + (logits.clone() - largest.clone()).exp().sum_dim(0);
        Self { largest, sums }
    }

    /// Those over the rows of both.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        let largest = self.largest.clone().max_pair(other.largest.clone());
        let scaled = |part: Self| part.sums * (part.largest - largest.clone()).exp();
        let sums = scaled(self) + scaled(other);
        Self { largest, sums }
    }

    /// The log-sum-exps, `[1, batch]`.
    #[must_use]
    pub fn log_sums(&self) -> Tensor<2> {
        self.sums.clone().log() + self.largest.clone()
    }
}

/// The loss and its targets over the matrix of logits, `[batch, batch]`: rows are images, columns are texts.
#[derive(Debug, Clone)]
pub enum PairLoss {
    /// Symmetric InfoNCE (CLIP, arXiv:2103.00020, fig. 3).
    Softmax {
        /// Target weights as (row, column, weight), sorted by row: the loss falls by each weight times its logit,
        /// masked or not. Those of hard targets sum to 1.
        targets: Arc<[(usize, usize, f32)]>,
        /// Logits left out of the log-sum-exps, as (row, column), sorted.
        masked: Arc<[(usize, usize)]>,
    },
    /// Binary classification of every pair (SigLIP, arXiv:2303.15343, alg. 1).
    Sigmoid {
        /// Matching pairs besides the diagonal, as (row, column), sorted.
        positives: Arc<[(usize, usize)]>,
        /// Pairs left out of the loss, as (row, column), sorted.
        masked: Arc<[(usize, usize)]>,
    },
}

impl PairLoss {
    /// The pairs that are left out, as (row, column), sorted.
    pub fn masked(&self) -> &[(usize, usize)] {
        match self {
            Self::Softmax { masked, .. } | Self::Sigmoid { masked, .. } => masked,
        }
    }
}
