//! The optimiser, the learning-rate schedule and `[[train.group]]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW (Loshchilov and Hutter, arXiv:1711.05101).
    #[default]
    AdamW,
    /// Adafactor (Shazeer and Stern, arXiv:1804.04235) with big_vision's settings. Less memory than
    /// AdamW, at similar learning rates.
    Adafactor,
    /// Lion (Chen et al., arXiv:2302.06675): half of AdamW's memory, at learning rates 3 to 10 times
    /// lower and weight decay as many times higher.
    Lion,
    /// Gradient descent with momentum, at much higher learning rates than AdamW.
    Sgd,
}

impl OptimizerKind {
    /// The value in the TOML.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdamW => "adamw",
            Self::Adafactor => "adafactor",
            Self::Lion => "lion",
            Self::Sgd => "sgd",
        }
    }

    /// The keys of `[train]` that this optimiser uses, among `betas`, `eps` and `momentum`.
    pub(crate) fn hyperparameters(self) -> &'static [&'static str] {
        match self {
            Self::AdamW => &["betas", "eps"],
            Self::Lion => &["betas"],
            Self::Adafactor | Self::Sgd => &["momentum"],
        }
    }
}

/// A learning-rate schedule after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Falls to `learning_rate_floor` along half a cosine wave.
    #[default]
    Cosine,
    /// Falls to `learning_rate_floor` linearly.
    Linear,
    /// Falls by the inverse square root, independent of the length of the run: to sqrt(t / (t + n)) of the peak after n
    /// steps, where t is `rsqrt_timescale` (Zhai et al., arXiv:2106.04560, sec. 3.5).
    Rsqrt,
    /// Stays at the peak.
    Constant,
}

impl Schedule {
    /// The value in the TOML.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Linear => "linear",
            Self::Rsqrt => "rsqrt",
            Self::Constant => "constant",
        }
    }
}

/// A group of parameters with their own learning rate or weight decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSection {
    /// Pattern of parameter names, such as `text_tower.encoder.blocks.*.attention.*` or `*_projection.weight`, where
    /// `*` matches any text, dots included.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Peak learning rate, on the same schedule. It takes precedence over a stage's rate; layer decay still applies.
    ///
    /// Default: the rate of the stage or the run.
    pub learning_rate: Option<f64>,
    /// Weight decay of the weight matrices in the group.
    ///
    /// Default: `weight_decay` of `[train]`.
    pub weight_decay: Option<f64>,
}
