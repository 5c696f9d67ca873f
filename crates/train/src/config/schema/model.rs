//! `[model]`: the towers, their projections, and what of them trains.

use dualenc_model::{AdapterConfig, Lock, Pool};
use serde::{Deserialize, Serialize};

use super::default;

/// `[model]`: the two towers, their projections, and what of them trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Image tower: a local Hugging Face directory, or a hub id (`name` or `org/name`). Required unless `init` is given.
    pub image_tower: Option<String>,
    /// Text tower: a local Hugging Face directory, or a hub id (`name` or `org/name`). Required unless `init` is given.
    pub text_tower: Option<String>,
    /// Instead of the two towers: the directory or hub id of a whole model (VisionTextDualEncoder, CLIP, Chinese CLIP, SigLIP,
    /// whose projections start as identities, or an open_clip CLIP), a run directory or a checkpoint to start
    /// from. Default: none.
    pub init: Option<String>,
    /// Two letters, the image tower's then the text tower's: `L` locked, `U` unlocked and pretrained, `u` unlocked from
    /// scratch (LiT, arXiv:2111.07991, sec. 3). Default `LU`: a pretrained image tower that does not move, and a
    /// pretrained text tower that learns to match it.
    #[serde(default = "default::lock")]
    pub lock: Lock,
    /// Blocks at the end of a locked image tower that train all the same, with the final norm and the pooler behind them. The
    /// blocks before them run without a graph. Default 0.
    #[serde(default)]
    pub image_unlock_last: usize,
    /// The same of a locked text tower. Default 0.
    #[serde(default)]
    pub text_unlock_last: usize,
    /// Low-rank adapters of a locked image tower, a table `[model.image_lora]`. Default: none.
    pub image_lora: Option<LoraSection>,
    /// Low-rank adapters of a locked text tower, a table `[model.text_lora]`. Default: none.
    pub text_lora: Option<LoraSection>,
    /// Width of the common space. Default 512 (`projection_dim` of VisionTextDualEncoder); with `init`, the width found
    /// there.
    pub embed_dim: Option<usize>,
    /// How the image tower's tokens `[batch, seq, width]` become one vector: `auto`, the tower's own pooled output as in the
    /// reference, refused where its weights are missing; `cls`, the first token; `mean`; or `pooler`. Default `auto`.
    #[serde(default)]
    pub image_pool: Pool,
    /// The same for the text tower; `mean` leaves padding out. Default `auto`.
    #[serde(default)]
    pub text_pool: Pool,
    /// Side of the square image given to the tower, in pixels. Default: the tower's own; other sizes interpolate its
    /// position embeddings.
    pub image_size: Option<usize>,
    /// Initial `logit_scale`, the logarithm of the inverse temperature. Default 2.6592 = ln(1 / 0.07)
    /// (`logit_scale_init_value` of VisionTextDualEncoder), and 2.3026 = ln 10 of the sigmoid loss (SigLIP, arXiv:2303.15343,
    /// sec. 3.2); with `init`, the value found there.
    pub logit_scale_init: Option<f64>,
    /// Dropout probability of the image tower while it trains, hidden and attention alike. Default: the tower's own
    /// `hidden_dropout_prob` and `attention_probs_dropout_prob`.
    pub image_dropout: Option<f64>,
    /// Dropout probability of the text tower while it trains, hidden and attention alike. Default: the tower's own
    /// `hidden_dropout_prob` and `attention_probs_dropout_prob`.
    pub text_dropout: Option<f64>,
    /// The linear map from the image tower's width to `embed_dim`.
    #[serde(default)]
    pub image_projection: ImageProjectionSection,
    /// The linear map from the text tower's width to `embed_dim`.
    #[serde(default)]
    pub text_projection: ProjectionSection,
}

/// `[model.image_projection]`: one linear map without bias.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageProjectionSection {
    /// Keep the map as it was initialised. Default `false` (the reference trains both).
    #[serde(default)]
    pub locked: bool,
    /// How far the map starts by whitening the features of a locked image tower over the training images, from 0 (not at
    /// all) to 1 (every direction weighs the same). Default 0, random weights as in the reference; the quickstart takes 0.6.
    #[serde(default)]
    pub whitening: f64,
}

/// `[model.image_lora]`, `[model.text_lora]`: low-rank adapters (LoRA, Hu et al., 2022, arXiv:2106.09685) beside the matrices of
/// a locked tower. Checkpoints hold the adapters alone; `dualenc export` writes the tower with their differences in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraSection {
    /// Rank of a difference. Required.
    pub rank: usize,
    /// A difference counts `alpha / rank` times. Default: `rank`.
    pub alpha: Option<f64>,
    /// Which linears of each block have one: `query`, `key`, `value`, `output`, `gate`, `up`, `down`. Default `query` and
    /// `value` (sec. 7.1 of the paper).
    #[serde(default = "default::lora_targets")]
    pub targets: Vec<String>,
}

impl LoraSection {
    /// As the model takes it.
    pub fn adapters(&self) -> AdapterConfig {
        let alpha = self.alpha.unwrap_or(self.rank as f64);
        AdapterConfig { rank: self.rank, alpha, targets: self.targets.clone() }
    }
}

/// `[model.text_projection]`: one linear map without bias.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectionSection {
    /// Keep the map as it was initialised. Default `false` (the reference trains both).
    #[serde(default)]
    pub locked: bool,
}
