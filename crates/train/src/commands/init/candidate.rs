//! Something that can be trained on.

use std::path::{Path, PathBuf};

use dualenc_data::{
    ClassesSource, Dataset, ImageRef, JsonSource, Recognised, Source, SourceTable, WebdatasetSource, class_folder,
    counted, recognise,
};
use toml::{Table, Value};

use crate::error::TrainError;

/// Splits of a JSON file to train on, the best first.
const TRAIN_SPLITS: [&str; 2] = ["train", "training"];

/// Karpathy's splits of COCO: `restval` are the images of COCO's validation set that nobody validates on.
const TRAIN_AND_REST: &str = "train+restval";

/// Splits of a JSON file to evaluate on, the best first.
const VALIDATION_SPLITS: [&str; 4] = ["val", "validation", "dev", "test"];

/// A source and its pairs.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// The key of its table, such as `csv`.
    pub format: String,
    /// The keys of the table; paths are absolute.
    pub keys: Table,
    /// What it is, in words.
    pub what: String,
    pub dataset: Dataset,
    /// Whether its captions are names of classes.
    pub has_classes: bool,
}

impl Candidate {
    /// The file or folder at `path`, recognised by its name and content.
    ///
    /// # Errors
    /// [`TrainError::Data`] when it cannot be recognised or read.
    pub fn recognised(path: &Path) -> Result<Self, TrainError> {
        if let Some(train) = Self::split(path, &TRAIN_SPLITS) {
            let both = Self::split(path, &[TRAIN_AND_REST]);
            return Ok(both.filter(|both| both.dataset.num_images() > train.dataset.num_images()).unwrap_or(train));
        }
        let Recognised { source, description } = recognise(path)?;
        Self::of(source, description)?.with_root(path)
    }

    /// The validation split of the JSON file at `path`, if it has one.
    pub fn validation_split(path: &Path) -> Option<Self> {
        Self::split(path, &VALIDATION_SPLITS)
    }

    /// The first of `splits` that the JSON file at `path` has.
    fn split(path: &Path, splits: &[&str]) -> Option<Self> {
        if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            return None;
        }
        splits.iter().find_map(|split| {
            let source = Source::Json(JsonSource { split: Some((*split).into()), ..JsonSource::new(path) });
            Self::of(source.into(), format!("JSON, split `{split}`")).ok()?.with_root(path).ok()
        })
    }

    /// The shards that `path` names: a folder or a pattern.
    ///
    /// # Errors
    /// [`TrainError::Data`] when they cannot be read.
    pub fn shards(path: &Path) -> Result<Self, TrainError> {
        Self::of(Source::Webdataset(WebdatasetSource::new(path)).into(), "WebDataset shards".to_owned())
    }

    /// The folder of one folder per class at `path`.
    ///
    /// # Errors
    /// [`TrainError::Data`] when it cannot be read.
    pub fn classes(path: &Path) -> Result<Self, TrainError> {
        let source = Source::Classes(ClassesSource::new(path));
        let classes = class_folder(path)?.classes.len();
        Ok(Self { has_classes: true, ..Self::of(source.into(), format!("{classes} class folders"))? })
    }

    fn of(table: SourceTable, what: String) -> Result<Self, TrainError> {
        let dataset = table.read()?;
        let internal = || TrainError::Internal(format!("{what} cannot be written as a table"));
        let Ok(Value::Table(tables)) = Value::try_from(&table) else { return Err(internal()) };
        let mut formats = tables.into_iter().filter_map(|(format, keys)| match keys {
            Value::Table(keys) => Some((format, keys)),
            _ => None,
        });
        let Some((format, keys)) = formats.next() else { return Err(internal()) };
        Ok(Self { format, keys, what, dataset, has_classes: false })
    }

    /// With the folder that its image paths are relative to, if they are not there: the one beside `path` that has all.
    fn with_root(self, path: &Path) -> Result<Self, TrainError> {
        let missing = self.dataset.missing_files(1)?.count;
        if missing == 0 || self.keys.contains_key("root") {
            return Ok(self);
        }
        let mut folders: Vec<PathBuf> = Vec::new();
        for base in [path.parent(), path.parent().and_then(Path::parent)].into_iter().flatten() {
            let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
            let mut below: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
            below.sort();
            folders.push(base.to_owned());
            folders.extend(below);
        }
        for folder in folders {
            let mut keys = self.keys.clone();
            keys.insert("root".to_owned(), Value::String(folder.display().to_string()));
            let table = Value::Table(Table::from_iter([(self.format.clone(), Value::Table(keys))]));
            let Ok(table) = table.try_into::<SourceTable>() else { return Ok(self) };
            let candidate = Self::of(table, self.what.clone())?;
            if candidate.dataset.missing_files(1)?.count < missing {
                return Ok(candidate);
            }
        }
        Ok(self)
    }

    /// Whether captions are made of the names of files.
    pub fn has_captions_from_names(&self) -> bool {
        self.format == "folder" && self.dataset.notes.iter().any(|note| note.contains("captions from file names"))
    }

    /// Whether its images lie below `folder`.
    pub fn is_below(&self, folder: &Path) -> bool {
        self.dataset.images().next().is_some_and(|image| match image {
            ImageRef::File(path) => path.starts_with(folder),
            ImageRef::TarEntry { tar, .. } => tar.starts_with(folder),
            ImageRef::ParquetCell { column, .. } => column.path().starts_with(folder),
        })
    }

    /// `` `data/train.csv`, a comma-separated table: 12 images with 24 captions ``.
    pub fn describe(&self) -> String {
        let path = self.keys.get("path").and_then(Value::as_str).unwrap_or("");
        let (images, captions) = (self.dataset.num_images(), self.dataset.num_captions());
        format!("`{path}`, {}: {} with {}", self.what, counted(images, "image"), counted(captions, "caption"))
    }
}
