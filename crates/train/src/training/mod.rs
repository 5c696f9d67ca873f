//! Training: the loop, what a step computes, and the state of a run. Losses, optimisers and file formats are in `loss`,
//! `optim` and `run_dir`.
//!
//! - `training_loop.rs`: THE LOOP
//! - `step.rs`, `gradient_cache/`: loss and gradients of a batch, whole or in parts
//! - `unfinished.rs`, `finish.rs`: a step that a device still computes, and what is done when its numbers are known
//! - `run.rs`: the parts of a run in progress
//! - `learner.rs`: model, optimiser and averages, and an update
//! - `training_data.rs`, `locked_inputs.rs`: batches, and the features of locked towers
//! - `records.rs`: metrics, checkpoints and the guard against a diverged step
//! - `position.rs`, `stages.rs`: counters, and what trains when
//! - `health.rs`: warnings about training that learns nothing
//! - `open.rs`, `open/resume_checks.rs`, `open/whitening.rs`: before the first step
//! - `open/replica.rs`: the same for a rank that is not the first

mod finish;
pub(crate) mod gradient_cache;
pub(crate) mod health;
pub(crate) mod learner;
pub(crate) mod locked_inputs;
mod open;
pub(crate) mod position;
pub(crate) mod records;
pub(crate) mod run;
pub(crate) mod stages;
pub(crate) mod step;
pub(crate) mod training_data;
pub(crate) mod training_loop;
mod unfinished;
