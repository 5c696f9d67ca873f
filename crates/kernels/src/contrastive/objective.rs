//! Which loss to compute, and which pairs of the batch match.

use std::sync::Arc;

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
