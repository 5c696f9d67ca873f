//! The update rules: what an optimiser does to one parameter.
//!
//! A rule sees flat values, gradient and state of a single parameter. Which parameters there are, their learning rates
//! and their state's memory belong to `optim::optimizer`.
//!
//! To add an optimiser: write its file here, add it to [`from_config`] and to `config`'s `OptimizerKind`, and give it
//! golden values in `scripts/goldens/optim.py`.
//!
//! - `update_rule`: the trait
//! - `adamw`, `adafactor`, `lion`, `sgd`: the rules
//! - `live_rows`: which rows of an embedding table they have to read

mod adafactor;
mod adamw;
mod lion;
mod live_rows;
mod sgd;
#[cfg(feature = "flex")]
#[cfg(test)]
mod tests;
pub(crate) mod update_rule;

use crate::config::{OptimizerKind, TrainSection, default};
use adafactor::Adafactor;
use adamw::AdamW;
use lion::Lion;
use sgd::Sgd;
use update_rule::UpdateRule;

/// The rule named by `train.optimizer`, with its settings from `train`.
pub(crate) fn from_config(config: &TrainSection) -> Box<dyn UpdateRule> {
    let momentum = config.momentum.unwrap_or(default::MOMENTUM);
    match config.optimizer {
        OptimizerKind::AdamW => Box::new(AdamW {
            betas: config.betas.unwrap_or(default::ADAMW_BETAS),
            epsilon: config.eps.unwrap_or(default::EPS),
        }),
        OptimizerKind::Adafactor => Box::new(Adafactor { momentum }),
        OptimizerKind::Lion => Box::new(Lion { betas: config.betas.unwrap_or(default::LION_BETAS) }),
        OptimizerKind::Sgd => Box::new(Sgd { momentum }),
    }
}
