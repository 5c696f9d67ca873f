//! Something that can be trained on.

use std::path::{Path, PathBuf};

use dualenc_data::{
    CaptionsFrom, ClassesSource, Dataset, ImageRef, NO_IMAGE, OneOrMany, Recognised, Source, SourceTable,
    WebdatasetSource, class_folder, counted, recognise_source,
};
use toml::{Table, Value};

use crate::commands::init::request::InitColumns;
use crate::commands::init::split::Split;
use crate::error::TrainError;

const SPLIT: &str = "split";

const FOLDER: &str = "folder";

const ROOT: &str = "root";

/// Part of the description of a table with several columns of captions.
const OTHER_CAPTIONS: &str = "too: to use several, ";

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
    /// All splits of its file with their rows, if it is one of several.
    pub splits: Option<String>,
}

impl Candidate {
    /// The file or folder at `path`, recognised by its name and content; a table is read with `columns`. Of a file with
    /// splits, it is the one to train on.
    ///
    /// # Errors
    /// [`TrainError::Data`] when it cannot be recognised or read.
    pub fn recognised(path: &Path, columns: &InitColumns) -> Result<Self, TrainError> {
        // The list of a split may be the only part of a JSON file that can be read.
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            let file = [("path", path.display().to_string())];
            let columns = [("image", &columns.image), ("caption", &columns.caption)];
            let columns = columns.into_iter().filter_map(|(key, name)| Some((key, name.clone()?)));
            let keys = file.into_iter().chain(columns).map(|(key, name)| (key.to_owned(), Value::String(name)));
            let keys: Table = keys.collect();
            let values = Split::Train.values();
            if let Some(train) = values.iter().find_map(|split| Self::of_split("json", &keys, "JSON", split)) {
                return train.with_rest().with_root(path);
            }
        }
        let Recognised { source, description } = recognise_source(columns.of(Source::from_path(path)?))?;
        let whole = Self::of(source, description)?;
        let splits = whole.dataset.warnings.iter().find_map(|warning| warning.split_once(MIXED_SPLITS));
        if let Some((_, splits)) = splits
            && let Some(train) = whole.split(Split::Train)
        {
            let splits = splits.split("; ").next().unwrap_or(splits).trim_start_matches(", ").to_owned();
            return Ok(Self { splits: Some(splits), ..train.with_rest().with_root(path)? });
        }
        whole.with_captions_from()?.with_root(path)
    }

    /// Another split of the same file, if it has one.
    pub fn other_split(&self, split: Split) -> Option<Self> {
        self.keys.contains_key(SPLIT).then(|| self.split(split)).flatten()
    }

    fn split(&self, split: Split) -> Option<Self> {
        let find = |keys: &Table| {
            split.values().iter().find_map(|value| Self::of_split(&self.format, keys, &self.form, value))
        };
        // All rows together can be read, so that those left out are the ones without a split.
        let without_rest = || {
            let mut keys = self.keys.clone();
            keys.insert("bad_rows".to_owned(), Value::String("skip".to_owned()));
            let comments = vec!["Rows without a split are left out and counted.".to_owned()];
            find(&keys).map(|found| Self { comments, ..found })
        };
        find(&self.keys).or_else(without_rest)
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
        match Self::of_split(&self.format, &self.keys, &self.form, TRAIN_AND_REST) {
            Some(both) if both.dataset.num_images() > self.dataset.num_images() => {
                Self { comments: self.comments, ..both }
            }
            _ => self,
        }
    }

    /// Of a folder where some images have captions beside them: those images alone. Otherwise the names of the others
    /// are captions.
    fn with_captions_from(self) -> Result<Self, TrainError> {
        let has_names = self.dataset.warnings.iter().any(|warning| warning.contains(NAMES_AS_CAPTIONS));
        // Captions of images that are gone say nothing about the images that are there.
        let gone = self.dataset.skipped.causes.get(NO_IMAGE).copied().unwrap_or_default();
        let (images, skipped) = (self.dataset.num_images(), self.dataset.skipped.count - gone);
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
        Ok(Self { format, keys, form: what.clone(), what, dataset, has_classes, comments: Vec::new(), splits: None })
    }

    /// With the folder that its image paths are relative to, if most images are not there: the first one beside `path`
    /// that has most. Where a few are missing, another folder with files of these names holds other images.
    fn with_root(self, path: &Path) -> Result<Self, TrainError> {
        let has_most =
            |dataset: &Dataset| Ok::<_, TrainError>(dataset.missing_files(0)?.count * 2 < dataset.num_images());
        if self.keys.contains_key(ROOT) || has_most(&self.dataset)? {
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
            keys.insert(ROOT.to_owned(), Value::String(folder.display().to_string()));
            let found = Self::of(table(&self.format, keys)?, self.what.clone())?;
            if has_most(&found.dataset)? {
                return Ok(Self { form: self.form, comments: self.comments, ..found });
            }
        }
        Ok(self)
    }

    /// What the user should know about how it is read.
    pub fn remarks(&self) -> Vec<String> {
        let splits = self.splits.as_ref().map(|splits| format!("all splits of the file: {splits}"));
        let root = self.keys.get(ROOT).and_then(Value::as_str);
        let root = root.map(|root| format!("its images are found below `{root}`: see `root`"));
        let others = self.form.rsplit_once(" (").map(|(_, others)| others.trim_end_matches(')'));
        let others = others.filter(|others| others.contains(OTHER_CAPTIONS)).map(str::to_owned);
        let nulls = self.dataset.null_words().map(|nulls| format!("warning: {nulls}"));
        [splits, root, others, nulls].into_iter().flatten().collect()
    }

    /// Whether it is a table, which has named columns.
    pub fn is_table(&self) -> bool {
        ["csv", "tsv", "jsonl", "json", "parquet"].contains(&self.format.as_str())
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
            ImageRef::FeatureRow { table, .. } => table.path().starts_with(folder),
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

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    /// Files by name and content, below a folder.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, content).unwrap();
        }
        dir
    }

    fn found(dir: &tempfile::TempDir, table: &str) -> Candidate {
        Candidate::recognised(&dir.path().join(table), &InitColumns::default()).unwrap()
    }

    #[test]
    fn missing_image_is_not_taken_from_elsewhere() {
        let names = ["a/1.png", "a/2.png", "b/1.png", "b/2.png", "b/3.png"].map(|name| (name, ""));
        let dir = folder(&[&names[..], &[("a/t.csv", "image,caption\n1.png,x\n2.png,y\n3.png,z\n")]].concat());
        let one = found(&dir, "a/t.csv");
        assert_eq!((one.keys.get(ROOT), one.dataset.missing_files(0).unwrap().count), (None, 1));
        // Where all are missing, they are looked for, and a remark says where they are.
        std::fs::rename(dir.path().join("a/t.csv"), dir.path().join("t.csv")).unwrap();
        std::fs::remove_dir_all(dir.path().join("a")).unwrap();
        let all = found(&dir, "t.csv");
        let root = dir.path().join("b").display().to_string();
        assert_eq!(all.keys.get(ROOT).and_then(Value::as_str), Some(&*root));
        assert_eq!(all.remarks(), [format!("its images are found below `{root}`: see `root`")]);
    }

    #[test]
    fn every_split_is_told() {
        let rows = "1.png,x,Train\n2.png,y,train\n3.png,z,val\n";
        let names = ["1.png", "2.png", "3.png", "4.png"].map(|name| (name, ""));
        let table = |more: &str| format!("image,caption,split\n{rows}{more}");
        let dir = folder(&[&names[..], &[("t.csv", &*table("")), ("u.csv", &*table("4.png,w,\n"))]].concat());
        let known = found(&dir, "t.csv");
        assert_eq!(known.remarks(), ["all splits of the file: `Train` (1), `train` (1), `val` (1)"]);
        assert_eq!((known.dataset.num_images(), known.comments.len()), (1, 0));
        // Rows without a split belong to none.
        let train = found(&dir, "u.csv");
        assert_eq!((train.dataset.num_images(), train.dataset.skipped.count, train.comments.len()), (1, 1, 1));
        assert_eq!(train.other_split(Split::Validation).unwrap().dataset.num_images(), 1);
    }

    #[test]
    fn other_caption_columns_are_told() {
        let dir = folder(&[("1.png", ""), ("t.csv", "image,caption,long_caption\n1.png,x,y\n")]);
        let remarks = found(&dir, "t.csv").remarks();
        let expected = "`long_caption` looks like a caption too: to use several, set `captions = [\"caption\", \
                        \"long_caption\"]`";
        assert_eq!(remarks, [expected]);
    }

    #[test]
    fn null_words_are_told() {
        let dir = folder(&[("1.png", ""), ("2.png", ""), ("t.csv", "image,caption\n1.png,x\n2.png,NaN\n")]);
        let remarks = found(&dir, "t.csv").remarks();
        assert!(remarks.len() == 1 && remarks[0].starts_with("warning: 1 of 2 caption"), "{remarks:?}");
    }
}
