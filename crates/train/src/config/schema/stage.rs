//! `[[train.stage]]`: which parameters train from a step or an epoch on.

use dualenc_model::Lock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{default, model_docs};

/// A stage of the run: which parameters train from a step or an epoch on. A tower that is locked again retains its
/// weights; its optimiser moments are retained until it trains again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageSection {
    /// Number of steps before the stage begins.
    ///
    /// Required unless `from_epoch` is given.
    pub from_step: Option<u64>,
    /// Number of epochs before the stage begins.
    ///
    /// Required unless `from_step` is given.
    pub from_epoch: Option<u64>,
    /// Which towers train, as `model.lock`. `u` is allowed only for a tower that started from random weights.
    #[schemars(schema_with = "model_docs::lock")]
    pub lock: Lock,
    /// Number of blocks at the end of a locked image tower that train nevertheless, as `model.image_unlock_last`.
    ///
    /// Default: `0`.
    #[serde(default)]
    pub image_unlock_last: usize,
    /// Number of blocks at the end of a locked text tower that train nevertheless, as `model.text_unlock_last`.
    ///
    /// Default: `0`.
    #[serde(default)]
    pub text_unlock_last: usize,
    /// Whether the adapters of locked towers train.
    ///
    /// Default: `true`.
    #[serde(default = "default::yes")]
    pub lora: bool,
    /// Peak learning rate from this stage on, on the same schedule. `projection_learning_rate` and the rates of
    /// `[[train.group]]` take precedence.
    ///
    /// Default: the rate of the previous stage.
    pub learning_rate: Option<f64>,
    /// Number of steps over which the learning rate rises again from 0 as the stage begins.
    ///
    /// Default: `0`.
    #[serde(default)]
    pub warmup_steps: u64,
}
