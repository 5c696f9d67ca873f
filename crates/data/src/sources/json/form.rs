//! Which form a JSON file has, by the outline of its content.

use crate::sources::json::shape::Shape;
use crate::sources::split_column::SPLIT;
use crate::sources::tables::columns::Holds;

/// Keys of the list of rows, the first ones preferred.
const LIST_KEYS: [&str; 9] =
    ["data", "annotations", "images", "samples", "rows", "items", "examples", "records", "captions"];

/// Keys that are splits of a data set.
const SPLIT_KEYS: [&str; 9] = ["train", "restval", "val", "valid", "validation", "dev", "test", "testA", "eval"];

/// Lists of COCO's files that hold no rows.
const NO_ROWS: [&str; 2] = ["licenses", "categories"];

/// A form of JSON file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One object per line.
    Lines,
    /// Objects one after another, over several lines each.
    Sequence,
    /// A list of objects.
    List,
    /// An object with lists of objects under `keys`. The lists under `unread` were neither read nor left out by
    /// `split`.
    Under { keys: Vec<String>, unread: Vec<String> },
    /// COCO captions.
    Coco,
    /// An object with a list, or an object by row number, per column: as pandas writes it.
    Columns { image: String, captions: Vec<String>, has_split: bool },
    /// An object with image paths as keys and captions as values.
    ByImage,
}

impl Form {
    /// The form in words.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Lines => "JSON lines".to_owned(),
            Self::Sequence => "JSON objects".to_owned(),
            Self::List => "JSON list".to_owned(),
            Self::Under { keys, .. } => {
                let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
                format!("JSON list under {}", keys.join(" and "))
            }
            Self::Coco => "COCO captions".to_owned(),
            Self::Columns { .. } => "JSON columns".to_owned(),
            Self::ByImage => "JSON object of captions by image".to_owned(),
        }
    }

    /// The form of a file that starts with `head`, without looking further; `None` if more is needed.
    /// `prefers_lines`: the name of the file says that it has one object per line.
    pub(crate) fn by_head(head: &[u8], prefers_lines: bool) -> Option<Self> {
        let start = head.trim_ascii_start();
        if start.first() == Some(&b'[') {
            return Some(Self::List);
        }
        let end = start.iter().position(|byte| *byte == b'\n');
        let line = end.map_or(start, |end| &start[..end]);
        let is_object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line).is_ok();
        let goes_on = end.is_some_and(|end| start[end..].trim_ascii_start().first() == Some(&b'{'));
        if is_object && goes_on {
            return Some(Self::Lines);
        }
        // An object that is printed over lines starts with a brace alone.
        let is_over_lines = line.trim_ascii() == b"{";
        (prefers_lines && !is_over_lines).then_some(Self::Lines)
    }

    /// The form of an object with this outline; `is_whole`: nothing follows it. The error says what it is.
    pub(crate) fn of_object(
        shape: &Shape,
        is_whole: bool,
        image: Option<&str>,
        captions: &[&str],
        splits: &[String],
    ) -> Result<Self, String> {
        if !is_whole {
            return Ok(Self::Sequence);
        }
        let Shape::Object(entries) = shape else {
            return Err(format!("{}; expected an object or a list of objects", shape.describe()));
        };
        let is_list_of_objects = |shape: &Shape| matches!(shape.first(), Some(Shape::Object(_)));
        let keys = shape.keys();
        let is_empty_list = |key: &str| shape.get(key) == Some(&Shape::List(None));
        if ["images", "annotations"]
            .iter()
            .all(|key| shape.get(key).is_some_and(is_list_of_objects) || is_empty_list(key))
        {
            return Ok(Self::Coco);
        }
        if let Ok((image, captions)) = columns(&keys, image, captions) {
            let is_column = |key: &String| matches!(shape.get(key), Some(Shape::List(_) | Shape::Object(_)));
            let is_cell = |key: &String| matches!(shape.get(key), Some(Shape::Text | Shape::Number | Shape::Null));
            if is_column(&image) && captions.iter().all(is_column) {
                let has_split = is_column(&SPLIT.to_owned());
                if !splits.is_empty() && !has_split {
                    return Err(format!("{}; `split` is set, and there is no column `{SPLIT}`", shape.describe()));
                }
                return Ok(Self::Columns { image, captions, has_split });
            }
            if is_cell(&image) {
                return Ok(Self::Sequence);
            }
        }
        let lists: Vec<&str> =
            entries.iter().filter(|(_, shape)| is_list_of_objects(shape)).map(|(key, _)| key.as_str()).collect();
        let parts: Vec<&str> = lists.iter().copied().filter(|key| SPLIT_KEYS.contains(key)).collect();
        let unread = |keys: &[&str]| -> Vec<String> {
            let is_unread = |key: &&str| !keys.contains(key) && !NO_ROWS.contains(key);
            lists.iter().copied().filter(is_unread).map(str::to_owned).collect()
        };
        if !parts.is_empty() || splits.iter().any(|split| lists.contains(&split.as_str())) {
            let quoted = |keys: &[&str]| keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            return match (splits, parts.as_slice()) {
                ([], [only]) => Ok(Self::Under { keys: vec![(*only).to_owned()], unread: unread(&[only]) }),
                ([], _) => Err(format!(
                    "an object with the splits {}; set `split`, such as `split = \"{}\"`",
                    quoted(&parts),
                    parts[0]
                )),
                _ => match splits.iter().find(|split| !lists.contains(&split.as_str())) {
                    Some(absent) => {
                        Err(format!("an object without the split `{absent}`; its splits are {}", quoted(&lists)))
                    }
                    None => Ok(Self::Under { keys: splits.to_vec(), unread: Vec::new() }),
                },
            };
        }
        let preferred = LIST_KEYS.iter().find(|key| lists.contains(key));
        if let Some(key) = preferred.or(lists.first().filter(|_| lists.len() == 1)) {
            return Ok(Self::Under { keys: vec![(*key).to_owned()], unread: unread(&[key]) });
        }
        let is_captions = |shape: &Shape| matches!(shape, Shape::Text) || matches!(shape.first(), Some(Shape::Text));
        if !entries.is_empty() && entries.iter().all(|(key, shape)| key.contains('.') && is_captions(shape)) {
            return Ok(Self::ByImage);
        }
        Err(format!(
            "{}; expected a list of objects, one object per line, COCO captions, a Karpathy split, or an object with \
             columns",
            shape.describe()
        ))
    }
}

fn columns(keys: &[String], image: Option<&str>, captions: &[&str]) -> Result<(String, Vec<String>), String> {
    let find = |holds: Holds, written| holds.find(keys, written).map(|at| keys[at].clone());
    let captions = match captions {
        [] => vec![find(Holds::Caption, None)?],
        captions => captions.iter().map(|key| find(Holds::Caption, Some(key))).collect::<Result<_, _>>()?,
    };
    Ok((find(Holds::Image, image)?, captions))
}
