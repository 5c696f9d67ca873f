//! `dualenc metrics`: the numbers of a run's `metrics.jsonl` in the formats of other programs. The run is only read.
//!
//! - `request`: what is asked for
//! - `write_metrics`: writes it
//! - `rows`: the log as one row per step
//! - `tables`: the rows as CSV and as JSON lines
//! - `mlflow`: the file store of MLflow

mod mlflow;
pub(crate) mod request;
mod rows;
mod tables;
pub(crate) mod write_metrics;
