//! Rows of a source that are left out: whether that is an error, and the record of them.

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// What to do with a malformed row of a table, or the damaged rest of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BadRows {
    /// Fail at the first one.
    #[default]
    Error,
    /// Leave it out and count it in [`crate::Dataset::skipped`].
    Skip,
}

/// Rows without a pair: those with an empty caption or image name, and malformed ones under [`BadRows::Skip`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkippedRows {
    /// Number of rows.
    pub count: usize,
    /// The first ten, each with its place and reason.
    pub first: Vec<String>,
}

impl SkippedRows {
    const NAMED: usize = 10;

    /// Counts a row; `what` is its place and reason.
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < Self::NAMED {
            self.first.push(what());
        }
    }

    /// Adds the rows of `other`, which come later.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.truncate(Self::NAMED);
    }

    /// Counts the error under [`BadRows::Skip`], else returns it.
    pub(crate) fn or_fail(&mut self, policy: BadRows, error: DataError) -> Result<(), DataError> {
        match policy {
            BadRows::Error => Err(error),
            BadRows::Skip => {
                self.note(|| error.to_string());
                Ok(())
            }
        }
    }
}
