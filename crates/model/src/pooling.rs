//! How a tower makes one vector of its tokens.

use serde::{Deserialize, Serialize};

/// The choice a user has (`image_pool`, `text_pool`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The tower's own pooled output, which is what the reference uses, where the family has one and its weights are there.
    ///
    /// For a text tower whose family has none (DistilBERT, ELECTRA, ModernBERT, DeBERTa: the reference fails there), or
    /// whose weights lack it, a sentence-transformers directory decides (`1_Pooling/config.json`: cls or mean). Without
    /// one, a family without pooler takes the first token (ModernBERT what its `classifier_pooling` says), and weights
    /// without pooler get a fresh one, which a locked tower refuses.
    #[default]
    Auto,
    /// The first token of the last hidden state.
    Cls,
    /// The mean of patch tokens (image) or of all tokens (text).
    Mean,
    /// What the family calls `pooler_output`. For a text tower whose family has none, an error.
    Pooler,
}

/// What [`Pool`] comes down to for one tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// First token.
    Cls,
    /// Mean.
    Mean,
    /// The tower's `pooler_output`.
    Pooler,
}

impl Pool {
    pub(crate) fn resolve(self) -> Pooling {
        match self {
            Self::Cls => Pooling::Cls,
            Self::Mean => Pooling::Mean,
            Self::Auto | Self::Pooler => Pooling::Pooler,
        }
    }
}
