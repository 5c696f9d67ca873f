//! The parquet files that a path names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::files::{is_dir, metadata};
use crate::sources::webdataset::shard_patterns::expand_pattern;

/// Whether a file has the extension of parquet.
pub(crate) fn is_parquet(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    extension.eq_ignore_ascii_case("parquet") || extension.eq_ignore_ascii_case("pq")
}

/// The files of one path: a file, all files below a folder, or those that a pattern with `*`, `?`, `{a,b}` or
/// `{000..127}` names. Each glob and folder is sorted byte by byte.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let malformed = |reason: String| DataError::Malformed { path: path.to_owned(), reason };
    if is_dir(path)? {
        let mut found = Vec::new();
        below(path, &mut Vec::new(), &mut found)?;
        found.sort();
        one_split(path, &found).map_err(malformed)?;
        return if found.is_empty() { Err(empty(path, "no `.parquet` file")) } else { Ok(found) };
    }
    if metadata(path)?.is_some() {
        return Ok(vec![path.to_owned()]);
    }
    let files = expand_pattern(path)?;
    if files.is_empty() { Err(empty(path, "no file that matches the pattern")) } else { Ok(files) }
}

fn empty(path: &Path, found: &str) -> DataError {
    DataError::Empty { path: path.to_owned(), found: found.to_owned(), expected: "parquet files" }
}

/// Adds the files below a folder, at any depth. `above` has the real paths of the folders on the way down, so that a
/// link back to one of them ends the descent.
fn below(folder: &Path, above: &mut Vec<PathBuf>, found: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let real = std::fs::canonicalize(folder).map_err(DataError::read(folder))?;
    if above.contains(&real) {
        return Ok(());
    }
    above.push(real);
    for entry in std::fs::read_dir(folder).map_err(DataError::read(folder))? {
        let path = entry.map_err(DataError::read(folder))?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden {
            continue;
        }
        if is_dir(&path)? {
            below(&path, above, found)?;
        } else if is_parquet(&path) {
            found.push(path);
        }
    }
    above.pop();
    Ok(())
}

/// `train-00000-of-00003.parquet`, as the `datasets` library names files: the split, the number, and how many there
/// are.
fn split_of(path: &Path) -> Option<(String, u64, u64)> {
    let stem = path.file_stem()?.to_str()?;
    let (head, of) = stem.split_once("-of-")?;
    // A hash may follow: `train-00000-of-00001-0123456789abcdef`.
    let of = of.split('-').next()?.parse().ok()?;
    let (split, number) = head.rsplit_once('-')?;
    Some((split.to_owned(), number.parse().ok()?, of))
}

/// Refuses a folder with files of several splits: testing data would be trained on.
fn one_split(folder: &Path, files: &[PathBuf]) -> Result<(), String> {
    let mut splits = BTreeSet::new();
    for file in files {
        if let (Some((split, ..)), Some(parent)) = (split_of(file), file.parent()) {
            splits.insert(parent.join(format!("{split}-*.parquet")).display().to_string());
        }
    }
    if splits.len() < 2 {
        return Ok(());
    }
    let splits: Vec<String> = splits.iter().map(|split| format!("`{split}`")).collect();
    Err(format!(
        "the folder holds {} splits or configurations: {}; name the files of one of them as the `path` instead of `{}`",
        splits.len(),
        splits.join(", "),
        folder.display()
    ))
}

/// What is missing where files are numbered as parts of a whole: `train-*-of-00003.parquet: 2 of 3 files`.
pub(crate) fn missing_parts(files: &[PathBuf]) -> Vec<String> {
    let mut sets: BTreeMap<(&Path, String, u64), BTreeSet<u64>> = BTreeMap::new();
    for file in files {
        if let (Some((split, number, of)), Some(parent)) = (split_of(file), file.parent()) {
            sets.entry((parent, split, of)).or_default().insert(number);
        }
    }
    let incomplete = sets.into_iter().filter(|((_, _, of), numbers)| (numbers.len() as u64) < *of);
    let text = |((parent, split, of), numbers): ((&Path, String, u64), BTreeSet<u64>)| {
        format!("`{}`: {} of {of} files", parent.join(format!("{split}-*-of-{of:05}.parquet")).display(), numbers.len())
    };
    incomplete.map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_depths_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c/d/e/f");
        std::fs::create_dir_all(&deep).unwrap();
        for folder in [dir.path(), &deep] {
            std::fs::write(folder.join("x.parquet"), "").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(dir.path(), deep.join("back")).unwrap();
        assert_eq!(files(dir.path()).unwrap(), [deep.join("x.parquet"), dir.path().join("x.parquet")]);
    }

    #[test]
    fn splits_stay_apart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let write = |name: &str| std::fs::write(dir.path().join("data").join(name), "").unwrap();
        let relative = |found: Vec<PathBuf>| -> Vec<String> {
            found.iter().map(|it| it.strip_prefix(dir.path()).unwrap().display().to_string()).collect()
        };
        assert!(files(dir.path()).unwrap_err().to_string().contains("no `.parquet` file; expected parquet files"));
        ["train-00001-of-00003.parquet", "train-00000-of-00003.parquet", "README.md"].into_iter().for_each(write);
        let found = files(dir.path()).unwrap();
        assert_eq!(missing_parts(&found).len(), 1);
        assert!(missing_parts(&found)[0].ends_with("train-*-of-00003.parquet`: 2 of 3 files"));
        let expected = ["data/train-00000-of-00003.parquet", "data/train-00001-of-00003.parquet"];
        assert_eq!(relative(found), expected);
        write("test-00000-of-00001.parquet");
        let error = files(dir.path()).unwrap_err().to_string();
        assert!(error.contains("2 splits") && error.contains("data/test-*.parquet`"), "{error}");
        assert_eq!(relative(files(&dir.path().join("data/train-*.parquet")).unwrap()), expected);
        let braces = files(&dir.path().join("data/train-{00001..00000}-of-00003.parquet")).unwrap_err().to_string();
        assert!(braces.contains("is not a range"), "{braces}");
        let braces = files(&dir.path().join("data/train-{00001,00000}-of-00003.parquet")).unwrap();
        assert_eq!(relative(braces), [expected[1], expected[0]]);
    }
}
