//! What a file or folder is, by its name and its content.

use std::path::Path;

use crate::error::DataError;
use crate::sources::Source;
use crate::sources::csv::CsvSource;
use crate::sources::folder::FolderSource;
use crate::sources::jsonl::JsonlSource;
use crate::sources::source_table::SourceTable;
use crate::sources::webdataset::WebdatasetSource;

/// A file or folder that was recognised.
#[derive(Clone, Debug, PartialEq)]
pub struct Recognised {
    /// The source that reads it.
    pub source: SourceTable,
    /// What it is, for the log: `a tab-separated table, UTF-16; image from `filepath`, caption from `title``.
    pub description: String,
}

/// Looks at the name and at the content of `path`.
///
/// # Errors
/// [`DataError::UnknownExtension`] if it is no form of data that is read, [`DataError::Read`], and what the first rows
/// of a table hold that cannot be read.
pub fn recognise(path: &Path) -> Result<Recognised, DataError> {
    let source = Source::from_path(path)?;
    let description = match &source {
        Source::Csv(_) => "a comma-separated table",
        Source::Tsv(_) => "a tab-separated table",
        Source::Jsonl(_) => "JSON lines",
        Source::Folder(_) => "a folder of images",
        Source::Webdataset(_) => "WebDataset shards",
        Source::Coco(_) => "COCO captions",
    };
    Ok(Recognised { source: source.into(), description: description.to_owned() })
}

impl Source {
    /// The source for a file, chosen by its extension (`csv`, `tsv`, `jsonl` or `tar`), with columns `image` and
    /// `caption`; for a folder, a [`FolderSource`].
    ///
    /// # Errors
    /// [`DataError::UnknownExtension`] for other extensions.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        if path.is_dir() {
            return Ok(Self::Folder(FolderSource::new(path)));
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match extension.as_str() {
            "csv" => Ok(Self::Csv(CsvSource::new(path))),
            "tsv" | "tab" => Ok(Self::Tsv(CsvSource::new(path))),
            "jsonl" | "ndjson" => Ok(Self::Jsonl(JsonlSource::new(path))),
            "tar" => Ok(Self::Webdataset(WebdatasetSource::new(path))),
            _ => Err(DataError::UnknownExtension { path: path.to_owned(), found: extension }),
        }
    }
}
