//! Class labels that are numbers, and the names for them.

use std::path::{Path, PathBuf};

use crate::dataset::label_readings::{Digits, LabelReadings, Undecided};
use crate::error::DataError;
use crate::files::is_file;
use crate::text_lists::class_names::read_numbered_names;

/// The file of class names that CLIP_benchmark's data sets have beside their shards, or beside the folder of them.
pub const CLASS_NAMES_FILE: &str = "classnames.txt";

/// What becomes of labels that are numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NumberLabels<'a> {
    /// Names take their place: these, or those of a file beside the data if there are none.
    Named(&'a [String]),
    /// They stay numbers.
    Kept,
}

/// Classes by their numbers and names.
#[derive(Debug)]
pub(crate) struct ClassNames {
    labels: LabelReadings,
    /// The file that was found; `None` if the config named it.
    pub path: Option<PathBuf>,
}

impl ClassNames {
    /// The names of the config; `None` if there are none.
    pub(crate) fn given(labels: NumberLabels<'_>) -> Option<Self> {
        let NumberLabels::Named(names) = labels else { return None };
        (!names.is_empty()).then(|| Self { labels: LabelReadings::new(names), path: None })
    }

    /// The names in a file in `dir` or in the folder above it.
    pub(crate) fn find(dir: &Path) -> Result<Option<Self>, DataError> {
        for dir in dir.ancestors().take(2) {
            let path = dir.join(CLASS_NAMES_FILE);
            if is_file(&path)? {
                let labels = LabelReadings::new(&read_numbered_names(&path)?);
                return Ok(Some(Self { labels, path: Some(path) }));
            }
        }
        Ok(None)
    }

    /// The name of a label: that of its number, or the label itself if it is a name. [`ClassNames::check`] tells after
    /// all labels whether those of digits are numbers.
    ///
    /// # Errors
    /// What is wrong with the label.
    pub(crate) fn name(&mut self, label: &str) -> Result<&str, String> {
        self.labels.note(label);
        self.labels.name(label, Digits::Numbers)
    }

    /// Checks that digits among the labels are numbers.
    ///
    /// # Errors
    /// [`Undecided`] if they may be names, too.
    pub(crate) fn check(&self) -> Result<(), Undecided> {
        self.labels.check_numbers()
    }

    /// The names of all classes.
    pub(crate) fn into_names(self) -> Vec<String> {
        self.labels.into_names()
    }
}
