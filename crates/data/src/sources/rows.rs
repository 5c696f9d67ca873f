//! What the table-like sources share: names of columns, and checks on one pair.

use std::path::Path;

use serde_json::Value;

use crate::dataset::builder::DatasetBuilder;
use crate::images::location::ImageRef;

/// Usual names of the image column (open_clip, img2dataset, Hugging Face, COCO conversions); the first is the default.
pub(crate) const IMAGE_NAMES: [&str; 9] =
    ["image", "image_path", "filepath", "file_name", "filename", "path", "img", "file", "url"];
/// Usual names of the caption column; the first is the default.
pub(crate) const CAPTION_NAMES: [&str; 7] =
    ["caption", "title", "text", "sentence", "description", "captions", "label"];

pub(crate) fn default_image() -> String {
    IMAGE_NAMES[0].to_owned()
}

pub(crate) fn default_caption() -> String {
    CAPTION_NAMES[0].to_owned()
}

/// Adds a pair of an image path, relative to `root`, and a caption. A pair with an empty one is counted as skipped,
/// with `place`. The error is the reason alone.
pub(crate) fn push_pair(
    builder: &mut DatasetBuilder,
    root: &Path,
    image: &str,
    caption: &str,
    place: impl Fn() -> String,
) -> Result<(), String> {
    let image = image.trim();
    if image.is_empty() {
        builder.skipped.note("no image", || format!("{}: no image", place()));
        return Ok(());
    }
    if image.starts_with("http://") || image.starts_with("https://") {
        return Err(format!("the image is a URL, `{image}`; expected a local file: download the images first"));
    }
    if image.contains('\0') {
        return Err("the image path holds a NUL character".to_owned());
    }
    if !builder.push(ImageRef::File(root.join(image)), caption) {
        builder.skipped.note("empty caption", || format!("{}: empty caption", place()));
    }
    Ok(())
}

/// A string, or a list of strings.
pub(crate) fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        _ => None,
    }
}
