//! What people and machines read: progress and errors on stderr, results on stdout. Nothing here computes.
//!
//! - `progress`: progress bar, plain lines or JSON lines of a run, on stderr.
//! - `json_log`: the JSON lines.
//! - `notice`: a line from another thread.
//! - `param_table`: the table of trainable and locked parameters.
//! - `plan_text`: the plan of a run.
//! - `metrics`: the metrics of evaluations, as text and as JSON.
//! - `details`: the answers behind them.
//! - `results`: where the result of a command goes, `--json` included.
//! - `errors`: errors with their causes, and config errors with the lines they are about.

pub(crate) mod details;
pub(crate) mod errors;
pub(crate) mod json_log;
pub(crate) mod metrics;
pub(crate) mod notice;
mod param_table;
pub(crate) mod plan_text;
pub(crate) mod progress;
pub(crate) mod results;
