//! The files and folders at a path.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use dualenc_data::{ClassesSource, has_shard, image_files};

use crate::commands::init::split::Split;
use crate::error::TrainError;

/// Extensions of files that may list images and captions.
const TABLES: [&str; 9] = ["csv", "tsv", "tab", "txt", "jsonl", "ndjson", "json", "parquet", "arrow"];

/// Extensions that a description names.
const MOST_NAMED: usize = 8;

/// What a folder holds, hidden names aside. All lists are sorted byte by byte.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Files with the extension of a table.
    pub tables: Vec<PathBuf>,
    pub shards: Vec<PathBuf>,
    pub folders: Vec<PathBuf>,
    /// Files by extension in lower case.
    pub extensions: BTreeMap<String, usize>,
}

impl Survey {
    /// Looks at the entries of `dir`, not below.
    ///
    /// # Errors
    /// [`TrainError::Read`].
    pub fn of(dir: &Path) -> Result<Self, TrainError> {
        let mut survey = Self::default();
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(dir).map_err(TrainError::read(dir))? {
            paths.push(entry.map_err(TrainError::read(dir))?.path());
        }
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default();
            if name.as_encoded_bytes().starts_with(b".") || name == "__MACOSX" {
                continue;
            }
            if path.is_dir() {
                survey.folders.push(path);
                continue;
            }
            let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            *survey.extensions.entry(extension.clone()).or_default() += 1;
            if extension == "tar" {
                survey.shards.push(path);
            } else if TABLES.contains(&extension.as_str()) {
                let table = of_all_parts(&path).unwrap_or(path);
                if !survey.tables.contains(&table) {
                    survey.tables.push(table);
                }
            }
        }
        Ok(survey)
    }

    /// The folder `data`, if it has tables or shards.
    ///
    /// # Errors
    /// As for [`Survey::of`].
    pub fn data_folder(&self) -> Result<Option<PathBuf>, TrainError> {
        let Some(data) = self.folders.iter().find(|folder| folder.file_name() == Some(OsStr::new("data"))) else {
            return Ok(None);
        };
        let inside = Self::of(data)?;
        Ok((!inside.tables.is_empty() || !inside.shards.is_empty()).then(|| data.clone()))
    }

    /// What is there, in words: `3 mov, 1 without extension, 2 folders`.
    pub fn describe(&self) -> String {
        let mut counts: Vec<(&String, &usize)> = self.extensions.iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let name = |extension: &str| if extension.is_empty() { "without extension" } else { extension }.to_owned();
        let mut parts: Vec<String> =
            counts.iter().take(MOST_NAMED).map(|(extension, count)| format!("{count} {}", name(extension))).collect();
        let others: usize = counts.iter().skip(MOST_NAMED).map(|(_, count)| **count).sum();
        if others > 0 {
            parts.push(format!("{others} others"));
        }
        if !self.folders.is_empty() {
            parts.push(format!("{} folders", self.folders.len()));
        }
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
    }

    /// The folder of this split, if there is one.
    pub fn split_folder(&self, split: Split) -> Option<&PathBuf> {
        split.names().iter().find_map(|name| {
            self.folders.iter().find(|folder| folder.file_name().is_some_and(|it| it.eq_ignore_ascii_case(name)))
        })
    }

    /// The folders that are named as splits.
    pub fn split_folders(&self) -> Vec<&PathBuf> {
        self.folders.iter().filter(|folder| Split::ALL.iter().any(|split| split.is_folder(folder))).collect()
    }

    /// The one folder of `dir` that can hold the data: the only one, or the only one with images, if `dir` has no image
    /// of its own.
    ///
    /// # Errors
    /// [`TrainError::Data`] when a folder cannot be read.
    pub fn only_folder(&self, dir: &Path) -> Result<Option<&PathBuf>, TrainError> {
        if images_below(dir)?.iter().any(|image| image.parent() == Some(dir)) {
            return Ok(None);
        }
        let mut found = Vec::new();
        for folder in &self.folders {
            // A link to a folder above leads to no other data.
            let is_above =
                folder.canonicalize().is_ok_and(|it| dir.canonicalize().is_ok_and(|dir| dir.starts_with(it)));
            if !is_above && (self.folders.len() == 1 || !images_below(folder)?.is_empty()) {
                found.push(folder);
            }
        }
        Ok(if let [one] = found[..] { Some(one) } else { None })
    }
}

/// Whether `path` has the extension of parquet.
pub(crate) fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

/// The pattern of all parts of a parquet table: `train-*.parquet` for `train-00000-of-00003.parquet`, as the `datasets`
/// library names them, and `*.parquet` for `00000.parquet`. `None`: the file is not a part.
fn of_all_parts(path: &Path) -> Option<PathBuf> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let stem = path.file_stem().and_then(OsStr::to_str).filter(|_| is_parquet(path))?;
    // Beside its shard or its folder of images, it is no table of its own.
    if is_number(stem) && !has_shard(path) {
        return Some(path.with_file_name("*.parquet"));
    }
    let (split, number) = stem.split_once("-of-")?.0.rsplit_once('-')?;
    is_number(number).then(|| path.with_file_name(format!("{split}-*.parquet")))
}

/// Whether `dir` has one folder per class: see [`ClassesSource::looks_like`].
///
/// # Errors
/// [`TrainError::Data`] when a folder cannot be read.
pub(crate) fn has_classes(dir: &Path) -> Result<bool, TrainError> {
    Ok(ClassesSource::looks_like(dir)?)
}

/// The image files below `dir`.
///
/// # Errors
/// [`TrainError::Data`] when a folder cannot be read.
pub(crate) fn images_below(dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
    Ok(image_files(dir)?.files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_folders_of_images() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        };
        write("cat/1.png");
        assert!(!has_classes(dir.path()).unwrap(), "one folder");
        write("dog/1.png");
        write("notes.md");
        assert!(has_classes(dir.path()).unwrap());
        write("dog/1.txt");
        assert!(!has_classes(dir.path()).unwrap(), "captions");
        fs::remove_file(dir.path().join("dog/1.txt")).unwrap();
        write("loose.png");
        assert!(!has_classes(dir.path()).unwrap(), "an image beside the folders");
        assert_eq!(Survey::of(dir.path()).unwrap().describe(), "1 md, 1 png, 2 folders");
    }
    #[test]
    fn splits_are_no_classes() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        };
        write("train/1.png");
        write("car/1.png");
        assert!(!has_classes(dir.path()).unwrap(), "two folders");
        write("bus/1.png");
        assert!(has_classes(dir.path()).unwrap(), "vehicles");
        write("train/cat/1.png");
        assert!(!has_classes(dir.path()).unwrap(), "classes in `train`");
        fs::remove_dir_all(dir.path().join("train/cat")).unwrap();
        write("test/1.png");
        assert!(!has_classes(dir.path()).unwrap(), "`train` and `test`");
    }

    #[test]
    fn only_folder_holds_the_data() {
        let dir = tempfile::tempdir().unwrap();
        let only = || {
            let survey = Survey::of(dir.path()).unwrap();
            survey.only_folder(dir.path()).unwrap().map(|folder| folder.file_name().unwrap().to_owned())
        };
        fs::create_dir_all(dir.path().join("images/a")).unwrap();
        assert_eq!(only(), Some("images".into()));
        fs::create_dir(dir.path().join("labels")).unwrap();
        assert_eq!(only(), None);
        fs::write(dir.path().join("images/a/1.png"), b"").unwrap();
        assert_eq!(only(), Some("images".into()));
        fs::write(dir.path().join("1.png"), b"").unwrap();
        assert_eq!(only(), None);
    }
}
