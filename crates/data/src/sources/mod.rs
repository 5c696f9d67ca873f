//! Kinds of data set on disk: each reads a listing of images and captions into a [`Dataset`]. No image is opened here.
//!
//! This file has [`Source`]. The others:
//! - `csv`: tables separated by commas, tabs or another character
//! - `jsonl`: JSON lines
//! - `coco`: COCO captions
//! - `json`: JSON in other forms
//! - `folder`: a folder of images with captions beside them
//! - `webdataset`: tar shards
//! - `classes`: one folder per class
//! - `class_folder`: lists such a folder, also for zero-shot evaluation
//! - `class_labels`: names of classes that are numbers
//! - `parquet`: parquet tables
//! - `features`: features in place of images and texts
//! - `source_table`: a [`Source`] and how its rows are used, as a config names it
//! - `recognise`: what a file or folder is, by its name and its content
//! - `rows`: what the table-like sources share
//! - `side_files`: files that have the extension of a table, and lie beside data
//! - `tables`: what the sources in text files share
//! - `image_files`: the image files below a folder
//! - `one_or_many`: a value of the config that may be a list

pub(crate) mod class_folder;
pub(crate) mod class_labels;
pub(crate) mod classes;
pub(crate) mod coco;
pub(crate) mod csv;
pub(crate) mod features;
pub(crate) mod folder;
pub(crate) mod image_files;
pub(crate) mod json;
pub(crate) mod jsonl;
pub(crate) mod one_or_many;
pub(crate) mod parquet;
pub(crate) mod recognise;
mod rows;
pub(crate) mod side_files;
pub(crate) mod source_table;
mod split_column;
pub(crate) mod tables;
pub(crate) mod webdataset;

use std::path::Path;

use crate::dataset::Dataset;
use crate::dataset::selection::Selection;
use crate::error::DataError;
use crate::sources::classes::ClassesSource;
use crate::sources::coco::CocoSource;
use crate::sources::csv::CsvSource;
use crate::sources::features::FeaturesSource;
use crate::sources::folder::FolderSource;
use crate::sources::json::json_source::JsonSource;
use crate::sources::jsonl::JsonlSource;
use crate::sources::parquet::source::ParquetSource;
use crate::sources::webdataset::WebdatasetSource;

/// Where image-text pairs come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A table; comma-separated unless its first lines or its extension say otherwise.
    Csv(CsvSource),
    /// A tab-separated table.
    Tsv(CsvSource),
    /// JSON lines, one object per line.
    Jsonl(JsonlSource),
    /// JSON in any form.
    Json(JsonSource),
    /// A folder of images with captions beside them.
    Folder(FolderSource),
    /// Tar shards.
    Webdataset(WebdatasetSource),
    /// A folder of images per class.
    Classes(ClassesSource),
    /// COCO captions.
    Coco(CocoSource),
    /// Parquet tables.
    Parquet(ParquetSource),
    /// Features of images and texts.
    Features(FeaturesSource),
}

impl Source {
    /// This source, with relative image paths that start at the folder `root`. `None` if its rows do not name files: a
    /// folder, or shards.
    #[must_use]
    pub fn with_root(self, root: &Path) -> Option<Self> {
        let root = Some(root.to_owned());
        Some(match self {
            Self::Csv(source) => Self::Csv(CsvSource { root, ..source }),
            Self::Tsv(source) => Self::Tsv(CsvSource { root, ..source }),
            Self::Jsonl(source) => Self::Jsonl(JsonlSource { root, ..source }),
            Self::Json(source) => Self::Json(JsonSource { root, ..source }),
            Self::Coco(source) => Self::Coco(CocoSource { root, ..source }),
            Self::Parquet(source) => Self::Parquet(ParquetSource { root, ..source }),
            Self::Folder(_) | Self::Webdataset(_) | Self::Classes(_) | Self::Features(_) => return None,
        })
    }

    /// Reads the listing of images and captions; no image is opened.
    ///
    /// # Errors
    /// See `read` of each source: [`DataError::Empty`] if there are no samples, [`DataError::Read`] if a file cannot be
    /// read, and what is malformed with its file and row.
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_selected(None)
    }

    /// Number of caption columns or keys that the source names; 1 if it names none.
    #[must_use]
    pub fn num_caption_columns(&self) -> usize {
        let columns = match self {
            Self::Csv(it) | Self::Tsv(it) => it.captions.as_deref(),
            Self::Jsonl(it) => it.captions.as_deref(),
            Self::Json(it) => it.captions.as_deref(),
            Self::Folder(it) => it.captions.as_deref(),
            Self::Webdataset(it) => it.captions.as_deref(),
            Self::Parquet(it) => it.captions.as_deref(),
            Self::Classes(_) | Self::Coco(_) | Self::Features(_) => None,
        };
        columns.map_or(1, <[String]>::len)
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
            Self::Json(source) => source.read_selected(selection),
            Self::Folder(source) => source.read_selected(selection),
            Self::Webdataset(source) => source.read_named(selection, class_labels::NumberLabels::Named(&[]), None),
            Self::Classes(source) => source.read_named(selection, None),
            Self::Coco(source) => source.read_selected(selection),
            Self::Parquet(source) => source.read_selected(selection),
            Self::Features(source) => source.read_selected(selection),
        }
    }
}
