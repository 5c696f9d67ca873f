//! What the table-like sources share: rows that become pairs, or are counted.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::dataset::Dataset;
use crate::dataset::builder::DatasetBuilder;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::{BadRows, Left};
use crate::error::DataError;
use crate::images::location::ImageRef;
use crate::sources::tables::image_path::ImagePaths;

/// Collects the rows of one file.
pub(crate) struct Rows<'a> {
    path: &'a Path,
    /// What the place of a row counts: `line`, `item` or `annotation`.
    unit: &'static str,
    bad_rows: BadRows,
    pub(crate) builder: DatasetBuilder,
    pub(crate) paths: ImagePaths,
    /// The first row with an image that is no local file, why, and the number of such rows.
    remote: Option<(u64, String, u64)>,
    /// Number of rows seen, of those selected.
    pub(crate) count: u64,
}

impl<'a> Rows<'a> {
    /// Rows of the file `path`. `root`: directory of the images; without it, that of the file.
    pub(crate) fn new(
        path: &'a Path,
        root: Option<&Path>,
        unit: &'static str,
        bad_rows: BadRows,
        selection: Option<Selection>,
    ) -> Self {
        let root = root.or(path.parent()).unwrap_or(Path::new(""));
        Self {
            path,
            unit,
            bad_rows,
            builder: DatasetBuilder::new(root).with_selection(selection),
            paths: ImagePaths::new(root),
            remote: None,
            count: 0,
        }
    }

    /// Whether row `row` with the image `key` is wanted.
    pub(crate) fn selects(&mut self, row: u64, key: &str) -> bool {
        let selects = self.builder.selects(row, key.trim());
        self.count += u64::from(selects);
        selects
    }

    /// A malformed row: an error, or counted. After a row with an image elsewhere, the error about that is enough.
    pub(crate) fn malformed(&mut self, place: u64, reason: impl Into<String>) -> Result<(), DataError> {
        if self.remote.is_some() && self.bad_rows == BadRows::Error {
            return Ok(());
        }
        self.malformed_as(self.unit, place, reason)
    }

    /// As [`Rows::malformed`], with another unit of the place.
    pub(crate) fn malformed_as(
        &mut self,
        unit: &'static str,
        place: u64,
        reason: impl Into<String>,
    ) -> Result<(), DataError> {
        let error = DataError::row(self.path, unit, place, reason);
        self.builder.skipped.or_fail(self.bad_rows, error)
    }

    /// A row without a caption.
    pub(crate) fn no_caption(&mut self, place: u64) {
        let (path, unit) = (self.path, self.unit);
        self.builder
            .skipped
            .note("empty caption", || Left::row(place, format!("`{}`, {unit} {place}: empty caption", path.display())));
    }

    /// Adds an image with its captions, each with its slot. Those that are empty are counted.
    pub(crate) fn push<'b>(
        &mut self,
        place: u64,
        image: &str,
        captions: impl IntoIterator<Item = (usize, &'b str)>,
    ) -> Result<(), DataError> {
        let (path, unit) = (self.path, self.unit);
        let image = image.trim();
        if image.is_empty() {
            self.builder
                .skipped
                .note("no image", || Left::row(place, format!("`{}`, {unit} {place}: no image", path.display())));
            return Ok(());
        }
        let file = match self.paths.find(image) {
            Ok(file) => file,
            Err(reason) if self.bad_rows == BadRows::Skip || reason.contains("NUL") => {
                return self.malformed(place, reason);
            }
            Err(reason) => {
                self.remote.get_or_insert((place, reason, 0)).2 += 1;
                return Ok(());
            }
        };
        for (slot, caption) in captions {
            // More than 256 captions of an image share the last slot.
            let slot = u8::try_from(slot).unwrap_or(u8::MAX);
            if !self.builder.push_slot(ImageRef::File(file.clone()), caption, slot) {
                self.no_caption(place);
            }
        }
        Ok(())
    }

    /// The data set. `described`: what was recognised, such as `tab-separated, UTF-8, header`; `origin`: where image
    /// and caption come from; `expected`: what a usable file holds.
    pub(crate) fn finish(
        mut self,
        described: &str,
        origin: &str,
        expected: &'static str,
    ) -> Result<Dataset, DataError> {
        if let Some((place, reason, count)) = self.remote {
            let others = if count > 1 { format!(" ({count} rows have such images)") } else { String::new() };
            return Err(DataError::row(self.path, self.unit, place, format!("{reason}{others}")));
        }
        let file = self.path.file_name().unwrap_or_default().display().to_string();
        self.builder.refuse_empty(self.path, || {
            let causes = self.builder.skipped.by_cause();
            let causes = if causes.is_empty() { String::new() } else { format!(": {causes}") };
            let found = format!("{described}, and no usable row{causes}");
            DataError::Empty { path: PathBuf::from(self.path), found, expected }
        })?;
        let rows = if self.count == 1 { "1 row".to_owned() } else { format!("{} rows", self.count) };
        self.builder.note(format!("`{file}`: {described}, {rows}; {origin}"));
        self.paths.tell(&file, &mut self.builder);
        self.builder.finish(self.path)
    }
}

/// A string, or a list of strings.
pub(crate) fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        _ => None,
    }
}
