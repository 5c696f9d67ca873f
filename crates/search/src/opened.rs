//! What every kind of file gives: rows, what they stand for, and their names.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::SearchError;
use crate::vectors::Vectors;

/// Which embeddings of a file are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Those of images if there are any, else those of texts.
    Any,
    /// `image_embeds`.
    Images,
    /// `text_embeds`.
    Texts,
}

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Images,
    Texts,
    /// It is not known.
    Rows,
}

/// Paths of images or texts, one a row.
#[derive(Debug)]
pub(crate) enum Names {
    None,
    List(Vec<String>),
    /// In the mapped file: where each name ends (`u64`, after a first one of 0), and the names.
    Stored {
        ends: Range<usize>,
        text: Range<usize>,
    },
}

/// An open file. Its form was checked, but not yet its rows.
#[derive(Debug)]
pub(crate) struct Opened {
    pub vectors: Vectors,
    pub kind: Kind,
    pub names: Names,
    /// The fingerprint of the model that wrote the rows, if the file has one.
    pub model: Option<String>,
}

impl Opened {
    /// The name of a row, if it has one.
    pub fn name(&self, row: usize) -> Option<&str> {
        match &self.names {
            Names::None => None,
            Names::List(names) => names.get(row).map(String::as_str),
            Names::Stored { ends, text } => {
                let file = self.vectors.file();
                let (ends, _) = file[ends.clone()].as_chunks();
                let at = |row: usize| usize::try_from(u64::from_le_bytes(*ends.get(row)?)).ok();
                std::str::from_utf8(file[text.clone()].get(at(row)?..at(row + 1)?)?).ok()
            }
        }
    }
}

impl Kind {
    /// Refuses another part of a file than the one it has.
    pub fn check(self, part: Part, path: &Path) -> Result<(), SearchError> {
        let (found, expected) = match (self, part) {
            (Self::Images, Part::Texts) => ("images", "texts"),
            (Self::Texts, Part::Images) => ("texts", "images"),
            _ => return Ok(()),
        };
        let problem = format!("it holds embeddings of {found}, not of {expected}; name the file of the {expected}");
        Err(SearchError::file(path, problem))
    }
}
