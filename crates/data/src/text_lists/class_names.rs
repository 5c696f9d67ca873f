//! The names of classes, in their order.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::DataError;
use crate::sources::folder::file_names::is_wordnet_id;
use crate::text_lists::json_list::{JsonList, list_in};
use crate::text_lists::python_list;
use crate::text_lists::table_like::table_like;
use crate::text_lists::text_file::{at_line, empty, lines, read_file_text};

/// Reads class names, in the order of the classes: one per line; a JSON list of strings, or an object that leads to
/// one; a JSON object from indices to names (`{"0": "tench"}`, also ImageNet's `{"0": ["n01440764", "tench"]}`) or from
/// names to indices; or a Python list with a string per line. Blank lines are left out.
///
/// # Errors
/// [`DataError::TextList`] if the file is empty, a table or in another form; [`DataError::Read`].
pub fn read_class_names(path: &Path) -> Result<Vec<String>, DataError> {
    read(path, false)
}

/// As [`read_class_names`], for classes that are known by their numbers: a blank line between names is an error, since
/// the names behind it would be those of other classes.
///
/// # Errors
/// As for [`read_class_names`]; [`DataError::TextList`] for a blank line between names.
pub(crate) fn read_numbered_names(path: &Path) -> Result<Vec<String>, DataError> {
    read(path, true)
}

/// As [`read_class_names`], where a JSON list may have a list of names in the place of a name: the class has all of
/// them. Returns the names of each class, at least one.
///
/// # Errors
/// As for [`read_class_names`]; [`DataError::TextList`] for a class without a name.
pub fn read_class_synonyms(path: &Path) -> Result<Vec<Vec<String>>, DataError> {
    read_synonyms(path, false)
}

/// As [`read_class_synonyms`], for classes that are known by their numbers: a blank line between names is an error,
/// since the names behind it would be those of other classes.
///
/// # Errors
/// As for [`read_class_synonyms`]; [`DataError::TextList`] for a blank line between names.
pub fn read_numbered_synonyms(path: &Path) -> Result<Vec<Vec<String>>, DataError> {
    read_synonyms(path, true)
}

fn read_synonyms(path: &Path, is_numbered: bool) -> Result<Vec<Vec<String>>, DataError> {
    match list_in(path, &read_file_text(path)?)? {
        Some(list) if list.array().is_some() => list.names(),
        _ => Ok(read(path, is_numbered)?.into_iter().map(|name| vec![name]).collect()),
    }
}

fn read(path: &Path, is_numbered: bool) -> Result<Vec<String>, DataError> {
    let text = read_file_text(path)?;
    if let Some(list) = list_in(path, &text)? {
        return match list.object() {
            Some(object) => by_index(object).ok_or_else(|| refused(&list)),
            None => Ok(list.names()?.into_iter().filter_map(|names| names.into_iter().next()).collect()),
        };
    }
    let lines: Vec<&str> = lines(&text).collect();
    if let Some(problem) = table_like(path, &lines) {
        return Err(DataError::TextList { path: path.to_owned(), problem });
    }
    let names: Vec<String> = match python_list::entries(path, &lines)? {
        Some(entries) => entries.into_iter().map(|entry| entry.text).collect(),
        None => {
            let filled = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
            if let Some(blank) = lines[..filled].iter().position(|line| line.is_empty()).filter(|_| is_numbered) {
                let problem = "it is blank, and line n is the name of class n - 1; remove it, or write the name";
                return Err(at_line(path, blank + 1, problem));
            }
            lines.into_iter().filter(|line| !line.is_empty()).map(str::to_owned).collect()
        }
    };
    if names.is_empty() { Err(empty(path, "one class name per line")) } else { Ok(names) }
}

/// The names that occur more than once, sorted. No text can tell their classes apart.
#[must_use]
pub fn repeated_names(names: &[String]) -> Vec<&str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name).collect()
}

/// The names in the order of their indices, which must be 0, 1, 2 and so on; `None` for any other object.
fn by_index(object: &Map<String, Value>) -> Option<Vec<String>> {
    let entry = |(key, value): (&String, &Value)| match value {
        Value::String(name) => Some((key.parse::<usize>().ok()?, name.trim().to_owned())),
        // torchvision's `class_to_idx` and the `label2id` of transformers.
        Value::Number(index) => Some((usize::try_from(index.as_u64()?).ok()?, key.trim().to_owned())),
        // The WordNet id and the name, of Keras' `imagenet_class_index.json`.
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(id), Value::String(name)] if is_wordnet_id(id) => {
                Some((key.parse::<usize>().ok()?, name.trim().to_owned()))
            }
            _ => None,
        },
        _ => None,
    };
    let names: BTreeMap<usize, String> = object.iter().map(entry).collect::<Option<_>>()?;
    let complete = names.len() == object.len() && names.keys().copied().eq(0..names.len());
    (complete && names.values().all(|name| !name.is_empty())).then(|| names.into_values().collect())
}

fn refused(list: &JsonList) -> DataError {
    let values_are_lists = list.object().is_some_and(|object| object.values().all(Value::is_array));
    if values_are_lists {
        return list.ambiguous();
    }
    list.error(
        "it is a JSON object, but not one from the indices 0, 1, 2, .. to names; expected that, a list of strings, or \
         one name per line"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(name: &str, text: &str, is_numbered: bool) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        super::read(&path, is_numbered).map_err(|error| error.to_string().replace(&path.display().to_string(), name))
    }

    fn read(name: &str, text: &str) -> Result<Vec<String>, String> {
        read_as(name, text, false)
    }

    #[test]
    fn blank_lines_shift_no_number() {
        assert_eq!(read_as("n.txt", "cat\ndog\n\n\n", true).unwrap(), ["cat", "dog"]);
        let error = read_as("n.txt", "cat\n\ndog\n", true).unwrap_err();
        assert!(error.contains("line 2: it is blank, and line n is the name of class n - 1"), "{error}");
        assert_eq!(read("n.txt", "cat\n\ndog\n").unwrap(), ["cat", "dog"]);
        // In a list of Python, entries have the numbers, not lines.
        assert_eq!(read_as("n.py", "names = [\n'cat',\n\n'dog',\n]\n", true).unwrap(), ["cat", "dog"]);
    }

    #[test]
    fn common_forms_read_alike() {
        let expected = ["tench, Tinca tinca", "gold fish"].map(str::to_owned);
        for (name, text) in [
            ("n.txt", "\u{feff}tench, Tinca tinca\r\n\r\n gold fish \r\n"),
            ("n.json", r#"["tench, Tinca tinca", "gold fish"]"#),
            ("n.json", r#"{"imagenet1k": ["tench, Tinca tinca", "gold fish"]}"#),
            ("n.json", r#"{"1": "gold fish", "0": "tench, Tinca tinca"}"#),
            ("n.txt", r#"{"id2label": {"0": "tench, Tinca tinca", "1": "gold fish"}}"#),
            ("n.json", r#"{"gold fish": 1, "tench, Tinca tinca": 0}"#),
            ("n.json", r#"{"0": ["n01440764", "tench, Tinca tinca"], "1": ["n01443537", "gold fish"]}"#),
            ("n.py", "names = [\n'tench, Tinca tinca',\n'gold fish',\n]\n"),
        ] {
            assert_eq!(read(name, text).as_deref(), Ok(&expected[..]), "{text}");
        }
        let order: String = (0..12).map(|n| format!(r#""{n}": "{n}","#)).collect();
        let names = read("n.json", &format!("{{{}}}", order.trim_end_matches(','))).unwrap();
        assert_eq!(names[10], "10", "by number, not by text");
    }

    #[test]
    fn other_forms_are_refused() {
        for (name, text, expected) in [
            ("n.txt", "\n", "it is empty; expected one class name per line"),
            ("n.csv", "0,cat\n1,dog\n", "it is a table: line 1 and those after it have 2 cells"),
            ("n.tsv", "label\ncat\ndog\n", "it is a table: line 1 is the name of its column, `label`"),
            ("n.json", "{\"0\": \"a\", \"2\": \"b\"}", "it is a JSON object, but not one from the indices"),
            ("n.json", "{\"a\": \"x\", \"b\": \"y\"}", "it is a JSON object, but not one from the indices"),
            ("n.json", "{\"a\": [\"x\"], \"b\": [\"y\"]}", "it is a JSON object with the keys `a`, `b`"),
            ("n.json", "[\"a\", \"\"]", "entry 2 of the list is blank"),
            ("n.json", "[\"a\", [\"b\", \"\"]]", "entry 2 of the list is blank"),
            ("n.json", "[\"a\", []]", "entry 2 of the list is `[]`; expected a string"),
            ("n.json", "[\"a\", {\"name\": \"b\"}]", "entry 2 of the list is"),
        ] {
            let error = read(name, text).unwrap_err();
            assert!(error.starts_with(&format!("`{name}`: {expected}")), "{error}");
        }
    }

    #[test]
    fn class_may_have_several_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.json");
        for (text, expected) in [
            (
                r#"["tench", ["crane", "bird with a long neck"]]"#,
                [vec!["tench"], vec!["crane", "bird with a long neck"]],
            ),
            (r#"[["n01440764", "tench"], "crane"]"#, [vec!["tench"], vec!["crane"]]),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_class_synonyms(&path).unwrap(), expected);
            assert_eq!(read_class_names(&path).unwrap(), ["tench", "crane"]);
        }
        std::fs::write(&path, "{\"0\": \"a\", \"1\": \"b\"}").unwrap();
        assert_eq!(read_class_synonyms(&path).unwrap(), [["a"], ["b"]]);
    }

    #[test]
    fn repeated_names_are_found() {
        let names = ["crane", "heron", "crane", "missile", "missile"].map(str::to_owned);
        assert_eq!(repeated_names(&names), ["crane", "missile"]);
    }
}
