//! COCO's annotation files: images and captions in two lists, which are streamed and joined by the ids of images.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::BufRead;

use serde_json::Value;

use crate::dataset::skipped_rows::Left;
use crate::error::DataError;
use crate::sources::json::items::{Place, Stop, for_each};
use crate::sources::json::objects::{brief, texts};
use crate::sources::rows::Rows;

/// Keys of an image's name, the first ones preferred. The URLs end in the name.
const NAME_KEYS: [&str; 3] = ["file_name", "coco_url", "flickr_url"];

/// Below this, a 64-bit float stands for one whole number only: 2^53.
const EXACT_FLOATS: f64 = 9_007_199_254_740_992.0;

/// The id of an image: files have numbers, some have text, and pycocotools takes both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Id {
    Number(i64),
    /// From 2^63, as hashes are.
    Large(u64),
    Text(Box<str>),
}

impl Id {
    fn of(value: Option<&Value>) -> Option<Self> {
        match value? {
            Value::Number(number) => {
                let exact = |float: &f64| float.fract() == 0.0 && float.abs() < EXACT_FLOATS;
                let whole = || number.as_f64().filter(exact).map(|float| Self::Number(float as i64));
                number.as_i64().map(Self::Number).or_else(|| number.as_u64().map(Self::Large)).or_else(whole)
            }
            Value::String(text) => {
                let number = text.parse().ok().filter(|number: &i64| number.to_string() == *text).map(Self::Number);
                let large = || text.parse().ok().filter(|number: &u64| number.to_string() == *text).map(Self::Large);
                Some(number.or_else(large).unwrap_or_else(|| Self::Text(text.as_str().into())))
            }
            _ => None,
        }
    }
}

struct Image {
    name: String,
    /// Captions, each with the number of its annotation.
    captions: Vec<(String, u64)>,
}

/// What a file has.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) images: u64,
    pub(crate) annotations: u64,
}

/// Adds the captioned images of `reader` to `rows`, in the order of the images. The inner error: the text is not JSON,
/// or has other values than lists.
pub(crate) fn read_coco(
    reader: impl BufRead,
    rows: &mut Rows<'_>,
) -> Result<Result<Counts, serde_json::Error>, DataError> {
    let (mut images, mut positions): (Vec<Image>, HashMap<Id, usize>) = Default::default();
    let mut annotations: Vec<(Id, String, u64)> = Vec::new();
    let mut counts = Counts::default();
    let read = for_each(reader, Place::Under(&["images", "annotations"]), &mut |key, number, value| {
        if key == "images" {
            counts.images = number;
            return match image(&value) {
                Ok((id, name)) => {
                    let Entry::Vacant(position) = positions.entry(id) else {
                        let reason = format!("the id {} is that of an earlier image", brief(&value["id"]));
                        return rows.malformed_as("image", number, reason);
                    };
                    position.insert(images.len());
                    images.push(Image { name, captions: Vec::new() });
                    Ok(())
                }
                Err(reason) => rows.malformed_as("image", number, reason),
            };
        }
        counts.annotations = number;
        match annotation(&value) {
            Ok((id, texts)) => {
                annotations.extend(texts.into_iter().map(|text| (id.clone(), text, number)));
                Ok(())
            }
            Err(reason) => rows.malformed(number, reason),
        }
    });
    match read {
        Ok(()) => {}
        Err(Stop::Refused(error)) => return Err(error),
        Err(Stop::Json(error)) => return Ok(Err(error)),
    }
    for (id, caption, number) in annotations {
        match positions.get(&id) {
            Some(&at) => images[at].captions.push((caption, number)),
            None => {
                let id = match id {
                    Id::Number(number) => number.to_string(),
                    Id::Large(number) => number.to_string(),
                    Id::Text(text) => format!("{text:?}"),
                };
                rows.malformed(number, format!("`image_id` is {id}; expected the id of an image"))?;
            }
        }
    }
    for (Image { name, captions }, number) in images.into_iter().zip(1..) {
        if !rows.selects(number, &name) {
            continue;
        }
        if captions.is_empty() {
            rows.builder.skipped.note("no caption", || Left::sample(&name, format!("image `{name}` has no caption")));
        }
        for (caption, annotation) in captions {
            rows.push(annotation, &name, [(0, caption.as_str())])?;
        }
    }
    Ok(Ok(counts))
}

fn image(value: &Value) -> Result<(Id, String), String> {
    let id = Id::of(value.get("id")).ok_or_else(|| match value.get("id") {
        Some(id @ Value::Number(_)) => format!("the `id` {}; expected a whole number, or a text", brief(id)),
        _ => format!("no `id` in {}; expected a number or a text", brief(value)),
    })?;
    let named = NAME_KEYS.iter().find_map(|key| Some((*key, value.get(*key)?.as_str()?)));
    let (key, name) =
        named.ok_or_else(|| format!("no `file_name` in {}; expected the name of a file", brief(value)))?;
    let name = if key == NAME_KEYS[0] { name } else { name.rsplit('/').next().unwrap_or(name) };
    Ok((id, name.to_owned()))
}

fn annotation(value: &Value) -> Result<(Id, Vec<String>), String> {
    let caption =
        value.get("caption").ok_or("no `caption`; expected a `captions_*.json`, not the file of another task")?;
    let texts = texts(caption).ok_or_else(|| format!("`caption` is {}; expected a string", brief(caption)))?;
    let id = Id::of(value.get("image_id"))
        .ok_or_else(|| format!("no `image_id` in {}; expected the id of an image", brief(value)))?;
    let texts = if texts.is_empty() { vec![String::new()] } else { texts.into_iter().map(Into::into).collect() };
    Ok((id, texts))
}
