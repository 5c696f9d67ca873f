//! What the table-like sources share: rows that become pairs, or are counted.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::counted::counted;
use crate::dataset::Dataset;
use crate::dataset::builder::DatasetBuilder;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::{BadRows, Left, NO_IMAGE};
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
    /// The first row with an image that is no local file.
    remote: Option<Remote<'a>>,
    /// Number of rows seen, of those selected.
    pub(crate) count: u64,
    /// Number of rows of splits that were not asked for.
    pub(crate) num_other_splits: u64,
    /// Number of empty captions in rows with another caption, and the place of the first.
    empty: (usize, String),
    /// Pairs that are listed in place of those in `builder`; of a row without a caption, one.
    listed: Option<Vec<Listed>>,
}

/// A row with an image that is no local file.
struct Remote<'a> {
    path: &'a Path,
    place: u64,
    reason: String,
    /// Number of such rows.
    count: u64,
}

/// A pair of a table that another source uses.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) file: PathBuf,
    pub(crate) slot: u8,
    /// Empty if there is none.
    pub(crate) caption: String,
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
            num_other_splits: 0,
            empty: (0, String::new()),
            listed: None,
        }
    }

    /// Rows that are listed for another source: see [`Rows::into_listed`].
    pub(crate) fn listing(path: &'a Path, unit: &'static str) -> Self {
        Self { listed: Some(Vec::new()), ..Self::new(path, None, unit, BadRows::Error, None) }
    }

    /// Sets what the place of a row counts.
    pub(crate) fn set_unit(&mut self, unit: &'static str) {
        self.unit = unit;
    }

    /// Goes on with the rows of the file `path`, with images below `root`.
    pub(crate) fn go_on(&mut self, path: &'a Path, root: &Path) {
        if self.paths.root() != root {
            self.tell();
            self.paths = ImagePaths::new(root);
        }
        self.path = path;
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

    /// A row without a split, while some are asked for: an error, or counted.
    pub(crate) fn no_split(&mut self, place: u64) -> Result<(), DataError> {
        if self.remote.is_some() && self.bad_rows == BadRows::Error {
            return Ok(());
        }
        let reason = "no `split`, and `split` is set; fill it in, or set `bad_rows = \"skip\"`";
        let error = DataError::row(self.path, self.unit, place, reason);
        self.builder.skipped.or_fail_as("no split", self.bad_rows, error)
    }

    /// A row with an image, and without a caption.
    pub(crate) fn push_uncaptioned(&mut self, place: u64, image: &str) -> Result<(), DataError> {
        if self.listed.is_some() {
            return self.push(place, image, [(0, "")]);
        }
        self.no_caption(place);
        Ok(())
    }

    /// A row without a caption.
    pub(crate) fn no_caption(&mut self, place: u64) {
        let (path, unit) = (self.path, self.unit);
        self.builder
            .skipped
            .note("empty caption", || Left::row(place, format!("`{}`, {unit} {place}: empty caption", path.display())));
    }

    /// Counts empty captions of a row that has another.
    fn note_empty(&mut self, place: u64, count: usize) {
        if self.empty.0 == 0 && count > 0 {
            self.empty.1 = format!("`{}`, {} {place}", self.path.display(), self.unit);
        }
        self.empty.0 += count;
    }

    /// Adds an image with its captions, each with its slot. A row with empty captions only is left out and counted.
    pub(crate) fn push<'b>(
        &mut self,
        place: u64,
        image: &str,
        captions: impl IntoIterator<Item = (usize, &'b str)>,
    ) -> Result<(), DataError> {
        let image = image.trim();
        if image.is_empty() {
            let (path, unit) = (self.path, self.unit);
            self.builder
                .skipped
                .note(NO_IMAGE, || Left::row(place, format!("`{}`, {unit} {place}: no image", path.display())));
            return Ok(());
        }
        let file = match self.paths.find(image) {
            Ok(file) => file,
            Err(reason) if self.bad_rows == BadRows::Skip || reason.contains("NUL") => {
                return self.malformed(place, reason);
            }
            Err(reason) => {
                let path = self.path;
                self.remote.get_or_insert(Remote { path, place, reason, count: 0 }).count += 1;
                return Ok(());
            }
        };
        if let Some(listed) = &mut self.listed {
            let (before, mut empty) = (listed.len(), 0);
            for (slot, caption) in captions {
                let (slot, caption) = (u8::try_from(slot).unwrap_or(u8::MAX), caption.trim().to_owned());
                match caption.is_empty() {
                    true => empty += 1,
                    false => listed.push(Listed { file: file.clone(), slot, caption }),
                }
            }
            if listed.len() == before {
                listed.push(Listed { file, slot: 0, caption: String::new() });
            } else {
                self.note_empty(place, empty);
            }
            return Ok(());
        }
        self.push_image(place, &ImageRef::File(file), captions);
        Ok(())
    }

    /// As [`Rows::push`], of an image that is not looked for.
    pub(crate) fn push_image<'b>(
        &mut self,
        place: u64,
        image: &ImageRef,
        captions: impl IntoIterator<Item = (usize, &'b str)>,
    ) {
        let (mut has_caption, mut empty) = (false, 0);
        for (slot, caption) in captions {
            // More than 256 captions of an image share the last slot.
            let slot = u8::try_from(slot).unwrap_or(u8::MAX);
            match self.builder.push_slot(image.clone(), caption, slot) {
                true => has_caption = true,
                false => empty += 1,
            }
        }
        match has_caption {
            true => self.note_empty(place, empty),
            false => self.no_caption(place),
        }
    }

    /// The data set. `described`: what was recognised, such as `tab-separated, UTF-8, header`; `origin`: where image
    /// and caption come from; `expected`: what a usable file holds.
    pub(crate) fn finish(
        mut self,
        described: &str,
        origin: &str,
        expected: &'static str,
    ) -> Result<Dataset, DataError> {
        self.refuse_remote()?;
        let file = self.path.file_name().unwrap_or_default().display().to_string();
        self.builder.refuse_empty(self.path, || {
            let causes = self.builder.skipped.by_cause();
            let causes = if causes.is_empty() { String::new() } else { format!(": {causes}") };
            let found = format!("{described}, and no usable row{causes}");
            DataError::Empty { path: PathBuf::from(self.path), found, expected }
        })?;
        let rows = if self.count == 1 { "1 row".to_owned() } else { format!("{} rows", self.count) };
        let others = other_splits(self.num_other_splits);
        self.builder.note(format!("`{file}`: {described}, {rows}{others}; {origin}"));
        self.tell();
        self.builder.finish(self.path)
    }

    /// Refuses rows with images that are no local files.
    ///
    /// # Errors
    /// [`DataError::Row`] for the first one.
    pub(crate) fn refuse_remote(&self) -> Result<(), DataError> {
        let Some(Remote { path, place, reason, count }) = &self.remote else { return Ok(()) };
        let others = if *count > 1 { format!(" ({count} rows have such images)") } else { String::new() };
        Err(DataError::row(path, self.unit, *place, format!("{reason}{others}")))
    }

    /// Adds what is odd about the rows to the warnings of `builder`.
    pub(crate) fn tell(&mut self) {
        let file = self.path.file_name().unwrap_or_default().display().to_string();
        self.paths.tell(&file, &mut self.builder);
        if let (count @ 1.., first) = std::mem::take(&mut self.empty) {
            let captions = counted(count, "empty caption");
            self.builder.note(format!("{captions} of rows that have another caption, such as in {first}"));
        }
    }

    /// The rows that are listed, and the data set of the other rows: it has their warnings, and what is left out.
    ///
    /// # Errors
    /// As for [`Rows::refuse_remote`].
    pub(crate) fn into_listed(mut self) -> Result<(Vec<Listed>, Dataset), DataError> {
        self.refuse_remote()?;
        self.tell();
        Ok((self.listed.take().unwrap_or_default(), self.builder.build()))
    }
}

/// How many rows of other splits are left out, for the log: empty without one.
pub(crate) fn other_splits(count: u64) -> String {
    if count == 0 { String::new() } else { format!(", {} of other splits left out", counted(count as usize, "row")) }
}

/// A string, or a list of strings.
pub(crate) fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        _ => None,
    }
}
