//! The tar files that a shard pattern names.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::counted::counted;
use crate::error::DataError;
use crate::files::{is_dir, is_tar, metadata};
use crate::sources::folder::file_names::{folders, quoted, splits};

/// Maximum number of shards that one brace pattern may name.
const MAX_SHARDS: usize = 1_000_000;

/// How many folders below the named one are searched: enough for real layouts, and an end for links in a circle.
const MAX_DEPTH: usize = 4;

/// Ends of the names of shards that would have to be unpacked first.
const COMPRESSED: [&str; 6] = [".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz", ".tar.zstd"];

/// The shards that some patterns name, in their order, each once, with warnings.
pub(crate) fn shards(paths: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<String>), DataError> {
    let (mut found, mut warnings, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    let mut twice = 0;
    for path in paths {
        for shard in shards_of(path, &mut warnings)? {
            if seen.insert(shard.clone()) {
                found.push(shard);
            } else {
                twice += 1;
            }
        }
    }
    if twice > 0 {
        warnings.push(format!("`path` names {} twice: each is read once", counted(twice, "shard")));
    }
    Ok((found, warnings))
}

/// The shards in a folder, or those that a pattern names: in the order of its braces, each glob sorted byte by byte.
fn shards_of(path: &Path, warnings: &mut Vec<String>) -> Result<Vec<PathBuf>, DataError> {
    let malformed = |reason: String| DataError::Malformed { path: path.to_owned(), reason };
    if is_dir(path)? {
        return shards_in(path, warnings);
    }
    if metadata(path)?.is_some() {
        return Ok(vec![path.to_owned()]);
    }
    let pattern = path.to_string_lossy();
    if pattern.contains("::") {
        return Err(malformed("several patterns are written as a list, `path = [\"a.tar\", \"b.tar\"]`".to_owned()));
    }
    if pattern.contains("://") || path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"pipe:")) {
        return Err(malformed("shards are read from disk; download them and name the files here".to_owned()));
    }
    let shards = expand_pattern(path)?;
    if shards.is_empty() { Err(empty(path, "no file that matches the pattern".to_owned())) } else { Ok(shards) }
}

/// The files that a pattern with `*`, `?`, `{a,b}` or `{000..127}` names: in the order of its braces, each glob sorted
/// byte by byte.
///
/// # Errors
/// [`DataError::Malformed`] for a pattern that is none.
pub(crate) fn expand_pattern(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let malformed = |reason: String| DataError::Malformed { path: path.to_owned(), reason };
    let pattern = path.to_str().ok_or_else(|| malformed("the pattern is not UTF-8".to_owned()))?;
    let mut files = Vec::new();
    for pattern in expand_braces(pattern).map_err(malformed)? {
        if pattern.contains(['*', '?', '[']) {
            let found = glob::glob(&pattern).map_err(|error| malformed(format!("pattern `{pattern}`: {error}")))?;
            let mut found: Vec<PathBuf> =
                found.collect::<Result<_, _>>().map_err(|error| malformed(error.to_string()))?;
            found.sort();
            files.extend(found);
        } else {
            files.push(PathBuf::from(pattern));
        }
    }
    Ok(files)
}

/// The shards in a folder; if there are none, those in all folders below it.
fn shards_in(dir: &Path, warnings: &mut Vec<String>) -> Result<Vec<PathBuf>, DataError> {
    let (mut shards, mut below, mut compressed) = (Vec::new(), Vec::new(), Vec::new());
    collect(dir, MAX_DEPTH, &mut shards, &mut below, &mut compressed)?;
    if shards.is_empty() && below.is_empty() {
        let found = match &compressed[..] {
            [] => "no `.tar` file".to_owned(),
            [first, ..] => format!(
                "no `.tar` file, but {}; unpack each, such as with `gzip -d {}`",
                counted(compressed.len(), "compressed shard"),
                first.display()
            ),
        };
        return Err(empty(dir, found));
    }
    if !compressed.is_empty() {
        let (path, more) = (dir.display(), counted(compressed.len(), "compressed shard"));
        warnings.push(format!("`{path}`: {more} left out: unpack such shards"));
    }
    if shards.is_empty() {
        let splits = splits(&folders(dir)?);
        if splits.len() > 1 {
            let reason = format!("it has the splits {}; name one of them in `path`", quoted(&splits));
            return Err(DataError::Malformed { path: dir.to_owned(), reason });
        }
        shards = below;
    } else if !below.is_empty() {
        let (path, more) = (dir.display(), counted(below.len(), "shard"));
        warnings.push(format!("`{path}`: {more} in folders below are not read; name these folders in `path`"));
    }
    shards.sort();
    Ok(shards)
}

/// Adds the shards in `dir`, and those in folders below it.
fn collect(
    dir: &Path,
    depth: usize,
    here: &mut Vec<PathBuf>,
    below: &mut Vec<PathBuf>,
    compressed: &mut Vec<PathBuf>,
) -> Result<(), DataError> {
    for entry in std::fs::read_dir(dir).map_err(DataError::read(dir))? {
        let entry = entry.map_err(DataError::read(dir))?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if is_tar(&path) {
            here.push(path);
        } else if COMPRESSED.iter().any(|end| name.ends_with(end)) {
            compressed.push(path);
        } else if depth > 0 && !name.starts_with('.') && is_dir(&path)? {
            let (mut inside, mut deeper) = (Vec::new(), Vec::new());
            match collect(&path, depth - 1, &mut inside, &mut deeper, compressed) {
                // Such as `lost+found` at the root of a disk.
                Err(DataError::Read { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {}
                other => other?,
            }
            below.append(&mut inside);
            below.append(&mut deeper);
        }
    }
    Ok(())
}

/// The folder that paths in a fingerprint are relative to: that of the files that `paths` name, or the one above
/// several. Of a pattern with braces or a glob in a folder, it is the one above that folder.
pub(crate) fn common_root(paths: &[PathBuf]) -> Result<PathBuf, DataError> {
    let mut root: Option<PathBuf> = None;
    for path in paths {
        let here = match metadata(path)? {
            Some(metadata) if metadata.is_dir() => path.as_path(),
            Some(_) => path.parent().unwrap_or(Path::new("")),
            None => {
                let is_plain = |folder: &&Path| !folder.to_string_lossy().contains(['{', '*', '?', '[']);
                path.ancestors().skip(1).find(is_plain).unwrap_or(Path::new(""))
            }
        };
        root = Some(root.map_or_else(
            || here.to_owned(),
            |root| root.ancestors().find(|root| here.starts_with(root)).unwrap_or(Path::new("")).to_owned(),
        ));
    }
    Ok(root.unwrap_or_default())
}

/// The error that `path` has no usable sample.
pub(crate) fn empty(path: &Path, found: String) -> DataError {
    let expected = "tar shards with an image `key.jpg` (or png, webp, gif, bmp, tiff) and its captions in `key.txt` or \
                    `key.json` (`image` and `caption` name others)";
    DataError::Empty { path: path.to_owned(), found, expected }
}

/// Expands `a{000..002}` and `a{x,y}`, the first braces varying slowest.
pub(crate) fn expand_braces(pattern: &str) -> Result<Vec<String>, String> {
    let Some(open) = pattern.find('{') else { return Ok(vec![pattern.to_owned()]) };
    let close = pattern[open..].find('}').map(|close| open + close).ok_or("`{` without a matching `}`")?;
    let (head, inner, tail) = (&pattern[..open], &pattern[open + 1..close], &pattern[close + 1..]);
    let choices: Vec<String> = match inner.split_once("..") {
        Some((from, to)) => {
            let number =
                |text: &str| text.parse::<usize>().map_err(|_| format!("`{{{inner}}}` is not a range of numbers"));
            let (first, last) = (number(from)?, number(to)?);
            if last < first || last - first >= MAX_SHARDS {
                return Err(format!("`{{{inner}}}` is not a range of 1 to {MAX_SHARDS} numbers"));
            }
            (first..=last).map(|n| format!("{n:0width$}", width = from.len())).collect()
        }
        None => inner.split(',').map(str::to_owned).collect(),
    };
    let tails = expand_braces(tail)?;
    if choices.len().saturating_mul(tails.len()) > MAX_SHARDS {
        return Err(format!("the pattern names more than {MAX_SHARDS} shards"));
    }
    Ok(choices.iter().flat_map(|choice| tails.iter().map(move |tail| format!("{head}{choice}{tail}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_may_be_in_upper_case() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["0.tar", "1.TAR", "2.Tar", "3.tara"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let (found, warnings) = shards(&[dir.path().to_owned()]).unwrap();
        assert_eq!(found, ["0.tar", "1.TAR", "2.Tar"].map(|name| dir.path().join(name)));
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn expands_braces() {
        assert_eq!(expand_braces("a{08..11}b").unwrap(), ["a08b", "a09b", "a10b", "a11b"]);
        assert_eq!(expand_braces("{x,y}-{0..1}").unwrap(), ["x-0", "x-1", "y-0", "y-1"]);
        assert!(expand_braces("{0..99999999}").is_err());
        assert!(expand_braces("a{0..").is_err());
    }
}
