//! The contrastive loss.

use serde::{Deserialize, Serialize};

/// The contrastive loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Symmetric InfoNCE (CLIP, arXiv:2103.00020, fig. 3).
    #[default]
    Softmax,
    /// Pairwise sigmoid (SigLIP, arXiv:2303.15343, alg. 1).
    Sigmoid,
}

/// What an image and another pair's caption are to each other when the data list that caption for the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// Matches, as the pair itself.
    #[default]
    Positives,
    /// Neither matches nor negatives: left out of the loss.
    Mask,
    /// Negatives, as in the reference.
    Ignore,
}
