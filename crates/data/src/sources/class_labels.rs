//! Class labels that are numbers, and the names for them.

use std::path::{Path, PathBuf};

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

/// Names of classes by their numbers.
#[derive(Debug)]
pub(crate) struct ClassNames {
    pub names: Vec<String>,
    /// The file that was found; `None` if the config named it.
    pub path: Option<PathBuf>,
}

impl ClassNames {
    /// The names of the config; `None` if there are none.
    pub(crate) fn given(labels: NumberLabels<'_>) -> Option<Self> {
        let NumberLabels::Named(names) = labels else { return None };
        (!names.is_empty()).then(|| Self { names: names.to_vec(), path: None })
    }

    /// The names in a file in `dir` or in the folder above it.
    pub(crate) fn find(dir: &Path) -> Result<Option<Self>, DataError> {
        for dir in dir.ancestors().take(2) {
            let path = dir.join(CLASS_NAMES_FILE);
            if is_file(&path)? {
                return Ok(Some(Self { names: read_numbered_names(&path)?, path: Some(path) }));
            }
        }
        Ok(None)
    }

    /// The name of a label: that of its number, or the label itself if it is a name.
    ///
    /// # Errors
    /// What is wrong with the label.
    pub(crate) fn name<'a>(&'a self, label: &'a str) -> Result<&'a str, String> {
        let count = self.names.len();
        match label.parse::<usize>() {
            Ok(number) => self.names.get(number).map(String::as_str),
            Err(_) => self.names.iter().find(|name| name.as_str() == label).map(String::as_str),
        }
        .ok_or_else(|| match count.checked_sub(1) {
            Some(last) => {
                format!("the label `{label}`; expected a number from 0 to {last} or one of the {count} class names")
            }
            None => format!("the label `{label}`, and the file of class names is empty"),
        })
    }
}

/// Whether a label is the number of a class.
pub(crate) fn is_number(label: &str) -> bool {
    label.parse::<usize>().is_ok()
}
