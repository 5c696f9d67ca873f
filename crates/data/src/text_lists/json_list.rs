//! A list within a JSON file: a list, or an object that leads to one list, as CLIP_benchmark's files by data set and by
//! language.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::DataError;
use crate::sources::folder::file_names::is_wordnet_id;

/// Keys that an error lists.
const MAX_LISTED: usize = 12;

/// A list in a JSON file, or the object that stands for one.
pub(crate) struct JsonList {
    path: PathBuf,
    /// The keys that lead to it.
    keys: Vec<String>,
    value: Value,
}

/// Whether the name of the file says that it is JSON.
pub(crate) fn is_json_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// The list in the JSON text of `path`; `None` if the text is not JSON, and the name of the file does not say so.
///
/// # Errors
/// [`DataError::TextList`] if a file named as JSON is not.
pub(crate) fn list_in(path: &Path, text: &str) -> Result<Option<JsonList>, DataError> {
    match serde_json::from_str(text) {
        // The template `{}`.
        Ok(Value::Object(object)) if object.is_empty() && !is_json_file(path) => Ok(None),
        Ok(value @ (Value::Array(_) | Value::Object(_))) => {
            Ok(Some(JsonList { path: path.to_owned(), keys: Vec::new(), value }.only_list()))
        }
        Err(error) if is_json_file(path) => {
            Err(DataError::TextList { path: path.to_owned(), problem: format!("not JSON: {error}") })
        }
        _ => Ok(None),
    }
}

impl JsonList {
    /// Goes down as long as an object has a single entry that is a list or an object.
    fn only_list(mut self) -> Self {
        while let Value::Object(object) = &self.value
            && let [(key, inner @ (Value::Array(_) | Value::Object(_)))] = &*object.iter().collect::<Vec<_>>()
        {
            self.keys.push((*key).clone());
            self.value = (*inner).clone();
        }
        self
    }

    /// The list, if it is one.
    pub(crate) fn array(&self) -> Option<&[Value]> {
        self.value.as_array().map(Vec::as_slice)
    }

    /// The object, if it is one.
    pub(crate) fn object(&self) -> Option<&Map<String, Value>> {
        self.value.as_object()
    }

    /// The strings of the list.
    ///
    /// # Errors
    /// [`DataError::TextList`] if it is an object of several lists, is empty, or has entries that are not strings or
    /// are blank.
    pub(crate) fn strings(&self) -> Result<Vec<String>, DataError> {
        self.entries()?.map(|(number, entry)| self.string(number, entry)).collect()
    }

    /// The names of each class: an entry is a name, or a list of names, of which a WordNet id at the start is none.
    ///
    /// # Errors
    /// As for [`JsonList::strings`]; [`DataError::TextList`] for an empty entry.
    pub(crate) fn names(&self) -> Result<Vec<Vec<String>>, DataError> {
        let names = |(number, entry): (usize, &Value)| {
            let names = match entry {
                Value::Array(names) if !names.is_empty() => names.as_slice(),
                name => std::slice::from_ref(name),
            };
            let mut names: Vec<String> =
                names.iter().map(|name| self.string(number, name)).collect::<Result<_, _>>()?;
            if names.len() > 1 && is_wordnet_id(&names[0]) {
                names.remove(0);
            }
            Ok(names)
        };
        self.entries()?.map(names).collect()
    }

    /// The entries with their numbers, from 1.
    fn entries(&self) -> Result<impl Iterator<Item = (usize, &Value)>, DataError> {
        let Some(entries) = self.array() else { return Err(self.ambiguous()) };
        if entries.is_empty() {
            return Err(self.error("its list is empty".to_owned()));
        }
        Ok((1..).zip(entries))
    }

    fn string(&self, number: usize, entry: &Value) -> Result<String, DataError> {
        match entry.as_str().map(str::trim) {
            Some("") => Err(self.error(format!("entry {number} of the list is blank"))),
            Some(text) => Ok(text.to_owned()),
            None => Err(self.error(format!("entry {number} of the list is `{entry}`; expected a string"))),
        }
    }

    /// The error that an object does not lead to a single list.
    pub(crate) fn ambiguous(&self) -> DataError {
        let Some(object) = self.object().filter(|object| !object.is_empty()) else {
            return self.error("expected a list of strings".to_owned());
        };
        let mut keys: Vec<String> = object.keys().take(MAX_LISTED).map(|key| format!("`{key}`")).collect();
        if object.len() > MAX_LISTED {
            keys.push(format!("{} more", object.len() - MAX_LISTED));
        }
        let path: String = self
            .keys
            .iter()
            .map(String::as_str)
            .chain(object.keys().next().map(String::as_str))
            .fold(String::new(), |path, key| format!("{path}[\"{key}\"]"));
        let file = self.path.file_name().unwrap_or_default().display();
        self.error(format!(
            "it is a JSON object with the keys {}; expected a list of strings, or an object with one list. Take one \
             out: `jq '.{path}' {file} > list.json`",
            keys.join(", ")
        ))
    }

    /// An error about this file.
    pub(crate) fn error(&self, problem: String) -> DataError {
        DataError::TextList { path: self.path.clone(), problem }
    }
}
