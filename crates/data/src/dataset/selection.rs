//! The rows that `only` names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::text_lists::text_file::{lines, read_file_text};

/// Names that an error lists.
const NAMED: usize = 10;

/// First lines that say what the entries are.
const KINDS: [&str; 3] = ["row", "key", "image"];

/// A list of rows to take: by number, by the image's name, or by where the image is.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    path: PathBuf,
    by: By,
    /// Number of distinct entries that were found.
    found: usize,
    /// Of a list of numbers without a first line that says what they are: a number that is the key of another row.
    /// Empty with such a line.
    ambiguous: Option<String>,
}

#[derive(Clone, Debug)]
enum By {
    /// 1-based numbers, each with whether it was found.
    Row(HashMap<u64, bool>),
    /// Names as the source writes them, each with whether it was found.
    Key(HashMap<String, bool>),
    /// [`Dataset::relative_key`] of images, each with whether it was found.
    Image(HashMap<String, bool>),
}

impl Selection {
    /// Reads a list with one entry per line: row numbers, 1-based and without the header; keys: image names as the
    /// source writes them, or the keys of shard samples; or images, as [`Dataset::relative_key`] names them. A first
    /// line `row`, `key` or `image` says which; without it, entries that are all numbers without leading zeros are row
    /// numbers, and others are keys.
    ///
    /// # Errors
    /// [`DataError::Read`], [`DataError::TextList`] if it is no text in UTF-8 or UTF-16, [`DataError::Empty`] without
    /// an entry.
    pub(crate) fn read(path: &Path) -> Result<Self, DataError> {
        let text = read_file_text(path)?;
        let entries: Vec<&str> = lines(&text).filter(|line| !line.is_empty()).collect();
        let kind = entries.first().map(|first| first.to_lowercase()).filter(|it| KINDS.contains(&it.as_str()));
        let entries = &entries[usize::from(kind.is_some())..];
        if entries.is_empty() {
            return Err(DataError::Empty {
                path: path.to_owned(),
                found: "no entry".to_owned(),
                expected: "one row number or image name per line",
            });
        }
        let number = |entry: &&str| entry.parse::<u64>().ok().map(|number| (number, false));
        let numbers: Option<HashMap<u64, bool>> = entries.iter().map(number).collect();
        // Keys such as `000000042` have a fixed length, row numbers have not.
        let is_padded = |entry: &&str| entry.len() > 1 && entry.starts_with('0');
        let by = match (kind.as_deref(), numbers) {
            (Some("row"), None) => {
                let wrong = entries.iter().find(|entry| number(entry).is_none()).copied().unwrap_or_default();
                return Err(DataError::Malformed {
                    path: path.to_owned(),
                    reason: format!("`{wrong}` is no row number, which the first line `row` asks for"),
                });
            }
            (Some("row"), Some(rows)) => By::Row(rows),
            (Some("image"), _) => By::Image(entries.iter().map(|&entry| (entry.to_owned(), false)).collect()),
            (None, Some(rows)) if !entries.iter().any(is_padded) => By::Row(rows),
            _ => By::Key(entries.iter().map(|&entry| (entry.to_owned(), false)).collect()),
        };
        let ambiguous = kind.is_some().then(String::new);
        Ok(Self { path: path.to_owned(), by, found: 0, ambiguous })
    }

    /// Whether the list has row number `row`, or `key`. Every row of a list of images: [`Selection::images_of`] takes
    /// them when all are known.
    pub(crate) fn takes(&mut self, row: u64, key: &str) -> bool {
        if let (By::Row(rows), None) = (&self.by, &self.ambiguous)
            && key.parse().is_ok_and(|number: u64| number != row && rows.contains_key(&number))
        {
            self.ambiguous = Some(key.to_owned());
        }
        let entry = match &mut self.by {
            By::Row(rows) => rows.get_mut(&row),
            By::Key(keys) => keys.get_mut(key),
            By::Image(_) => return true,
        };
        let Some(seen) = entry else { return false };
        self.found += usize::from(!*seen);
        *seen = true;
        true
    }

    /// As [`Selection::takes`], of a sample without a number: one that a list of numbers cannot mean.
    pub(crate) fn names(&mut self, key: &str) -> bool {
        !matches!(self.by, By::Row(_)) && self.takes(0, key)
    }

    /// The images of `dataset` that a list of images has; the whole data set for other lists.
    pub(crate) fn images_of(&mut self, dataset: Dataset) -> Dataset {
        let By::Image(images) = &mut self.by else { return dataset };
        let mut taken = vec![false; dataset.num_images()];
        for (image, taken) in taken.iter_mut().enumerate() {
            if let Some(seen) = images.get_mut(&dataset.relative_key(image)) {
                self.found += usize::from(!*seen);
                (*seen, *taken) = (true, true);
            }
        }
        dataset.filter(|image| taken[image])
    }

    /// Refuses entries that the source `source` does not have.
    ///
    /// # Errors
    /// [`DataError::Malformed`], which names the first of them.
    pub(crate) fn check(&self, source: &Path) -> Result<(), DataError> {
        if let Some(key) = self.ambiguous.as_ref().filter(|key| !key.is_empty()) {
            return Err(DataError::Malformed {
                path: self.path.clone(),
                reason: format!(
                    "its entries are row numbers of `{}` or keys, such as `{key}`; write `row` or `key` into a first \
                     line",
                    source.display()
                ),
            });
        }
        let (unit, all, mut missing): (_, _, Vec<String>) = match &self.by {
            By::Row(rows) => {
                let mut missing: Vec<u64> = rows.iter().filter(|(_, seen)| !**seen).map(|(row, _)| *row).collect();
                missing.sort_unstable();
                ("row numbers", rows.len(), missing.iter().take(NAMED).map(u64::to_string).collect())
            }
            By::Key(keys) | By::Image(keys) => {
                let mut missing: Vec<&String> = keys.iter().filter(|(_, seen)| !**seen).map(|(key, _)| key).collect();
                missing.sort();
                ("names", keys.len(), missing.iter().take(NAMED).map(|key| format!("`{key}`")).collect())
            }
        };
        let absent = all - self.found;
        if absent == 0 {
            return Ok(());
        }
        if absent > missing.len() {
            missing.push("...".to_owned());
        }
        Err(DataError::Malformed {
            path: self.path.clone(),
            reason: format!(
                "`{}` lacks {absent} of the {all} {unit} in this list: {}",
                source.display(),
                missing.join(", ")
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::builder::DatasetBuilder;
    use crate::images::location::ImageRef;

    fn selection(text: impl AsRef<[u8]>) -> Result<Selection, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.txt");
        std::fs::write(&path, text).unwrap();
        let shown = path.display().to_string();
        Selection::read(&path).map_err(|error| error.to_string().replace(&shown, "rows.txt"))
    }

    #[test]
    fn numbers_or_names() {
        let mut rows = selection("\u{feff}3\r\n1\r\n\r\n1\r\n").unwrap();
        assert_eq!([1, 2, 3].map(|row| rows.takes(row, "x")), [true, false, true]);
        rows.check(Path::new("d.csv")).unwrap();
        let mut keys = selection("3\na.png\n").unwrap();
        assert_eq!(["a.png", "b.png", "3"].map(|key| keys.takes(3, key)), [true, false, true]);
        keys.check(Path::new("d.csv")).unwrap();
        assert_eq!(
            selection("\n").unwrap_err(),
            "`rows.txt` holds no samples: found no entry; expected one row number or image name per line"
        );
    }

    #[test]
    fn lists_have_any_encoding() {
        let utf16: Vec<u8> = "\u{feff}caf\u{e9}.png\r\n2.png\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let macs = b"\xef\xbb\xbfcaf\xc3\xa9.png\r2.png\r".to_vec();
        for bytes in [utf16, macs] {
            let mut keys = selection(bytes).unwrap();
            assert_eq!(["caf\u{e9}.png", "2.png"].map(|key| keys.takes(1, key)), [true, true]);
        }
        let error = selection(b"a\ncaf\xe9\n").unwrap_err();
        assert!(error.contains("not UTF-8 at byte 4 of line 2"), "{error}");
    }

    #[test]
    fn absent_entries_are_named() {
        let mut rows = selection("1\n2\n30\n").unwrap();
        assert!(rows.takes(1, ""));
        let error = rows.check(Path::new("d.csv")).unwrap_err().to_string();
        assert!(error.ends_with("`d.csv` lacks 2 of the 3 row numbers in this list: 2, 30"), "{error}");
        let keys = selection("b\na\n").unwrap();
        let error = keys.check(Path::new("d.csv")).unwrap_err().to_string();
        assert!(error.ends_with("`d.csv` lacks 2 of the 2 names in this list: `a`, `b`"), "{error}");
    }

    #[test]
    fn images_by_place() {
        let dataset = || {
            let mut data = DatasetBuilder::new("/data");
            for (path, caption) in [("/data/a.png", "a"), ("/data/./sub/b.png", "b"), ("/data/sub/b.png", "b again")] {
                data.push(ImageRef::File(path.into()), caption);
            }
            data.push(ImageRef::File("/elsewhere/c.png".into()), "c");
            data.build()
        };
        let mut images = selection("image\nsub/b.png\n/elsewhere/c.png\n").unwrap();
        assert!(images.takes(1, "any"), "which images are wanted is known later");
        let taken = images.images_of(dataset());
        let captions: Vec<&str> = taken.captions().map(|caption| caption.text).collect();
        assert_eq!(captions, ["b", "b again", "c"]);
        images.check(Path::new("d.csv")).unwrap();
        let mut images = selection("image\nc.png\na.png\n").unwrap();
        assert_eq!(images.images_of(dataset()).num_images(), 1);
        let error = images.check(Path::new("d.csv")).unwrap_err().to_string();
        assert!(error.ends_with("`d.csv` lacks 1 of the 2 names in this list: `c.png`"), "{error}");
    }

    #[test]
    fn numeric_keys_are_not_rows() {
        let mut padded = selection("000000003\n000000004\n").unwrap();
        assert_eq!(["000000003", "000000004", "000000005"].map(|key| padded.takes(3, key)), [true, true, false]);
        padded.check(Path::new("s.tar")).unwrap();
        let mut either = selection("3\n1\n").unwrap();
        assert_eq!([(1, "3"), (2, "2"), (3, "1")].map(|(row, key)| either.takes(row, key)), [true, false, true]);
        let error = either.check(Path::new("s.tar")).unwrap_err().to_string();
        assert!(error.contains("row numbers of `s.tar` or keys, such as `3`; write `row` or `key`"), "{error}");
        for (text, taken) in [("row\n3\n1\n", [true, false, true]), ("Key\n3\n2\n", [true, true, false])] {
            let mut said = selection(text).unwrap();
            assert_eq!([(1, "3"), (2, "2"), (3, "1")].map(|(row, key)| said.takes(row, key)), taken);
            said.check(Path::new("s.tar")).unwrap();
        }
        let error = selection("row\na.png\n").unwrap_err();
        assert!(error.contains("`a.png` is no row number"), "{error}");
    }
}
