//! `[[train.stage]]`: what trains from some step on.

use dualenc_model::Lock;
use serde::{Deserialize, Serialize};

use super::default;

/// `[[train.stage]]`: what changes at a step of the run. A tower that is locked again keeps what it learned; a parameter's
/// moments wait for it meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageSection {
    /// The stage begins after so many steps. Required, or `from_epoch`.
    pub from_step: Option<u64>,
    /// The stage begins after so many epochs.
    pub from_epoch: Option<u64>,
    /// What trains in it, as `model.lock`; `u` only for a tower that started from scratch. Required.
    pub lock: Lock,
    /// As `model.image_unlock_last`, in this stage. Default 0.
    #[serde(default)]
    pub image_unlock_last: usize,
    /// As `model.text_unlock_last`, in this stage. Default 0.
    #[serde(default)]
    pub text_unlock_last: usize,
    /// Whether the adapters of locked towers train in it. Default `true`.
    #[serde(default = "default::yes")]
    pub lora: bool,
    /// Highest learning rate from here on, on the same schedule, of what has no rate of its own (`projection_learning_rate`,
    /// `[[train.group]]`). Default: that of the stage before.
    pub learning_rate: Option<f64>,
    /// Steps over which the rate rises anew from 0 as the stage begins. Default 0.
    #[serde(default)]
    pub warmup_steps: u64,
}
