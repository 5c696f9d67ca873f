//! TODO

pub(crate) mod adafactor;
pub(crate) mod adamw;
pub(crate) mod ema;
pub(crate) mod gradients;
pub(crate) mod lion;
pub(crate) mod lr_schedule;
pub(crate) mod optimizer;
pub(crate) mod param_groups;
pub(crate) mod rule;
pub(crate) mod sgd;
#[cfg(all(test, feature = "flex"))]
mod tests;
