//! The contrastive loss.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A contrastive loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Symmetric InfoNCE (CLIP, arXiv:2103.00020, fig. 3).
    #[default]
    Softmax,
    /// Pairwise sigmoid loss (SigLIP, arXiv:2303.15343, alg. 1).
    Sigmoid,
}

/// A treatment of an image and another pair's caption if the data also list that caption for the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// They are positives, as the pair itself.
    #[default]
    Positives,
    /// They are left out of the loss.
    Mask,
    /// They are negatives, as in the reference.
    Ignore,
}
