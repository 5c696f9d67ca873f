//! The optimiser, the learning-rate schedule and `[[train.group]]`.

use serde::{Deserialize, Serialize};

/// What turns gradients into updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW (Loshchilov and Hutter, arXiv:1711.05101).
    #[default]
    AdamW,
    /// Adafactor (Shazeer and Stern, arXiv:1804.04235) with big_vision's settings: less memory, AdamW's rates.
    Adafactor,
    /// Lion (Chen et al., arXiv:2302.06675): half of AdamW's memory; rates 3 to 10 times lower, decay as much higher.
    Lion,
    /// Gradient descent with momentum: rates far higher.
    Sgd,
}

impl OptimizerKind {
    /// As it is written in the TOML.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdamW => "adamw",
            Self::Adafactor => "adafactor",
            Self::Lion => "lion",
            Self::Sgd => "sgd",
        }
    }

    /// Whether it reads `betas`, `eps`, `momentum`.
    pub(crate) fn reads(self) -> [bool; 3] {
        match self {
            Self::AdamW => [true, true, false],
            Self::Lion => [true, false, false],
            Self::Adafactor | Self::Sgd => [false, false, true],
        }
    }
}

/// What the learning rate does after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Falls to `learning_rate_floor` along half a cosine.
    #[default]
    Cosine,
    /// Falls to `learning_rate_floor` along a line.
    Linear,
    /// Falls as 1 over a root, whatever the length of the run: after n steps to sqrt(t / (t + n)), t being
    /// `rsqrt_timescale` (Zhai et al., arXiv:2106.04560, sec. 3.5).
    Rsqrt,
    /// Stays.
    Constant,
}

impl Schedule {
    /// As it is written in the TOML.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Linear => "linear",
            Self::Rsqrt => "rsqrt",
            Self::Constant => "constant",
        }
    }
}

/// `[[train.group]]`: rate and decay of the parameters of some names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSection {
    /// The form of the parameters' paths, such as `text_tower.encoder.blocks.*.attention.*` or `*_projection.weight`; `*`
    /// stands for any text, points too. Required.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Highest learning rate, on the same schedule; a stage's does not touch it, a layer decay does. Default: the run's, or the
    /// stage's.
    pub learning_rate: Option<f64>,
    /// Weight decay of the matrices among them. Default: the run's.
    pub weight_decay: Option<f64>,
}
