//! JSON lines: one object per line, with an image path and one or several captions.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::BadRows;
use crate::error::DataError;
use crate::sources::json::json_source::JsonSource;
use crate::sources::one_or_many::OneOrMany;
use crate::sources::tables::text_file::TextEncoding;

/// `[data.train.jsonl]`: one object per line; the caption is a string or a list of strings. A list of objects is read
/// too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JsonlSource {
    /// The file.
    pub path: PathBuf,
    /// Key of the image path. Default: `image`, or else the one key with another usual name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Key of the caption or captions. Default: `caption`, or else the one key with another usual name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Keys of several captions, in place of `caption`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captions: Option<Vec<String>>,
    /// Directory that image paths are relative to. Default: the directory of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// The splits to read: a list, or separated by `+`. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<OneOrMany<String>>,
    /// Encoding of the characters. Default: UTF-8 or UTF-16, by looking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<TextEncoding>,
    /// What to do with a malformed line. Default `error`.
    #[serde(default)]
    pub bad_rows: BadRows,
}

impl JsonlSource {
    /// The file `path`; everything else is found by looking.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            image: None,
            caption: None,
            captions: None,
            root: None,
            split: None,
            encoding: None,
            bad_rows: BadRows::default(),
        }
    }

    /// Resolves relative paths against `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
        self.root = self.root.take().map(|root| base.join(root));
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`DataError::Row`] for a malformed line unless they are skipped, [`DataError::Empty`] without a usable line,
    /// [`DataError::Malformed`] for another form of JSON that is not read, [`DataError::Read`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_selected(None)
    }

    pub(crate) fn read_selected(&self, selection: Option<Selection>) -> Result<Dataset, DataError> {
        self.json().read_form(true, selection)
    }

    /// The same file with the keys that were found in the first object, and what the file is, for people.
    ///
    /// # Errors
    /// As for [`JsonlSource::read`], of the form.
    pub(crate) fn look(&self) -> Result<(Self, String), DataError> {
        let (found, description) = self.json().look(true)?;
        let JsonSource { image, caption, captions, .. } = found;
        Ok((Self { image, caption, captions, ..self.clone() }, description))
    }

    fn json(&self) -> JsonSource {
        let Self { path, image, caption, captions, root, split, encoding, bad_rows } = self.clone();
        JsonSource { path, image, caption, captions, root, split, encoding, bad_rows }
    }
}
