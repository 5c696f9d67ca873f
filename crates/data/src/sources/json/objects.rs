//! JSON objects that become pairs: an image path and captions under their keys.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use serde_json::{Map, Value};

use crate::error::DataError;
use crate::sources::image_files::is_image_name;
use crate::sources::rows::Rows;
use crate::sources::split_column::{SPLIT, Splits};
use crate::sources::tables::columns::{Holds, is_about};
use crate::sources::tables::image_path::ImagePaths;
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
    /// Whether an object without the key of a caption has no caption, instead of being malformed: the `datasets`
    /// library reads it as one with a null.
    pub(crate) is_sparse: bool,
    /// The captions that an object had, by number, if `is_sparse`.
    seen: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Keys {
    image: ImageKey,
    captions: Vec<String>,
    /// The keys of the object that they were found in, for a message.
    found: String,
    /// What to say of other keys that look like captions.
    also: String,
    /// Whether the key of the image is known by its value alone.
    is_by_value: bool,
}

impl Keys {
    /// The key of the image, if it is one.
    pub(crate) fn image(&self) -> Option<&str> {
        match &self.image {
            ImageKey::One(key) => Some(key),
            ImageKey::FolderAndName => None,
        }
    }

    pub(crate) fn captions(&self) -> &[String] {
        &self.captions
    }

    /// Where image and captions are, for the log.
    pub(crate) fn origin(&self) -> String {
        let image = match &self.image {
            ImageKey::One(key) if self.is_by_value => {
                format!("`{key}` (its value is the name of an image that is there)")
            }
            ImageKey::One(key) => format!("`{key}`"),
            ImageKey::FolderAndName => "`filepath` and `filename`".to_owned(),
        };
        let captions: Vec<String> = self.captions.iter().map(|key| format!("`{key}`")).collect();
        format!("image from {image}, caption from {}{}", captions.join(" and "), self.also)
    }
}

#[derive(Clone, Debug)]
enum ImageKey {
    One(String),
    /// Karpathy's `filepath` (a folder) and `filename`.
    FolderAndName,
}

impl<'a> Objects<'a> {
    pub(crate) fn new(image: Option<&'a str>, captions: Vec<&'a str>, splits: Vec<String>) -> Self {
        Self { image, captions, splits: Splits::of(splits), keys: None, is_sparse: false, seen: BTreeSet::new() }
    }

    /// The keys of image and captions, for the log.
    pub(crate) fn origin(&self) -> String {
        self.keys.as_ref().map_or_else(|| "no object was read".to_owned(), |keys| keys.origin())
    }

    /// What to say of other keys that look like captions.
    pub(crate) fn also(&self) -> String {
        self.keys.as_ref().map_or_else(String::new, |keys| keys.also.clone())
    }

    /// The keys of captions; none if no object was read.
    pub(crate) fn caption_keys(&self) -> Vec<String> {
        self.keys.as_ref().map_or_else(Vec::new, |keys| keys.captions.clone())
    }

    /// What is wrong if no object has the key of a caption.
    pub(crate) fn unseen(&self) -> Option<String> {
        let keys = self.keys.as_ref().filter(|_| self.is_sparse)?;
        let (_, key) = keys.captions.iter().enumerate().find(|(slot, _)| !self.seen.contains(slot))?;
        Some(format!("no object has the key `{key}`; correct `caption`{}", keys.found))
    }

    /// Number of objects of splits that were not asked for.
    pub(crate) fn num_other_splits(&self) -> u64 {
        self.splits.num_others()
    }

    /// See [`Splits::check`].
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
        match object.get(SPLIT).and_then(Value::as_str).map_or("", str::trim) {
            "" if self.splits.wanted.is_empty() => {}
            "" => return rows.no_split(place),
            split if !self.splits.takes(split) => return Ok(()),
            _ => {}
        }
        let keys = match self.keys.clone().map_or_else(|| self.find_keys(object, rows.paths.root()).map(Rc::new), Ok) {
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
                if self.is_sparse {
                    continue;
                }
                let reason = missing(object, key, "");
                return rows.malformed(place, reason);
            };
            let Some(texts) = texts(value) else {
                let reason = format!("`{key}` is {}; expected a string or a list of strings", brief(value));
                return rows.malformed(place, reason);
            };
            self.seen.insert(slot);
            for text in texts {
                captions.push((slot, text));
            }
        }
        if captions.is_empty() && !image.trim().is_empty() {
            return rows.push_uncaptioned(place, &image);
        }
        rows.push(place, &image, captions.iter().map(|(slot, text)| (*slot, text.as_ref())))
    }

    /// The keys of image and captions, by those of one object. Images are below `root`.
    pub(crate) fn find_keys(&self, object: &Map<String, Value>, root: &Path) -> Result<Keys, String> {
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
        let mut is_by_value = false;
        let image = match self.image {
            None if is_karpathy && !object.contains_key(Holds::Image.key()) => ImageKey::FolderAndName,
            written => ImageKey::One(find(Holds::Image, written).or_else(|reason| {
                let found = if written.is_none() { by_value(object, root) } else { None };
                is_by_value = matches!(found, Some((_, true)));
                match found {
                    Some((key, true)) => Ok(key),
                    Some((key, false)) => {
                        let hint = format!("; the value of `{key}` is the name of an image: set `image = \"{key}\"`");
                        Err(missing(object, Holds::Image.key(), &hint))
                    }
                    None => Err(reason),
                }
            })?),
        };
        let is_image = |name: &str| match &image {
            ImageKey::One(key) => key == name,
            ImageKey::FolderAndName => ["filepath", "filename"].contains(&name),
        };
        let (mut captions, mut also) = (Vec::new(), String::new());
        if self.captions.is_empty() {
            let is_text = |name: &&String| !is_image(name) && !is_about(name) && has_text(&object[*name]);
            let mut others = names.iter().filter(is_text);
            let only = match (others.next(), others.next(), Holds::Caption.alike(&names, |_| true).is_empty()) {
                (Some(only), None, true) => Some(only.clone()),
                _ => None,
            };
            let caption = find(Holds::Caption, None).or_else(|reason| only.ok_or(reason))?;
            let taken: Vec<usize> = names.iter().position(|name| *name == caption).into_iter().collect();
            also = Holds::also(&names, &taken, |at| !is_image(&names[at]) && has_text(&object[&names[at]]));
            captions.push(caption);
        } else if self.is_sparse {
            captions.extend(self.captions.iter().map(|key| (*key).to_owned()));
        } else {
            captions = self.captions.iter().map(|key| find(Holds::Caption, Some(key))).collect::<Result<_, _>>()?;
        }
        let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let found = format!("; the first object has {}", quoted.join(", "));
        Ok(Keys { image, captions, found, also, is_by_value })
    }
}

/// Whether a value holds text.
fn has_text(value: &Value) -> bool {
    !value.is_null() && !value.is_number() && texts(value).is_some_and(|texts| !texts.is_empty())
}

/// The only key with the name of an image, and whether that is there.
fn by_value(object: &Map<String, Value>, root: &Path) -> Option<(String, bool)> {
    let mut named = object.iter().filter_map(|(key, value)| {
        let name = value.as_str().filter(|name| is_image_name(Path::new(name)))?;
        Some((key, name))
    });
    let ((key, name), None) = (named.next()?, named.next()) else { return None };
    Some((key.clone(), ImagePaths::new(root).find(name).is_ok_and(|path| path.is_file())))
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
