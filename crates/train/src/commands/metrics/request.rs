//! What is asked of an export of metrics.

use std::path::{Path, PathBuf};

/// A format for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricsFormat {
    /// A table with one row per step, as comma-separated values.
    Csv,
    /// The same table as one JSON object per row.
    Jsonl,
    /// A directory in the layout of MLflow's file store.
    Mlflow,
    /// A TensorBoard event file.
    Tensorboard,
}

/// Which metrics to write, and where.
#[derive(Debug, Clone)]
pub struct MetricsRequest<'a> {
    /// The run directory.
    pub run: &'a Path,
    /// The format.
    pub format: MetricsFormat,
    /// The file to write, for MLflow and TensorBoard the directory; `None`: return a table as text.
    pub out: Option<&'a Path>,
}

/// Metrics that were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrittenMetrics {
    /// A table that no file was named for.
    Text(String),
    /// A file or a directory.
    Path(PathBuf),
}
