//! How a tower reduces its tokens to one vector.

use serde::{Deserialize, Serialize};

/// The pooling that a user asks for (`image_pool`, `text_pool`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The tower's own pooled output, as the reference uses it, if the family has one and its weights are present.
    ///
    /// A text tower without a pooler (DistilBERT, ELECTRA, ModernBERT, DeBERTa: the reference fails there), or without
    /// the weights of one, follows the pooling of a sentence-transformers directory (`1_Pooling/config.json`: cls,
    /// mean or lasttoken). Without that file, a family without a pooler takes the first token (ModernBERT: what
    /// `classifier_pooling` says; decoders: the last token; T5 and EmbeddingGemma: the mean), and weights without a
    /// pooler get a freshly initialised one, which a locked tower refuses.
    #[default]
    Auto,
    /// The first token of the last hidden state.
    Cls,
    /// The mean over patch tokens (image) or over all tokens (text).
    Mean,
    /// The first token and the mean over patch tokens, one after the other: twice the width. Vision transformers only.
    #[serde(rename = "cls+mean")]
    ClsMean,
    /// The mean over patch tokens, as [`Pool::Mean`] of a vision transformer. An error for every other tower.
    #[serde(rename = "patch_mean")]
    PatchMean,
    /// The last token of the last hidden state: what decoders such as Qwen3-Embedding were trained with. Text towers
    /// only.
    Last,
    /// What the family calls `pooler_output`. An error for a text tower of a family without one.
    Pooler,
    /// What a text tower was trained with: the pooling of its sentence-transformers directory (`1_Pooling`), then the
    /// `Dense` layers that follow it. An error without that directory.
    Sentence,
    /// All tokens, one after the other, for a head that takes them: `[batch, tokens * width]`. Vision transformers
    /// only, and no value of a config key: the head asks for it.
    #[serde(skip)]
    Tokens,
}

/// The pooling of one tower, once [`Pool::Auto`] is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token.
    Cls,
    /// The mean over tokens.
    Mean,
    /// The first token, then the mean over patch tokens.
    ClsMean,
    /// The last token of a text.
    Last,
    /// The tower's `pooler_output`.
    Pooler,
    /// All tokens of an image, one after the other.
    Tokens,
}

impl Pooling {
    /// The value of `image_pool` or `text_pool`.
    pub fn name(self) -> &'static str {
        self.form()
    }

    /// The name in the written form of a tower's architecture, which caches are keyed by. Never change one.
    pub(crate) fn form(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Mean => "mean",
            Self::ClsMean => "cls+mean",
            Self::Last => "last",
            Self::Pooler => "pooler",
            Self::Tokens => "tokens",
        }
    }
}
