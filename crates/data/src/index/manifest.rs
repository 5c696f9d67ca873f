//! What an index says about itself: JSON with a checksum at its end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::dataset::part::Part;
use crate::dataset::skipped_rows::{SkippedRow, SkippedRows};
use crate::error::DataError;
use crate::index::inputs::{Input, text_of};

/// The file of the manifest, which is written when all others are.
pub const INDEX_MANIFEST: &str = "manifest.json";

/// What an index holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) inputs: Vec<Input>,
    /// The pairs to train on, and those that are held out, if a share of them is.
    pub(crate) sides: Vec<Side>,
    pub(crate) skipped: Skips,
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// A data set in an index.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Side {
    pub(crate) images: usize,
    pub(crate) captions: usize,
    pub(crate) has_slots: bool,
    pub(crate) parts: Vec<PartRecord>,
    /// The shards that images are in, by their numbers.
    pub(crate) shards: Vec<String>,
    pub(crate) empty_images: Vec<u32>,
    pub(crate) null_words: (usize, Option<u32>),
    pub(crate) columns: Vec<ColumnRecord>,
    /// The fingerprint, and how the pairs are used that it is of.
    pub(crate) fingerprint: String,
    pub(crate) fingerprint_use: String,
}

/// The file of a column.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ColumnRecord {
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) blake3: String,
}

/// The images and captions of a source.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PartRecord {
    root: String,
    images: (usize, usize),
    captions: (usize, usize),
    class_names: Vec<String>,
}

impl PartRecord {
    /// # Errors
    /// [`DataError::Loader`] if the root is not UTF-8.
    pub(crate) fn of(part: &Part) -> Result<Self, DataError> {
        Ok(Self {
            root: text_of(&part.root)?.to_owned(),
            images: (part.images.start, part.images.end),
            captions: (part.captions.start, part.captions.end),
            class_names: part.class_names.clone(),
        })
    }

    pub(crate) fn part(&self) -> Part {
        let part = Part::new((&self.root).into(), self.images.0..self.images.1, self.captions.0..self.captions.1);
        Part { class_names: self.class_names.clone(), ..part }
    }
}

/// The rows that were left out.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Skips {
    count: usize,
    causes: BTreeMap<String, usize>,
    rows: Vec<SkippedRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SkippedRecord {
    cause: String,
    message: String,
    row: Option<u64>,
    key: Option<String>,
    source: Option<PathBuf>,
}

impl From<SkippedRows> for Skips {
    fn from(skipped: SkippedRows) -> Self {
        let causes = skipped.causes.into_iter().map(|(cause, count)| (cause.into_owned(), count)).collect();
        let rows = skipped.rows.into_iter().map(|SkippedRow { cause, message, row, key, source }| {
            let source = source.map(|source| source.to_path_buf());
            SkippedRecord { cause: cause.into_owned(), message, row, key, source }
        });
        Self { count: skipped.count, causes, rows: rows.collect() }
    }
}

impl From<Skips> for SkippedRows {
    fn from(skipped: Skips) -> Self {
        let causes = skipped.causes.into_iter().map(|(cause, count)| (Cow::Owned(cause), count)).collect();
        // Rows of one source share its path.
        let mut last: Option<Arc<Path>> = None;
        let rows = skipped.rows.into_iter().map(|SkippedRecord { cause, message, row, key, source }| {
            let source = source.map(|source| match last.take().filter(|last| **last == *source) {
                Some(known) => known,
                None => Arc::from(source),
            });
            last.clone_from(&source);
            SkippedRow { cause: Cow::Owned(cause), message, row, key, source }
        });
        Self { count: skipped.count, causes, rows: rows.collect() }
    }
}

impl Manifest {
    /// The bytes of the file: JSON, and a line with the BLAKE3 hash of the JSON.
    ///
    /// # Errors
    /// [`DataError::Loader`] for what JSON cannot hold: a path that is not UTF-8.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, DataError> {
        let reason = |error: serde_json::Error| format!("the data index cannot be described: {error}");
        let mut bytes = serde_json::to_vec(self).map_err(|error| DataError::Loader { reason: reason(error) })?;
        let hash = blake3::hash(&bytes).to_hex();
        bytes.push(b'\n');
        bytes.extend_from_slice(hash.as_bytes());
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The manifest in these bytes; `None` if they are damaged.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let text = bytes.strip_suffix(b"\n")?;
        let end = text.iter().rposition(|&byte| byte == b'\n')?;
        let (json, hash) = (&text[..end], &text[end + 1..]);
        (blake3::hash(json).to_hex().as_bytes() == hash).then(|| serde_json::from_slice(json).ok()).flatten()
    }
}
