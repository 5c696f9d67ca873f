//! JSON objects that become pairs: an image path and captions under their keys.

use std::borrow::Cow;
use std::rc::Rc;

use serde_json::{Map, Value};

use crate::error::DataError;
use crate::sources::rows::Rows;
use crate::sources::split_column::{SPLIT, Splits};
use crate::sources::tables::columns::Holds;
use crate::sources::tables::path_text::shown;

/// Keys of the text in lists of captions that are objects: Karpathy's `sentences` and COCO's annotations.
const TEXT_KEYS: [&str; 3] = ["raw", "caption", "text"];

/// Where image and captions are in the objects of a file.
pub(crate) struct Objects<'a> {
    image: Option<&'a str>,
    /// Empty: the default.
    captions: Vec<&'a str>,
    splits: Splits,
    /// Found in the first object that has them.
    keys: Option<Rc<Keys>>,
}

#[derive(Clone, Debug)]
struct Keys {
    image: ImageKey,
    captions: Vec<String>,
}

#[derive(Clone, Debug)]
enum ImageKey {
    One(String),
    /// Karpathy's `filepath` (a folder) and `filename`.
    FolderAndName,
}

impl<'a> Objects<'a> {
    pub(crate) fn new(image: Option<&'a str>, captions: Vec<&'a str>, splits: Vec<String>) -> Self {
        Self { image, captions, splits: Splits::of(splits), keys: None }
    }

    /// The keys of image and captions, for the log.
    pub(crate) fn origin(&self) -> String {
        let Some(keys) = &self.keys else { return "no object was read".to_owned() };
        let image = match &keys.image {
            ImageKey::One(key) => format!("`{key}`"),
            ImageKey::FolderAndName => "`filepath` and `filename`".to_owned(),
        };
        let captions: Vec<String> = keys.captions.iter().map(|key| format!("`{key}`")).collect();
        format!("image from {image}, caption from {}", captions.join(" and "))
    }

    /// The splits that were asked for and are not there, with those that are; and a warning if all of several are used.
    pub(crate) fn check_splits(&self) -> Result<Option<String>, String> {
        self.splits.check()
    }

    /// Adds object number `number`, at `place` of the file.
    pub(crate) fn push(
        &mut self,
        rows: &mut Rows<'_>,
        number: u64,
        place: u64,
        object: &Map<String, Value>,
    ) -> Result<(), DataError> {
        if let Some(Value::String(split)) = object.get(SPLIT) {
            if !self.splits.takes(split) {
                return Ok(());
            }
        } else if !self.splits.wanted.is_empty() {
            return rows.malformed(place, "no `split`, and `split` is set");
        }
        let keys = match self.keys.clone().map_or_else(|| self.find_keys(object).map(Rc::new), Ok) {
            Ok(keys) => keys,
            Err(reason) => return rows.malformed(place, reason),
        };
        self.keys.get_or_insert_with(|| Rc::clone(&keys));
        let image = match image(object, &keys.image) {
            Ok(image) => image,
            Err(reason) => return rows.malformed(place, reason),
        };
        if !rows.selects(number, &image) {
            return Ok(());
        }
        let mut captions = Vec::new();
        for (slot, key) in keys.captions.iter().enumerate() {
            let Some(value) = object.get(key) else {
                let reason = missing(object, key, "");
                return rows.malformed(place, reason);
            };
            let Some(texts) = texts(value) else {
                let reason = format!("`{key}` is {}; expected a string or a list of strings", brief(value));
                return rows.malformed(place, reason);
            };
            for text in texts {
                rows.see_unquoted(&text, place);
                captions.push((slot, text));
            }
        }
        if captions.is_empty() && !image.trim().is_empty() {
            rows.no_caption(place);
            return Ok(());
        }
        rows.push(place, &image, captions.iter().map(|(slot, text)| (*slot, text.as_ref())))
    }

    fn find_keys(&self, object: &Map<String, Value>) -> Result<Keys, String> {
        let names: Vec<String> = object.keys().cloned().collect();
        let find = |holds: Holds, written: Option<&str>| {
            holds
                .find(&names, written)
                .map(|at| names[at].clone())
                .map_err(|hint| missing(object, written.unwrap_or(holds.key()), &hint))
        };
        if object.contains_key("conversations") && self.captions.is_empty() && find(Holds::Caption, None).is_err() {
            return Err(conversations());
        }
        let is_karpathy = ["filepath", "filename"].iter().all(|key| object.contains_key(*key));
        let image = match self.image {
            None if is_karpathy && !object.contains_key(Holds::Image.key()) => ImageKey::FolderAndName,
            written => ImageKey::One(find(Holds::Image, written)?),
        };
        let captions = if self.captions.is_empty() {
            vec![find(Holds::Caption, None)?]
        } else {
            self.captions.iter().map(|key| find(Holds::Caption, Some(key))).collect::<Result<_, _>>()?
        };
        Ok(Keys { image, captions })
    }
}

/// The image path of an object; empty for null.
fn image(object: &Map<String, Value>, key: &ImageKey) -> Result<String, String> {
    let get = |key: &str| match object.get(key) {
        None => Err(missing(object, key, "")),
        Some(Value::String(path)) => Ok(path.clone()),
        Some(Value::Null) => Ok(String::new()),
        // The image feature of Hugging Face's data sets.
        Some(Value::Object(file)) => match (file.get("path"), file.get("bytes")) {
            (Some(Value::String(path)), None | Some(Value::Null)) => Ok(path.clone()),
            (_, Some(_)) => Err(format!(
                "`{key}` holds the bytes of the image; expected a path: write the images to files, or use Parquet or \
                 tar shards, which hold them"
            )),
            _ => Err(format!("`{key}` is an object; expected a path")),
        },
        Some(other) => Err(format!("`{key}` is {}; expected a path", brief(other))),
    };
    match key {
        ImageKey::One(key) => get(key),
        ImageKey::FolderAndName => {
            let (folder, name) = (get("filepath")?, get("filename")?);
            Ok(if folder.is_empty() || name.is_empty() { name } else { format!("{folder}/{name}") })
        }
    }
}

/// The texts of a string or number, of a list of them, or of a list of objects with a text; none for null.
pub(crate) fn texts(value: &Value) -> Option<Vec<Cow<'_, str>>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(values) => values.iter().map(text).collect(),
        other => Some(vec![text(other)?]),
    }
}

fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Null => Some(Cow::Borrowed("")),
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Object(object) => TEXT_KEYS.iter().find_map(|key| object.get(*key)?.as_str()).map(Cow::Borrowed),
        Value::Bool(_) | Value::Array(_) => None,
    }
}

fn missing(object: &Map<String, Value>, key: &str, hint: &str) -> String {
    let keys = object.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    format!("no key `{key}`; its keys are {}{hint}", if keys.is_empty() { "none" } else { &keys })
}

/// A value, cut for a message.
pub(crate) fn brief(value: &Value) -> String {
    shown(&value.to_string())
}

fn conversations() -> String {
    "`conversations` is LLaVA's form of dialogues, not captions; write one caption per image, for example with `jq -c \
     '.[] | {image, caption: .conversations[1].value}' in.json > out.jsonl`"
        .to_owned()
}
