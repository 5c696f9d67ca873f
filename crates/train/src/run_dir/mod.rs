//! The directory of a run: `config.toml`, `metrics.jsonl`, `checkpoints/` and the lock that keeps other processes out.
//!
//! A process may be killed at any moment and the run resumed: every file here is either complete or recognised as
//! damaged. What is trained, and when something is logged or saved, is decided in `training`.
//!
//! - `layout`: paths in a run directory, and its lock
//! - `bad_samples`: `bad_samples.jsonl`, the rows and images that a run does without
//! - `metrics_log`: `metrics.jsonl`, written and read
//! - `log_points`: the numbers of `metrics.jsonl`, by the names of trackers
//! - `tensorboard`: the same numbers as an event file
//! - `flat_config`: a config as a list of keys
//! - `checkpoint`: checkpoints, written, read, verified and pruned
//! - `best`: which checkpoint is the best, from the log
//! - `append_file`: a file that grows by whole pieces
//! - `atomic_file`: writing a file completely or not at all
//! - `fail_point`: moments at which tests kill the process

mod append_file;
pub(crate) mod atomic_file;
pub(crate) mod bad_samples;
pub(crate) mod best;
pub(crate) mod checkpoint;
pub(crate) mod fail_point;
pub(crate) mod flat_config;
pub(crate) mod layout;
pub(crate) mod log_points;
pub(crate) mod metrics_log;
pub(crate) mod tensorboard;
