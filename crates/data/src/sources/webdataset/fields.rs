//! Which entries of a sample are its image and its captions.

use serde_json::Value;

use crate::sources::folder::options::TextCaptions;
use crate::sources::folder::sidecars::captions_of;
use crate::sources::image_files::IMAGE_EXTENSIONS;

/// The key of captions in `.json` entries unless the config names one. It was written to the config of every run once,
/// so a config that has it also takes `.txt` where the key is absent.
pub(crate) const DEFAULT_KEY: &str = "caption";

/// How many kinds of entries can hold the captions of one name.
pub(crate) const RANKS: u8 = 3;

/// The rules of one source.
#[derive(Debug)]
pub(crate) struct Fields {
    /// Extensions of images in lower case, the preferred first; the usual ones if empty.
    image: Vec<String>,
    /// Extensions of captions, or keys in `.json`: one for each slot. The defaults if empty.
    names: Vec<String>,
    txt: TextCaptions,
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// An image, and how many others are preferred to it.
    Image(usize),
    /// A text of captions.
    Text(Field),
    /// A class label.
    Label(Field),
    /// JSON, which may hold captions of several slots.
    Json,
}

/// Captions of one slot, from one kind of entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub slot: u8,
    /// The lowest with a caption is used.
    pub rank: u8,
    pub is_label: bool,
}

impl Field {
    fn new(slot: u8, rank: u8) -> Self {
        Self { slot, rank, is_label: false }
    }
}

impl Fields {
    pub(crate) fn new(image: &[String], names: Vec<String>, txt: TextCaptions) -> Self {
        let bare = |name: &String| name.trim_start_matches('.').to_lowercase();
        Self { image: image.iter().map(bare).collect(), names, txt }
    }

    /// Number of slots.
    pub(crate) fn num_slots(&self) -> u8 {
        self.names.len().max(1) as u8
    }

    /// Whether the config names the extensions of images.
    pub(crate) fn prefers_images(&self) -> bool {
        !self.image.is_empty()
    }

    /// The extensions of images that the config names.
    pub(crate) fn images(&self) -> impl Iterator<Item = &str> {
        self.image.iter().map(String::as_str)
    }

    /// Whether an entry with the extension is an image.
    pub(crate) fn is_image(&self, extension: &str) -> bool {
        matches!(self.role(extension), Some(Role::Image(_)))
    }

    /// The extension or key of a slot; `None` by default.
    pub(crate) fn name(&self, slot: u8) -> Option<&str> {
        self.names.get(usize::from(slot)).map(String::as_str)
    }

    /// What an entry with the extension `extension`, in lower case, is for.
    pub(crate) fn role(&self, extension: &str) -> Option<Role> {
        let is_image = |image: &String| image == extension;
        if self.image.is_empty() && IMAGE_EXTENSIONS.contains(&extension) {
            return Some(Role::Image(0));
        }
        if let Some(rank) = self.image.iter().position(is_image) {
            return Some(Role::Image(rank));
        }
        if self.names.is_empty() {
            return match extension {
                "txt" => Some(Role::Text(Field::new(0, 0))),
                "json" => Some(Role::Json),
                "cls" => Some(Role::Label(Field { is_label: true, ..Field::new(0, 2) })),
                _ => None,
            };
        }
        let is_json = extension == "json" || extension.ends_with(".json");
        let names = || self.names.iter().map(|name| name.trim_start_matches('.'));
        if is_json && (extension == "json" || names().any(|name| json_path(name, extension).is_some())) {
            return Some(Role::Json);
        }
        if let Some(slot) = names().position(|name| name.eq_ignore_ascii_case(extension)) {
            let field = Field::new(slot as u8, 0);
            let label = || Role::Label(Field { is_label: true, ..field });
            return Some(if extension == "cls" { label() } else { Role::Text(field) });
        }
        let old_default = extension == "txt" && self.names == [DEFAULT_KEY];
        old_default.then_some(Role::Text(Field::new(0, 2)))
    }

    /// The captions of a text entry, and whether it has several lines.
    pub(crate) fn text(&self, bytes: &[u8]) -> Result<(Vec<String>, bool), String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
        Ok(self.txt.split(text))
    }

    /// The captions in a JSON entry by field, and the names that it lacks.
    pub(crate) fn json<'a>(&'a self, value: &Value, extension: &str) -> (Vec<(Field, Vec<String>)>, Vec<&'a str>) {
        let (mut found, mut lacking) = (Vec::new(), Vec::new());
        if self.names.is_empty() {
            match value.get(DEFAULT_KEY).and_then(captions) {
                Some(captions) => found.push((Field::new(0, 1), captions)),
                None => lacking.push(DEFAULT_KEY),
            }
        }
        for (name, slot) in self.names.iter().zip(0..) {
            let bare = name.trim_start_matches('.');
            let inside = json_path(bare, extension).and_then(|path| at_path(value, path)).and_then(captions);
            let inside = inside.or_else(|| at_path(value, name).filter(|_| extension == "json").and_then(captions));
            match inside {
                Some(captions) => found.push((Field::new(slot, 1), captions)),
                None => lacking.push(name),
            }
        }
        (found, lacking)
    }
}

/// The path in the entry `extension` that `name` names: `meta.json.a.b` is `a.b` in `.meta.json`, and `meta.json` is
/// its whole value.
fn json_path<'a>(name: &'a str, extension: &str) -> Option<&'a str> {
    let head = name.get(..extension.len()).filter(|head| head.eq_ignore_ascii_case(extension))?;
    let rest = &name[head.len()..];
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
}

/// The value under a key, or under keys with dots between them.
fn at_path<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(value);
    }
    if let Some(found) = value.get(path) {
        return Some(found);
    }
    path.match_indices('.').find_map(|(dot, _)| at_path(value.get(&path[..dot])?, &path[dot + 1..]))
}

/// A string, a list of strings, a whole number (a class), or null for none.
fn captions(value: &Value) -> Option<Vec<String>> {
    value.as_i64().map(|label| vec![label.to_string()]).or_else(|| captions_of(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(image: &[&str], names: &[&str]) -> Fields {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        Fields::new(&owned(image), owned(names), TextCaptions::Lines)
    }

    #[test]
    fn names_are_extensions_or_keys() {
        let default = fields(&[], &[]);
        assert_eq!(default.role("jpeg"), Some(Role::Image(0)));
        assert_eq!(default.role("txt"), Some(Role::Text(Field::new(0, 0))));
        assert!(matches!(default.role("cls"), Some(Role::Label(_))));
        assert_eq!(default.role("outputs.txt"), None);
        let named = fields(&["Input.jpg", ".png"], &["outputs.txt", "llava", "meta.json.caption"]);
        assert_eq!(named.role("input.jpg"), Some(Role::Image(0)));
        assert_eq!(named.role("png"), Some(Role::Image(1)));
        assert_eq!(named.role("jpg"), None);
        assert_eq!(named.role("outputs.txt"), Some(Role::Text(Field::new(0, 0))));
        assert_eq!(named.role("llava"), Some(Role::Text(Field::new(1, 0))));
        assert_eq!((named.role("json"), named.role("meta.json")), (Some(Role::Json), Some(Role::Json)));
        assert_eq!((named.role("txt"), named.role("other.json")), (None, None));
        assert_eq!(fields(&[], &["caption"]).role("txt"), Some(Role::Text(Field::new(0, 2))));
        assert_eq!(fields(&[], &["llava"]).role("txt"), None);
    }

    #[test]
    fn json_values_by_path() {
        let value = json!({"a": {"b.c": "x", "d": ["y", "z"]}, "n": null, "label": 3, "caption": "w"});
        let found = |names: &[&str], extension: &str| {
            let found = fields(&[], names).json(&value, extension).0;
            found.into_iter().map(|(field, captions)| (field.slot, captions.join("|"))).collect::<Vec<_>>()
        };
        let expected = [(0, "x"), (1, "y|z"), (3, ""), (4, "3")].map(|(slot, text)| (slot, text.to_owned()));
        assert_eq!(found(&["a.b.c", "a.d", "a", "n", "label"], "json"), expected);
        assert_eq!(found(&["json.caption"], "json"), [(0, "w".to_owned())]);
        assert_eq!(found(&["meta.json.a.d"], "meta.json"), [(0, "y|z".to_owned())]);
        assert_eq!(found(&["caption"], "meta.json"), []);
        assert_eq!(found(&[], "json"), [(0, "w".to_owned())]);
        let text = json!(["p", "q"]);
        assert_eq!(fields(&[], &["out.json"]).json(&text, "out.json").0[0].1, ["p", "q"]);
    }
}
