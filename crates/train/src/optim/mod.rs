//! From gradients to updated parameters: update rules, learning rates, weight decay, clipping and averaging.
//!
//! The loop that calls this is in `training`, checkpoint files in `run_dir::checkpoint`: nothing here reads or writes
//! a file. State and tables are keyed by the parameters' paths.
//!
//! - `optimizer`: walks the model, owns the optimiser state, clips by the global norm
//! - `rules`: one file per optimiser, each the formula for one parameter
//! - `param_groups`: learning rate and weight decay of each parameter, from the config
//! - `part_summary`: the table of what trains, part by part
//! - `lr_schedule`: warm-up, curve and cooldown, as a function of the step
//! - `clip`: clipping by the global norm, and steps that change nothing
//! - `gradients`: gradients of a backward pass, their sums and norms
//! - `head_golden_tests`: updates of heads of every kind, against PyTorch
//! - `ema`: exponential moving average of the weights
//! - `state_tensor`: a tensor of optimiser state or averages, for checkpoints

pub(crate) mod clip;
pub(crate) mod ema;
pub(crate) mod gradients;
#[cfg(test)]
mod head_golden_tests;
pub(crate) mod lr_schedule;
pub(crate) mod optimizer;
pub(crate) mod param_groups;
pub(crate) mod part_summary;
mod rules;
pub(crate) mod state_tensor;
