//! The files beside an image that hold its captions.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::DataError;
use crate::sources::folder::options::{CaptionsFrom, TextCaptions};
use crate::sources::image_files::{IMAGE_EXTENSIONS, is_ignored, is_image_name};
use crate::sources::rows::texts;
use crate::sources::tables::columns::CAPTION_NAMES;

/// Names of text and JSON files about a folder, in lower case.
const DOCUMENTS: [&str; 16] = [
    "readme",
    "license",
    "licence",
    "copying",
    "notice",
    "changelog",
    "notes",
    "requirements",
    "classes",
    "classnames",
    "labels",
    "dataset_info",
    "dataset_infos",
    "dataset_dict",
    "state",
    "dataset-metadata",
];

/// Which files beside images there are in a folder, so that none is looked for in vain.
#[derive(Debug, Default)]
pub(crate) struct Sidecars {
    /// Extensions as they are written, such as `txt` or `TXT`.
    extensions: BTreeSet<String>,
    /// Extensions of names such as `cat.jpg.txt`.
    behind_image: BTreeSet<String>,
    /// Files of captions without an image beside them: name, kind and path, sorted.
    without_image: Vec<(OsString, CaptionsFrom, PathBuf)>,
}

/// Captions with the number of the key that each comes from.
pub(crate) type Slots = Vec<(u8, String)>;

/// What the files beside an image say.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// Where the captions are from; `None` if no place has any.
    pub from: Option<CaptionsFrom>,
    /// The captions.
    pub captions: Slots,
    /// The text file has several lines.
    pub several_lines: bool,
    /// A file without a caption, which was passed over.
    pub empty: Option<PathBuf>,
    /// A `.json` file without any of the keys, which was passed over.
    pub without_key: Option<PathBuf>,
}

/// How captions are read.
pub(crate) struct Reading<'a> {
    /// Where captions are looked for, in this order.
    pub places: &'a [CaptionsFrom],
    pub txt: TextCaptions,
    /// Keys of the captions; if empty, the usual ones are looked for.
    pub keys: &'a [String],
}

impl Sidecars {
    /// Looks at the names in `dir`.
    pub(crate) fn find(dir: &Path) -> Result<Self, DataError> {
        let mut found = Self::default();
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let (mut images, mut captions) = (HashSet::new(), Vec::new());
        for entry in std::fs::read_dir(dir).map_err(DataError::read(dir))? {
            let name = entry.map_err(DataError::read(dir))?.file_name();
            let path = Path::new(&name);
            let extension = path.extension().and_then(|extension| extension.to_str());
            let place =
                extension.and_then(|it| CaptionsFrom::ALL.into_iter().find(|place| is_extension_of(*place, it)));
            let (Some(extension), Some(place)) = (extension, place) else {
                // One without an extension may be an image; `cat.txt` and `cat.jpg.txt` belong to `cat.jpg`.
                if extension.is_none() || is_image_name(path) {
                    images.extend(path.file_stem().map(OsString::from));
                    images.insert(name);
                }
                continue;
            };
            if let Some(stem) = path.file_stem().filter(|_| !is_ignored(&name)) {
                captions.push((stem.to_owned(), place, dir.join(&name)));
            }
            found.extensions.insert(extension.to_owned());
            let inner = path.file_stem().and_then(|stem| Path::new(stem).extension());
            let inner = inner.map(|inner| inner.to_string_lossy().to_lowercase());
            if inner.is_some_and(|inner| IMAGE_EXTENSIONS.contains(&inner.as_str())) {
                found.behind_image.insert(extension.to_owned());
            }
        }
        // A kind of file that no image has beside it holds something else.
        let used: Vec<CaptionsFrom> = CaptionsFrom::ALL
            .into_iter()
            .filter(|used| captions.iter().any(|(stem, place, _)| place == used && images.contains(stem)))
            .collect();
        captions.retain(|(stem, place, _)| used.contains(place) && !images.contains(stem) && !is_document(stem));
        captions.sort();
        found.without_image = captions;
        Ok(found)
    }

    /// The files that would have captions, in the places that are read, and have no image: one of each name.
    pub(crate) fn without_image(&self, places: &[CaptionsFrom]) -> Vec<&Path> {
        let mut found: Vec<_> = self.without_image.iter().filter(|(_, place, _)| places.contains(place)).collect();
        found.dedup_by(|(other, ..), (stem, ..)| other == stem);
        found.into_iter().map(|(_, _, path)| path.as_path()).collect()
    }

    /// Reads the captions beside `image` from the first place that has any.
    pub(crate) fn read(&self, image: &Path, reading: &Reading<'_>) -> Result<Beside, DataError> {
        let mut found = Beside::default();
        for &place in reading.places {
            for path in self.candidates(image, place) {
                let bytes = match std::fs::read(&path) {
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(source) => return Err(DataError::Read { path, source }),
                };
                let text = String::from_utf8(bytes).map_err(|error| DataError::Malformed {
                    path: path.clone(),
                    reason: format!("not UTF-8 at byte {}; save it as UTF-8", error.utf8_error().valid_up_to()),
                })?;
                if place == CaptionsFrom::Json {
                    match json_captions(&text, reading.keys) {
                        Ok(Some(captions)) => found.captions = captions,
                        Ok(None) => {
                            found.without_key.get_or_insert(path);
                            continue;
                        }
                        Err(reason) => return Err(DataError::Malformed { path, reason }),
                    }
                } else {
                    let (captions, several) = reading.txt.split(&text);
                    found.captions = captions.into_iter().map(|caption| (0, caption)).collect();
                    found.several_lines = several;
                }
                if !found.captions.is_empty() {
                    found.from = Some(place);
                    return Ok(found);
                }
                found.empty.get_or_insert(path);
            }
        }
        Ok(found)
    }

    /// The files that may be there for a place: `cat.txt`, then `cat.jpg.txt`.
    fn candidates(&self, image: &Path, place: CaptionsFrom) -> Vec<PathBuf> {
        let beside = self.extensions.iter().filter(|it| is_extension_of(place, it)).map(|it| image.with_extension(it));
        let behind = self.behind_image.iter().filter(|it| is_extension_of(place, it)).map(|extension| {
            let mut name = OsString::from(image);
            name.push(".");
            name.push(extension);
            PathBuf::from(name)
        });
        beside.chain(behind).collect()
    }
}

/// Whether a file of this name is no caption, whatever is beside it.
fn is_document(stem: &OsStr) -> bool {
    let stem = stem.to_string_lossy().to_lowercase();
    stem.ends_with("_stats") || DOCUMENTS.contains(&stem.as_str())
}

fn is_extension_of(place: CaptionsFrom, extension: &str) -> bool {
    place.extension().is_some_and(|expected| extension.eq_ignore_ascii_case(expected))
}

/// The captions of a JSON object; `None` if it has none of the keys, or is no object. A null is an empty caption.
fn json_captions(text: &str, keys: &[String]) -> Result<Option<Slots>, String> {
    let value: Value =
        serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| format!("not JSON: {error}"))?;
    let Some(object) = value.as_object() else { return Ok(None) };
    if keys.is_empty() {
        let Some(key) = usual_key(object) else { return Ok(None) };
        return Ok(object.get(key).and_then(captions_of).map(|captions| slot(0, captions).collect()));
    }
    let mut found = None;
    for (key, number) in keys.iter().zip(0..) {
        if let Some(captions) = object.get(key).and_then(captions_of) {
            found.get_or_insert_with(Vec::new).extend(slot(number, captions));
        }
    }
    Ok(found)
}

/// The usual name of a caption that an object has: `caption`, else the first that holds a text.
pub(crate) fn usual_key(object: &Map<String, Value>) -> Option<&'static str> {
    let has = |name: &&&str| object.get(**name).is_some_and(|value| texts(value).is_some() || value.is_null());
    CAPTION_NAMES.iter().find(has).copied()
}

/// A string, a list of strings, or null for none. White space is no caption.
pub(crate) fn captions_of(value: &Value) -> Option<Vec<String>> {
    if value.is_null() {
        return Some(Vec::new());
    }
    let texts = texts(value)?.into_iter().map(str::trim).filter(|text| !text.is_empty());
    Some(texts.map(str::to_owned).collect())
}

pub(crate) fn slot(number: u8, captions: Vec<String>) -> impl Iterator<Item = (u8, String)> {
    captions.into_iter().map(move |caption| (number, caption))
}
