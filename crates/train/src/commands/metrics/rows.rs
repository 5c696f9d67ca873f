//! The log of a run as one row per step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::TrainError;
use crate::run_dir::log_points::{Damage, fallback_time, read_points};

/// The values of one step.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Row {
    /// Seconds since 1970.
    pub time: f64,
    /// Values by tag. What was not finite is NaN.
    pub values: BTreeMap<String, f64>,
}

/// The values of a run by step.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Rows {
    pub steps: BTreeMap<u64, Row>,
    pub damage: Damage,
}

impl Rows {
    /// Reads the log at `path`.
    ///
    /// # Errors
    /// [`TrainError::Read`] when it exists and cannot be read.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let (mut rows, fallback) = (Self::default(), fallback_time(path));
        rows.damage = read_points(path, |points| {
            if !points.values.is_empty() {
                let time = points.time.unwrap_or(fallback);
                let row = rows.steps.entry(points.step).or_insert_with(|| Row { time, ..Row::default() });
                row.values.extend(points.values);
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// All tags, sorted.
    pub fn tags(&self) -> Vec<&str> {
        let tags = self.steps.values().flat_map(|row| row.values.keys().map(String::as_str));
        tags.collect::<BTreeSet<_>>().into_iter().collect()
    }
}
