//! The tar files that a shard pattern names.

use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::files::{is_dir, metadata};

/// Maximum number of shards that one brace pattern may name.
const MAX_SHARDS: usize = 1_000_000;

/// The shards in a folder, or those that a pattern names: in the order of its braces, each glob sorted byte by byte.
pub(crate) fn shards(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let malformed = |reason: String| DataError::Malformed { path: path.to_owned(), reason };
    if is_dir(path)? {
        let entries = std::fs::read_dir(path).map_err(DataError::read(path))?;
        let mut shards = Vec::new();
        for entry in entries {
            let path = entry.map_err(DataError::read(path))?.path();
            if path.extension().is_some_and(|extension| extension == "tar") {
                shards.push(path);
            }
        }
        shards.sort();
        return if shards.is_empty() { Err(empty(path, "no `.tar` file".to_owned())) } else { Ok(shards) };
    }
    if metadata(path)?.is_some() {
        return Ok(vec![path.to_owned()]);
    }
    let pattern = path.to_str().ok_or_else(|| malformed("the pattern is not UTF-8".to_owned()))?;
    let mut shards = Vec::new();
    for pattern in expand_braces(pattern).map_err(malformed)? {
        if pattern.contains(['*', '?', '[']) {
            let found = glob::glob(&pattern).map_err(|error| malformed(format!("pattern `{pattern}`: {error}")))?;
            let mut found: Vec<PathBuf> =
                found.collect::<Result<_, _>>().map_err(|error| malformed(error.to_string()))?;
            found.sort();
            shards.extend(found);
        } else {
            shards.push(PathBuf::from(pattern));
        }
    }
    if shards.is_empty() { Err(empty(path, "no file that matches the pattern".to_owned())) } else { Ok(shards) }
}

/// The error that `path` has no usable sample.
pub(crate) fn empty(path: &Path, found: String) -> DataError {
    let expected = "tar shards with `key.jpg` (jpeg, png, webp, gif) and `key.txt` or `key.json`";
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
    fn expands_braces() {
        assert_eq!(expand_braces("a{08..11}b").unwrap(), ["a08b", "a09b", "a10b", "a11b"]);
        assert_eq!(expand_braces("{x,y}-{0..1}").unwrap(), ["x-0", "x-1", "y-0", "y-1"]);
        assert!(expand_braces("{0..99999999}").is_err());
        assert!(expand_braces("a{0..").is_err());
    }
}
