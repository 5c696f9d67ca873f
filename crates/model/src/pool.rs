//! How a tower makes one vector of its tokens.

use serde::{Deserialize, Serialize};

/// The choice a user has (`image_pool`, `text_pool`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The tower's own pooled output, which is what the reference uses.
    #[default]
    Auto,
    /// The first token of the last hidden state.
    Cls,
    /// The mean of patch tokens (image) or of all tokens (text).
    Mean,
    /// The family's pooler; for a family without one, what it calls `pooler_output`.
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
