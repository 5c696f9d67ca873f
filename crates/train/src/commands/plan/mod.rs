//! `dualenc plan`: what a run will take, from a few of its steps. Nothing is written to the run directory or the
//! feature cache.
//!
//! - `make_plan`: the command: opens the run in a temporary directory, and measures each stage.
//! - `report`: the result.
//! - `budget`: how long measuring may take.
//! - `steps`: whole steps, as training makes them.
//! - `parts`: the parts of a step, one by one.
//! - `loading`: reading and decoding images.
//! - `memory`: peak memory at two batch sizes, and the batch that fits.
//! - `fit`: the fit of the heads before the first step.
//! - `cache_size`: what the feature cache will take on disk.
//! - `schedule`: how often evaluations and checkpoints run, and how long each takes.
//! - `stage`: a stage of the run, from its steps.
//! - `advice`: which one key to change first.
//! - `host`: memory and disk space, from the system.

mod advice;
mod budget;
mod cache_size;
mod fit;
mod host;
mod loading;
pub(crate) mod make_plan;
mod memory;
mod parts;
pub(crate) mod report;
mod schedule;
mod stage;
mod steps;
