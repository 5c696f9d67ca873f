//! Kinds of data set on disk: each reads a listing of images and captions into a [`Dataset`]. No image is opened here.
//!
//! This file has [`Source`]. The others:
//! - `csv`: tables separated by commas, tabs or another character
//! - `jsonl`: JSON lines
//! - `coco`: COCO captions
//! - `folder`: a folder of images with captions beside them
//! - `webdataset`: tar shards
//! - `class_folder`: one folder per class, for zero-shot evaluation; not a [`Source`]
//! - `parquet`: parquet tables
//! - `source_table`: a [`Source`] and how its rows are used, as a config names it
//! - `one_or_many`: a key of the config with one item or a list
//! - `rows`: what the table-like sources share
//! - `image_files`: the image files below a folder
//! - `shard_patterns`: the tar files that a pattern names
//! - `watched_reader`: remembers the disk's errors

pub(crate) mod class_folder;
pub(crate) mod coco;
pub(crate) mod csv;
pub(crate) mod folder;
pub(crate) mod image_files;
pub(crate) mod jsonl;
pub(crate) mod one_or_many;
pub(crate) mod parquet;
mod rows;
mod shard_patterns;
pub(crate) mod source_table;
mod watched_reader;
pub(crate) mod webdataset;

use std::path::Path;

use crate::dataset::Dataset;
use crate::dataset::selection::Selection;
use crate::error::DataError;
use crate::sources::coco::CocoSource;
use crate::sources::csv::CsvSource;
use crate::sources::folder::FolderSource;
use crate::sources::jsonl::JsonlSource;
use crate::sources::parquet::looks::{look, looks_like_parquet};
use crate::sources::parquet::source::ParquetSource;
use crate::sources::webdataset::WebdatasetSource;

/// Where image-text pairs come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A comma-separated table; tab-separated if its extension is `tsv`.
    Csv(CsvSource),
    /// A tab-separated table.
    Tsv(CsvSource),
    /// JSON lines, one object per line.
    Jsonl(JsonlSource),
    /// A folder of images with captions beside them.
    Folder(FolderSource),
    /// Tar shards.
    Webdataset(WebdatasetSource),
    /// COCO captions.
    Coco(CocoSource),
    /// Parquet tables.
    Parquet(ParquetSource),
}

impl Source {
    /// The source for a file, chosen by its extension (`csv`, `tsv`, `jsonl` or `tar`), with columns `image` and
    /// `caption`; for a folder, a [`FolderSource`]; for parquet or a folder of it, a [`ParquetSource`] with the columns
    /// that look like images and captions.
    ///
    /// # Errors
    /// [`DataError::UnknownExtension`] for other extensions.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        if looks_like_parquet(path) {
            return Ok(Self::Parquet(look(path)));
        }
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

    /// Reads the listing of images and captions; no image is opened.
    ///
    /// # Errors
    /// See `read` of each source: [`DataError::Empty`] if there are no samples, [`DataError::Read`] if a file cannot be
    /// read, and what is malformed with its file and row.
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_selected(None)
    }

    /// As [`Source::read`], of the rows of `selection` alone.
    ///
    /// # Errors
    /// Also [`DataError::Malformed`] if the source lacks a row of the selection.
    pub(crate) fn read_selected(&self, selection: Option<Selection>) -> Result<Dataset, DataError> {
        match self {
            Self::Csv(source) => source.read_selected(selection),
            Self::Tsv(source) => source.read_with(b'\t', selection),
            Self::Jsonl(source) => source.read_selected(selection),
            Self::Folder(source) => source.read_selected(selection),
            Self::Webdataset(source) => source.read_selected(selection),
            Self::Coco(source) => source.read_selected(selection),
            Self::Parquet(source) => source.read_selected(selection),
        }
    }
}
