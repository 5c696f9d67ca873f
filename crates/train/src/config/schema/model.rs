//! `[model]`: the towers, their projections and adapters.

use dualenc_model::{AdapterConfig, Lock, Pool};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default;
use super::model_docs::{self, PoolDoc};

/// The two towers, their projections, and which of their parameters train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Image tower: a local Hugging Face directory, or a Hugging Face hub id (`name` or `org/name`).
    ///
    /// Required unless `init` is given.
    pub image_tower: Option<String>,
    /// Text tower: a local Hugging Face directory, or a Hugging Face hub id (`name` or `org/name`).
    ///
    /// Required unless `init` is given.
    pub text_tower: Option<String>,
    /// Trained model to start from, instead of two towers: the directory or hub id of a VisionTextDualEncoder, CLIP,
    /// Chinese CLIP, SigLIP or open_clip CLIP model, a run directory, or a checkpoint. SigLIP has no projections; they
    /// start as identities.
    ///
    /// Default: none.
    pub init: Option<String>,
    /// Which towers train, as two letters: first the image tower, then the text tower (LiT, arXiv:2111.07991, sec. 3).
    /// `L`: locked, pretrained. `U`: unlocked, pretrained. `u`: unlocked, from random weights.
    ///
    /// Default: `"LU"`: the image tower is locked, and a pretrained text tower learns to match it.
    #[serde(default = "default::lock")]
    #[schemars(schema_with = "model_docs::lock")]
    pub lock: Lock,
    /// Number of blocks at the end of a locked image tower that train nevertheless, with the final norm and the pooler
    /// after them. The blocks before them run without a gradient graph.
    ///
    /// Default: `0`.
    #[serde(default)]
    pub image_unlock_last: usize,
    /// Number of blocks at the end of a locked text tower that train nevertheless, with the final norm and the pooler
    /// after them. The blocks before them run without a gradient graph.
    ///
    /// Default: `0`.
    #[serde(default)]
    pub text_unlock_last: usize,
    /// Low-rank adapters of a locked image tower.
    ///
    /// Default: none.
    pub image_lora: Option<LoraSection>,
    /// Low-rank adapters of a locked text tower.
    ///
    /// Default: none.
    pub text_lora: Option<LoraSection>,
    /// Width of the shared embedding space.
    ///
    /// Default: `512` (`projection_dim` of VisionTextDualEncoder); with `init`, the width of that model.
    pub embed_dim: Option<usize>,
    /// How the image tower's tokens `[batch, seq, width]` are pooled into one vector `[batch, width]`.
    ///
    /// Default: `"auto"`.
    #[serde(default)]
    #[schemars(with = "PoolDoc")]
    pub image_pool: Pool,
    /// How the text tower's tokens `[batch, seq, width]` are pooled into one vector `[batch, width]`.
    ///
    /// Default: `"auto"`.
    #[serde(default)]
    #[schemars(with = "PoolDoc")]
    pub text_pool: Pool,
    /// Side of the square input image, in pixels. A side other than the tower's own interpolates its position
    /// embeddings.
    ///
    /// Default: the tower's own.
    pub image_size: Option<usize>,
    /// Initial value of `logit_scale`, the logarithm of the inverse temperature.
    ///
    /// Default: `2.6592`, ln(1 / 0.07) (`logit_scale_init_value` of VisionTextDualEncoder); for the sigmoid loss, ln 10
    /// = 2.3026 (SigLIP, arXiv:2303.15343, sec. 3.2); with `init`, the value of that model.
    pub logit_scale_init: Option<f64>,
    /// Dropout probability of the image tower while it trains, for hidden states and attention alike: 0 or more and
    /// less than 1.
    ///
    /// Default: the tower's own `hidden_dropout_prob` and `attention_probs_dropout_prob`.
    pub image_dropout: Option<f64>,
    /// Dropout probability of the text tower while it trains, for hidden states and attention alike: 0 or more and less
    /// than 1.
    ///
    /// Default: the tower's own `hidden_dropout_prob` and `attention_probs_dropout_prob`.
    pub text_dropout: Option<f64>,
    /// The projection of image features into the shared embedding space.
    #[serde(default)]
    pub image_projection: ImageProjectionSection,
    /// The projection of text features into the shared embedding space.
    #[serde(default)]
    pub text_projection: ProjectionSection,
}

/// The linear map, without bias, from the image tower's width to `embed_dim`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageProjectionSection {
    /// Whether the projection stays at its initial weights.
    ///
    /// Default: `false` (the reference trains both projections).
    #[serde(default)]
    pub locked: bool,
    /// Strength with which the initial projection whitens the features of a locked image tower over the training
    /// images, from 0 (random weights, as in the reference) to 1 (every direction of the features has the same weight).
    ///
    /// Default: `0.0` (the quickstart uses 0.6).
    #[serde(default)]
    pub whitening: f64,
}

/// The linear map, without bias, from the text tower's width to `embed_dim`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectionSection {
    /// Whether the projection stays at its initial weights.
    ///
    /// Default: `false` (the reference trains both projections).
    #[serde(default)]
    pub locked: bool,
}

/// Low-rank adapters (LoRA, Hu et al., 2022, arXiv:2106.09685) beside the linear layers of a locked tower. Checkpoints
/// hold only the adapters; `dualenc export` adds them to the tower's weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraSection {
    /// Rank of each adapter, at least 1.
    pub rank: usize,
    /// Numerator of the scale `alpha / rank` that multiplies each adapter's output.
    ///
    /// Default: `rank`, a scale of 1.
    pub alpha: Option<f64>,
    /// Linear layers of each block that get an adapter.
    ///
    /// Default: `["query", "value"]` (sec. 7.1 of the paper).
    #[serde(default = "default::lora_targets")]
    #[schemars(schema_with = "model_docs::lora_targets")]
    pub targets: Vec<String>,
}

impl ModelSection {
    /// Width of the shared embedding space before defaults are filled in; `None`: that of the model in `init`.
    pub(crate) fn embed_dim_of_towers(&self) -> Option<usize> {
        self.embed_dim.or_else(|| self.init.is_none().then_some(default::EMBED_DIM))
    }
}

impl LoraSection {
    /// The adapters in the model crate's terms.
    pub fn adapters(&self) -> AdapterConfig {
        let alpha = self.alpha.unwrap_or(self.rank as f64);
        AdapterConfig { rank: self.rank, alpha, targets: self.targets.clone() }
    }
}
