//! File and folder names as captions: what makes a name useless, and names that are no classes.

use std::path::Path;

use crate::error::DataError;

/// Names of the folders of a split.
const SPLITS: [&str; 10] =
    ["train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation"];

/// Shortest name of hexadecimal digits that is taken for a hash or another identifier: `0badcafe`.
const MIN_HASH_LEN: usize = 8;

/// Whether a name is a number, a hash or a UUID, and so says nothing about an image.
pub(crate) fn is_number_like(name: &str) -> bool {
    let letters = || name.chars().filter(|character| character.is_alphanumeric());
    let digits = letters().filter(char::is_ascii_digit).count();
    let count = letters().count();
    if digits == 0 {
        return false;
    }
    digits == count || count >= MIN_HASH_LEN && letters().all(|character| character.is_ascii_hexdigit())
}

/// Whether a name is an id of WordNet, as the folders of ImageNet have them: `n01440764`.
pub(crate) fn is_wordnet_id(name: &str) -> bool {
    name.strip_prefix('n').is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The name without its digits, for names that differ in nothing else: `IMG_0001` and `IMG_0002`.
pub(crate) fn without_digits(name: &str) -> String {
    name.chars().filter(|character| !character.is_ascii_digit()).collect()
}

/// The number in a name that has one, with what is before and after it: `class 12` is `class `, 12 and nothing.
pub(crate) fn around_number(name: &str) -> Option<(&str, u64, &str)> {
    let is_digit = |character: char| character.is_ascii_digit();
    let (before, rest) = name.split_at(name.find(is_digit)?);
    let (number, after) = rest.split_at(rest.find(|character| !is_digit(character)).unwrap_or(rest.len()));
    if after.contains(is_digit) { None } else { Some((before, number.parse().ok()?, after)) }
}

/// The folders in `dir`, sorted byte by byte.
pub(crate) fn folders(dir: &Path) -> Result<Vec<String>, DataError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(DataError::read(dir))? {
        let entry = entry.map_err(DataError::read(dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // What cannot be examined is reported where it is read.
        let is_dir = || std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        if !name.starts_with('.') && is_dir() {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// Those of `folders` that are the splits of a data set: at least two, or all that there are.
pub(crate) fn splits(folders: &[String]) -> Vec<String> {
    let is_split = |name: &&String| SPLITS.contains(&name.to_lowercase().as_str());
    let found: Vec<String> = folders.iter().filter(is_split).cloned().collect();
    if found.len() > 1 || found.len() == folders.len() { found } else { Vec::new() }
}

/// Whether folders of images are the splits of a data set and no classes. A lone `train` among several is a class of
/// vehicles, unless it has folders itself.
///
/// # Errors
/// [`DataError::Read`].
pub(crate) fn are_splits(path: &Path, names: &[String]) -> Result<bool, DataError> {
    let is_split = |name: &&String| SPLITS.contains(&name.to_lowercase().as_str());
    Ok(match names.iter().filter(is_split).collect::<Vec<_>>()[..] {
        [] => false,
        [one] => names.len() < 3 || !folders(&path.join(one))?.is_empty(),
        _ => true,
    })
}

/// Names in backticks, separated by commas; the first few of many.
pub(crate) fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{}`", name.as_ref())).collect();
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    shown.join(", ") + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_hashes_say_nothing() {
        for name in ["000000012", "12-03", "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "d41d8cd98f00b204", "12_34"] {
            assert!(is_number_like(name), "{name}");
        }
        for name in ["cat", "cat 2", "IMG_0001", "facade", "decade_", "7 dwarfs", "a1", "犬", ""] {
            assert!(!is_number_like(name), "{name}");
        }
        assert!(is_wordnet_id("n01440764") && !is_wordnet_id("n0144076") && !is_wordnet_id("nightjars"));
        assert_eq!(without_digits("IMG_0001"), without_digits("IMG_0200"));
    }

    #[test]
    fn number_in_a_name() {
        assert_eq!(around_number("class 012b"), Some(("class ", 12, "b")));
        assert_eq!(around_number("7"), Some(("", 7, "")));
        assert_eq!([around_number("1 of 2"), around_number("cat"), around_number(&"9".repeat(30))], [None; 3]);
    }

    #[test]
    fn splits_are_no_classes() {
        let splits = |names: &[&str]| splits(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(splits(&["test", "train"]), ["test", "train"]);
        assert_eq!(splits(&["Train"]), ["Train"]);
        assert_eq!(splits(&["bus", "train"]), <[String; 0]>::default());
        assert_eq!(splits(&[]), <[String; 0]>::default());
    }
}
