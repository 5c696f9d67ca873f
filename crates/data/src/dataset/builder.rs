//! Collects the rows of a source to a [`Dataset`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dataset::captions::{Caption, CaptionTable};
use crate::dataset::images::{ImageIndex, ImageTable};
use crate::dataset::part::Part;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::SkippedRows;
use crate::dataset::{Dataset, MAX_ROWS};
use crate::error::DataError;
use crate::features::table::FeatureTable;
use crate::images::location::ImageRef;

/// Collects (image, caption) rows; rows that name the same image share it.
#[derive(Debug, Default)]
pub struct DatasetBuilder {
    images: ImageTable,
    captions: CaptionTable,
    /// Rows and images that [`DatasetBuilder::take_segment`] took.
    taken: (usize, usize),
    known: ImageIndex,
    root: PathBuf,
    selection: Option<Selection>,
    /// Rows that were left out.
    pub(crate) skipped: SkippedRows,
    notes: Vec<String>,
    warnings: Vec<String>,
}

impl DatasetBuilder {
    /// An empty builder. The fingerprint of its data set takes paths relative to `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ..Self::default() }
    }

    /// Takes only the rows of `selection`: see [`DatasetBuilder::selects`].
    pub(crate) fn with_selection(self, selection: Option<Selection>) -> Self {
        Self { selection, ..self }
    }

    /// Reserves memory for rows that a source knows the number of: `images` and `texts`, with or without features.
    pub(crate) fn reserve(&mut self, images: usize, texts: usize, have_features: bool) {
        self.images.reserve(images);
        self.captions.reserve(texts, have_features);
    }

    /// Whether row number `row` (1-based, without header) with the image `key`, as the source writes it, is wanted.
    /// Sources ask before they look at the rest of a row: a row that is not wanted is neither pushed nor counted.
    pub(crate) fn selects(&mut self, row: u64, key: &str) -> bool {
        self.selection.as_mut().is_none_or(|selection| selection.takes(row, key))
    }

    /// As [`DatasetBuilder::selects`], for a sample without a row number: none of its entries is read.
    pub(crate) fn names(&mut self, key: &str) -> bool {
        self.selection.as_mut().is_none_or(|selection| selection.names(key))
    }

    /// Adds one row; returns true unless the caption is empty or all white space, which adds nothing.
    pub fn push(&mut self, image: ImageRef, caption: &str) -> bool {
        self.push_slot(image, caption, 0)
    }

    /// As [`DatasetBuilder::push`], for the caption of column, key or list entry number `slot`, 0-based.
    pub(crate) fn push_slot(&mut self, image: ImageRef, caption: &str, slot: u8) -> bool {
        self.push_caption(image, caption, slot, None)
    }

    /// As [`DatasetBuilder::push`], for a text with features: a table and the number of a row.
    pub(crate) fn push_features(
        &mut self,
        image: ImageRef,
        caption: &str,
        features: (&Arc<FeatureTable>, u64),
    ) -> bool {
        self.push_caption(image, caption, 0, Some(features))
    }

    fn push_caption(
        &mut self,
        image: ImageRef,
        caption: &str,
        slot: u8,
        features: Option<(&Arc<FeatureTable>, u64)>,
    ) -> bool {
        let text = caption.trim();
        if text.is_empty() {
            return false;
        }
        if self.len() >= MAX_ROWS {
            self.skipped.note("too many rows", || format!("a data set has at most {MAX_ROWS} captions"));
            return true;
        }
        let image = match self.known.find(&self.images, &image) {
            Ok(known) => known,
            Err(free) => {
                self.known.insert(free, self.images.len());
                self.images.push(&image, &self.root);
                self.images.len() - 1
            }
        };
        self.captions.push(Caption { text, image, slot, features });
        true
    }

    /// Adds a fact about what was recognised, for the log: `` `train.csv`: tab-separated, 12 rows ``.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds something that the user should know, since it may not be what was meant.
    pub(crate) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Number of rows added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.taken.0 + self.captions.len()
    }

    /// Whether no rows were added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of distinct images added.
    pub(crate) fn num_images(&self) -> usize {
        self.taken.1 + self.images.len()
    }

    /// Takes the rows that were added since the last segment, as a data set without notes, and goes on without them.
    /// Later rows must not name the same images.
    pub(crate) fn take_segment(&mut self) -> Dataset {
        (self.taken.0, self.taken.1) = (self.len(), self.num_images());
        self.known = ImageIndex::default();
        let segment = Self {
            images: std::mem::take(&mut self.images),
            captions: std::mem::take(&mut self.captions),
            ..Self::new(&self.root)
        };
        match &mut self.selection {
            Some(selection) => selection.images_of(segment.build()),
            None => segment.build(),
        }
    }

    /// Refuses to go on without a row. Entries of the selection that the source at `path` does not have come first:
    /// they are why nothing was taken.
    ///
    /// # Errors
    /// [`DataError::Malformed`] if the selection names rows that the source does not have, else that of `error`.
    pub(crate) fn refuse_empty(&self, path: &Path, error: impl FnOnce() -> DataError) -> Result<(), DataError> {
        if !self.is_empty() {
            return Ok(());
        }
        self.check_selection(path)?;
        Err(error())
    }

    fn check_selection(&self, path: &Path) -> Result<(), DataError> {
        self.selection.as_ref().map_or(Ok(()), |selection| selection.check(path))
    }

    /// Builds the data set of the source at `path`.
    ///
    /// # Errors
    /// [`DataError::Malformed`] if the selection names rows that the source does not have.
    pub(crate) fn finish(mut self, path: &Path) -> Result<Dataset, DataError> {
        self.skipped.set_source(path);
        let Some(mut selection) = self.selection.take() else { return Ok(self.build()) };
        let dataset = selection.images_of(self.build());
        selection.check(path)?;
        Ok(dataset)
    }

    /// Builds the data set.
    #[must_use]
    pub fn build(mut self) -> Dataset {
        self.images.shrink();
        self.captions.shrink();
        let part = Part::new(self.root, 0..self.images.len(), 0..self.captions.len());
        Dataset::new(self.images, self.captions, vec![part], self.skipped, self.notes, self.warnings)
    }
}
