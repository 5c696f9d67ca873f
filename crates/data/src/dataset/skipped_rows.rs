//! Rows of a source that are left out: whether that is an error, and the record of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// Why a caption is left out that has no image.
pub const NO_IMAGE: &str = "no image";

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

/// A row that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedRow {
    /// A few words that rows with the same fault share, such as `empty caption`.
    pub cause: Cow<'static, str>,
    /// Its place and what is wrong.
    pub message: String,
    /// The number of its line, record or annotation, 1-based, if it has one.
    pub row: Option<u64>,
    /// What names its sample, if there is more than a number: the path of its image, or `shard.tar/sample`.
    pub key: Option<String>,
    /// The source: a file or directory of the config.
    pub source: Option<Arc<Path>>,
}

/// What names a row that is left out.
pub(crate) struct Left {
    row: Option<u64>,
    key: Option<String>,
    message: String,
}

impl Left {
    /// Row number `row`, 1-based.
    pub(crate) fn row(row: u64, message: String) -> Self {
        Self { row: Some(row), key: None, message }
    }

    /// The sample `key`: the path of its image, or `shard.tar/sample`.
    pub(crate) fn sample(key: impl Display, message: String) -> Self {
        Self { row: None, key: Some(key.to_string()), message }
    }
}

impl From<String> for Left {
    fn from(message: String) -> Self {
        Self { row: None, key: None, message }
    }
}

/// Rows without a pair: those with an empty caption or image name, and malformed ones under [`BadRows::Skip`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkippedRows {
    /// Number of rows.
    pub count: usize,
    /// Number of rows by cause.
    pub causes: BTreeMap<Cow<'static, str>, usize>,
    /// The first of them, at most [`SkippedRows::MAX_LISTED`].
    pub rows: Vec<SkippedRow>,
}

impl SkippedRows {
    /// Number of rows that are listed, not only counted: about 10 MB of messages.
    pub const MAX_LISTED: usize = 100_000;

    /// Messages of the first `limit` rows, separated by `; `.
    #[must_use]
    pub fn first(&self, limit: usize) -> String {
        self.rows.iter().take(limit).map(|row| row.message.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// The causes with their counts, the most frequent first, such as `empty caption (12), no image (3)`.
    #[must_use]
    pub fn by_cause(&self) -> String {
        let mut causes: Vec<_> = self.causes.iter().collect();
        causes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        causes.iter().map(|(cause, count)| format!("{cause} ({count})")).collect::<Vec<_>>().join(", ")
    }

    /// Counts a row. `describe`: its place and what is wrong.
    pub(crate) fn note<L: Into<Left>>(&mut self, cause: &'static str, describe: impl FnOnce() -> L) {
        self.count += 1;
        *self.causes.entry(Cow::Borrowed(cause)).or_default() += 1;
        if self.rows.len() < Self::MAX_LISTED {
            let Left { row, key, message } = describe().into();
            self.rows.push(SkippedRow { cause: Cow::Borrowed(cause), message, row, key, source: None });
        }
    }

    /// Sets the source of the rows that have none.
    pub(crate) fn set_source(&mut self, source: &Path) {
        let source: Arc<Path> = Arc::from(source);
        let rows = self.rows.iter_mut().filter(|row| row.source.is_none());
        rows.for_each(|row| row.source = Some(Arc::clone(&source)));
    }

    /// Adds the rows of `other`, which come later.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.count += other.count;
        for (cause, count) in other.causes {
            *self.causes.entry(cause).or_default() += count;
        }
        self.rows.extend(other.rows);
        self.rows.truncate(Self::MAX_LISTED);
    }

    /// Counts the error under [`BadRows::Skip`], else returns it.
    pub(crate) fn or_fail(&mut self, policy: BadRows, error: DataError) -> Result<(), DataError> {
        self.or_fail_as("malformed", policy, error)
    }

    /// As [`SkippedRows::or_fail`], with another cause.
    pub(crate) fn or_fail_as(
        &mut self,
        cause: &'static str,
        policy: BadRows,
        error: DataError,
    ) -> Result<(), DataError> {
        match policy {
            BadRows::Error => Err(error),
            BadRows::Skip => {
                self.note(cause, || {
                    let row = if let DataError::Row { row, .. } = &error { Some(*row) } else { None };
                    Left { row, key: None, message: error.to_string() }
                });
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_cause() {
        let mut rows = SkippedRows::default();
        rows.note("no image", || "line 1: no image".to_owned());
        let mut others = SkippedRows::default();
        others.note("empty caption", || "line 2: empty caption".to_owned());
        others.note("empty caption", || "line 3: empty caption".to_owned());
        rows.absorb(others);
        assert_eq!((rows.count, rows.by_cause().as_str()), (3, "empty caption (2), no image (1)"));
        assert_eq!(rows.first(2), "line 1: no image; line 2: empty caption");
    }

    #[test]
    fn rows_have_numbers_or_keys() {
        let mut rows = SkippedRows::default();
        rows.or_fail(BadRows::Skip, DataError::row(Path::new("a, b: c"), "line", 12, "none")).unwrap();
        rows.note("no image", || Left::sample("s.tar/7", "`s.tar`: sample `7` has no image".to_owned()));
        rows.set_source(Path::new("a.csv"));
        rows.note("no image", || Left::row(3, "line 3: no image".to_owned()));
        rows.set_source(Path::new("b.csv"));
        let found: Vec<_> = rows.rows.iter().map(|row| (row.row, row.key.as_deref(), row.source.as_deref())).collect();
        let (a, b) = (Some(Path::new("a.csv")), Some(Path::new("b.csv")));
        assert_eq!(found, [(Some(12), None, a), (None, Some("s.tar/7"), a), (Some(3), None, b)]);
    }
}
