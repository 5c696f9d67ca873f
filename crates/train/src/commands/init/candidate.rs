//! Something that can be trained on.

use std::path::{Path, PathBuf};

use dualenc_data::{
    CaptionsFrom, ClassesSource, Dataset, ImageRef, OneOrMany, Recognised, Source, SourceTable, WebdatasetSource,
    class_folder, counted, recognise,
};
use toml::{Table, Value};

use crate::commands::init::split::Split;
use crate::error::TrainError;

const SPLIT: &str = "split";

const FOLDER: &str = "folder";

/// Part of the warning that rows of several splits are mixed.
const MIXED_SPLITS: &str = "the rows of all splits are used";

/// Part of the warning that some images have captions, and others their names.
const NAMES_AS_CAPTIONS: &str = "their file names are the captions";

/// Karpathy's splits of COCO: `restval` are the images of COCO's validation set that nobody validates on.
const TRAIN_AND_REST: &str = "train+restval";

/// A source and its pairs.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// The key of its table, such as `csv`.
    pub format: String,
    /// The keys of the table; paths are absolute.
    pub keys: Table,
    /// Its form in words.
    form: String,
    /// What it is, in words: the form, and the split if it is one.
    pub what: String,
    pub dataset: Dataset,
    /// Whether its captions are names of classes.
    pub has_classes: bool,
    /// What to say at its table in the config.
    pub comments: Vec<String>,
}

impl Candidate {
    /// The file or folder at `path`, recognised by its name and content. Of a file with splits, it is the one to train
    /// on.
    ///
    /// # Errors
    /// [`TrainError::Data`] when it cannot be recognised or read.
    pub fn recognised(path: &Path) -> Result<Self, TrainError> {
        // The list of a split may be the only part of a JSON file that can be read.
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            let keys = Table::from_iter([("path".to_owned(), Value::String(path.display().to_string()))]);
            let values = Split::Train.values();
            if let Some(train) = values.iter().find_map(|split| Self::of_split("json", &keys, "JSON", split)) {
                return train.with_rest().with_root(path);
            }
        }
        let Recognised { source, description } = recognise(path)?;
        let whole = Self::of(source, description)?;
        if whole.dataset.warnings.iter().any(|warning| warning.contains(MIXED_SPLITS))
            && let Some(train) = whole.split(Split::Train)
        {
            return train.with_rest().with_root(path);
        }
        whole.with_captions_from()?.with_root(path)
    }

    /// Another split of the same file, if it has one.
    pub fn other_split(&self, split: Split) -> Option<Self> {
        self.keys.contains_key(SPLIT).then(|| self.split(split)).flatten()
    }

    fn split(&self, split: Split) -> Option<Self> {
        split.values().iter().find_map(|value| Self::of_split(&self.format, &self.keys, &self.form, value))
    }

    /// The rows of the split named `value`.
    fn of_split(format: &str, keys: &Table, form: &str, value: &str) -> Option<Self> {
        let mut keys = keys.clone();
        keys.insert(SPLIT.to_owned(), Value::String(value.to_owned()));
        let found = Self::of(table(format, keys).ok()?, form.to_owned()).ok()?;
        Some(Self { form: form.to_owned(), what: format!("{form}, split `{value}`"), ..found })
    }

    /// With the rest of Karpathy's training images, if there are any.
    fn with_rest(self) -> Self {
        let both = Self::of_split(&self.format, &self.keys, &self.form, TRAIN_AND_REST);
        both.filter(|both| both.dataset.num_images() > self.dataset.num_images()).unwrap_or(self)
    }

    /// Of a folder where some images have captions beside them: those images alone. Otherwise the names of the others
    /// are captions.
    fn with_captions_from(self) -> Result<Self, TrainError> {
        let has_names = self.dataset.warnings.iter().any(|warning| warning.contains(NAMES_AS_CAPTIONS));
        let (images, skipped) = (self.dataset.num_images(), self.dataset.skipped.count);
        if self.format != FOLDER || !has_names && skipped == 0 {
            return Ok(self);
        }
        let all = [CaptionsFrom::Metadata, CaptionsFrom::Txt, CaptionsFrom::Json, CaptionsFrom::Caption];
        let from = |places: Vec<CaptionsFrom>| {
            let mut keys = self.keys.clone();
            let places = Value::try_from(OneOrMany(places)).ok()?;
            keys.insert("captions_from".to_owned(), places);
            Self::of(table(FOLDER, keys).ok()?, self.what.clone()).ok()
        };
        let places = all.into_iter().filter(|place| from(vec![*place]).is_some()).collect();
        // Where few images have captions of their own, they may be by chance.
        let Some(found) = from(places).filter(|found| found.dataset.num_images() * 2 >= images) else {
            return Ok(self);
        };
        let total = images + skipped;
        let without = total.saturating_sub(found.dataset.num_images());
        let total = counted(total, "image");
        let comments = vec![
            format!("{without} of {total} have no caption there: they are left out and counted."),
            "With `\"name\"` in the list, their file names are their captions.".to_owned(),
        ];
        Ok(Self { comments, ..found })
    }

    /// The shards that `path` names: a folder, files or a pattern.
    ///
    /// # Errors
    /// [`TrainError::Data`] when they cannot be read.
    pub fn shards(path: impl Into<OneOrMany<PathBuf>>) -> Result<Self, TrainError> {
        let source = WebdatasetSource { path: path.into(), ..WebdatasetSource::new("") };
        Self::of(Source::Webdataset(source).into(), "WebDataset shards".to_owned())
    }

    /// The folder of one folder per class at `path`.
    ///
    /// # Errors
    /// [`TrainError::Data`] when it cannot be read.
    pub fn classes(path: &Path) -> Result<Self, TrainError> {
        let source = Source::Classes(ClassesSource::new(path));
        let classes = class_folder(path)?.classes.len();
        Self::of(source.into(), format!("{classes} class folders"))
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
        let has_classes = format == "classes";
        Ok(Self { format, keys, form: what.clone(), what, dataset, has_classes, comments: Vec::new() })
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
            let found = Self::of(table(&self.format, keys)?, self.what.clone())?;
            if found.dataset.missing_files(1)?.count < missing {
                return Ok(Self { form: self.form, comments: self.comments, ..found });
            }
        }
        Ok(self)
    }

    /// Whether captions are made of the names of files.
    pub fn has_captions_from_names(&self) -> bool {
        self.format == FOLDER && self.dataset.notes.iter().any(|note| note.contains("captions from file names"))
    }

    /// Whether its images lie below `folder`.
    pub fn is_below(&self, folder: &Path) -> bool {
        self.dataset.images().next().is_some_and(|image| match image {
            ImageRef::File(path) => path.starts_with(folder),
            ImageRef::TarEntry { tar, .. } => tar.starts_with(folder),
            ImageRef::ParquetCell { column, .. } => column.path().starts_with(folder),
        })
    }

    /// Whether `path` is its only file or folder.
    pub fn has_path(&self, path: &Path) -> bool {
        self.keys.get("path").and_then(Value::as_str).is_some_and(|it| Path::new(it) == path)
    }

    /// `` `data/pairs.csv`, split `train`: 12 images with 24 captions ``.
    pub fn describe(&self) -> String {
        let path = match self.keys.get("path") {
            Some(Value::String(path)) => format!("`{path}`"),
            Some(Value::Array(paths)) => {
                let first = paths.first().and_then(Value::as_str).unwrap_or("");
                format!("`{first}` and {}", counted(paths.len().saturating_sub(1), "more file"))
            }
            _ => self.what.clone(),
        };
        let split = self.keys.get(SPLIT).and_then(Value::as_str).map(|split| format!(", split `{split}`"));
        let (images, captions) = (self.dataset.num_images(), self.dataset.num_captions());
        let (images, captions) = (counted(images, "image"), counted(captions, "caption"));
        format!("{path}{}: {images} with {captions}", split.unwrap_or_default())
    }
}

/// The table of a source with these keys.
fn table(format: &str, keys: Table) -> Result<SourceTable, TrainError> {
    let table = Value::Table(Table::from_iter([(format.to_owned(), Value::Table(keys))]));
    table.try_into().map_err(|error| TrainError::Internal(format!("`{format}` is no source: {error}")))
}
