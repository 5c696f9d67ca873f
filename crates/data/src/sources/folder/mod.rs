//! A folder of images with captions in a metadata file, beside the images, or in their names.
//!
//! This file has [`FolderSource`]. The others:
//! - `options`: the choices in its config
//! - `metadata`: `metadata.jsonl`, `metadata.csv` and `metadata.parquet`
//! - `sidecars`: the files beside an image
//! - `file_names`: names as captions

pub(crate) mod file_names;
mod metadata;
pub(crate) mod options;
pub(crate) mod sidecars;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::counted::counted;
use crate::dataset::Dataset;
use crate::dataset::builder::DatasetBuilder;
use crate::dataset::parallel_io::map_files;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::{Left, NO_IMAGE};
use crate::error::DataError;
use crate::files::is_dir;
use crate::images::location::ImageRef;
use crate::sources::folder::file_names::{folders, is_number_like, quoted, splits, without_digits};
use crate::sources::folder::metadata::Metadata;
use crate::sources::folder::options::{CaptionsFrom, TextCaptions};
use crate::sources::folder::sidecars::{Beside, Reading, Sidecars};
use crate::sources::image_files::{ImageFiles, LeftOut, image_files};
use crate::sources::one_or_many::OneOrMany;
use crate::sources::tables::columns::repeated;

/// Number of images with captions in memory at once, before they are added to the data set.
const WAVE: usize = 8192;

/// Largest number of images for which one thread reads the captions sooner than more threads start.
const SIDECARS_PER_THREAD: usize = 64;

/// `[data.train.folder]`: every image file below `path`, sorted by path, byte by byte.
///
/// The captions of `cat.jpg` are those of a `metadata.jsonl`, `metadata.csv` or `metadata.parquet` in its folder or one
/// above it; without such a file, the lines of `cat.txt` beside it, else a key of `cat.json`, else the lines of
/// `cat.caption`, else the name itself, with `_` and `-` as spaces.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FolderSource {
    /// The folder.
    pub path: PathBuf,
    /// Where captions are looked for. An image without a caption there is left out and counted. Default: everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captions_from: Option<OneOrMany<CaptionsFrom>>,
    /// Column of the captions in metadata files, or key in `.json` files. Default: the first usual name that is there,
    /// or the only column of text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Several columns or keys, each with captions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captions: Option<Vec<String>>,
    /// How text files of captions are read. Default `lines`.
    #[serde(default, skip_serializing_if = "is_lines")]
    pub txt: TextCaptions,
}

pub(crate) fn is_lines(txt: &TextCaptions) -> bool {
    *txt == TextCaptions::Lines
}

/// Where the captions of one image are.
enum Place {
    Rows(usize, Range<usize>),
    Unlisted(usize),
    Beside,
}

/// Counts for the notes and warnings.
#[derive(Default)]
struct Tally {
    by_place: BTreeMap<CaptionsFrom, usize>,
    several_lines: usize,
    fallbacks: usize,
    without_key: Option<(PathBuf, usize)>,
    /// Number of captions that are names, and the first.
    names: (usize, String),
    /// The part of all names beside digits, while it is the same.
    pattern: Option<String>,
}

impl FolderSource {
    /// Names of metadata files.
    pub(crate) const METADATA: [&str; 3] = metadata::NAMES;

    /// The folder `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), captions_from: None, caption: None, captions: None, txt: TextCaptions::Lines }
    }

    /// Resolves a relative path against `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path = base.join(&self.path);
    }

    /// Lists the images and reads the captions.
    ///
    /// # Errors
    /// [`DataError::Empty`] without an image that has a caption; [`DataError::Malformed`], [`DataError::Column`] or
    /// [`DataError::Row`] for a malformed file of captions; [`DataError::Read`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_selected(None)
    }

    pub(crate) fn read_selected(&self, selection: Option<Selection>) -> Result<Dataset, DataError> {
        let keys = caption_keys(&self.path, self.caption.as_ref(), self.captions.as_ref())?;
        let places = self.captions_from.as_ref().map_or(&CaptionsFrom::ALL[..], |places| &places.0);
        let reading = Reading { places, txt: self.txt, keys: &keys };
        let ImageFiles { files: mut images, left_out } = image_files(&self.path)?;
        let with_metadata = places.contains(&CaptionsFrom::Metadata);
        let mut tables = if with_metadata { Metadata::find(&self.path, &images, &keys)? } else { Vec::new() };
        images = with_named_files(images, &tables);
        let mut builder = DatasetBuilder::new(&self.path).with_selection(selection);
        let mut tally = Tally::default();
        let mut row = 0;
        let mut dir: Option<(PathBuf, Sidecars)> = None;
        for wave in images.chunks(WAVE) {
            let mut wanted = Vec::new();
            for image in wave {
                row += 1;
                let name = image.strip_prefix(&self.path).unwrap_or(image);
                if builder.selects(row, &name.to_string_lossy()) {
                    wanted.push((image, place_of(image, &tables)));
                }
            }
            // The names in a folder are looked at once: its images are together.
            for same_dir in wanted.chunk_by(|(a, _), (b, _)| a.parent() == b.parent()) {
                let parent = same_dir[0].0.parent().unwrap_or(Path::new(""));
                let is_beside = |(_, place): &(&PathBuf, Place)| matches!(place, Place::Beside);
                if dir.as_ref().is_none_or(|(known, _)| known != parent) && same_dir.iter().any(is_beside) {
                    let sidecars = Sidecars::find(parent)?;
                    self.count_without_image(&mut builder, &sidecars.without_image(places));
                    dir = Some((parent.to_owned(), sidecars));
                }
                let beside = map_files(same_dir, SIDECARS_PER_THREAD, |(image, place)| match (place, &dir) {
                    (Place::Beside, Some((_, sidecars))) => sidecars.read(image, &reading),
                    _ => Ok(Beside::default()),
                });
                for ((image, place), beside) in same_dir.iter().zip(beside) {
                    self.push(&mut builder, &mut tally, &tables, image, place, beside?);
                }
            }
        }
        for table in &mut tables {
            builder.skipped.absorb(std::mem::take(&mut table.told.skipped));
        }
        builder.refuse_empty(&self.path, || self.empty(&builder, &left_out))?;
        if let Some(left_out) = left_out.describe() {
            builder.warn(format!("`{}`: {left_out}", self.path.display()));
        }
        self.report(&mut builder, &tally, &tables)?;
        builder.finish(&self.path)
    }

    /// Counts captions without an image.
    fn count_without_image(&self, builder: &mut DatasetBuilder, files: &[&Path]) {
        for file in files {
            if builder.names(&file.strip_prefix(&self.path).unwrap_or(file).to_string_lossy()) {
                let file = file.display();
                builder.skipped.note(NO_IMAGE, || Left::sample(&file, format!("`{file}` has no image beside it")));
            }
        }
    }

    /// Adds one image with its captions, or counts it as skipped.
    fn push(
        &self,
        builder: &mut DatasetBuilder,
        tally: &mut Tally,
        tables: &[Metadata],
        image: &Path,
        place: &Place,
        beside: Beside,
    ) {
        let location = ImageRef::File(image.to_owned());
        let left = |fault: String| Left::sample(image.display(), format!("`{}` {fault}", image.display()));
        let mut add = |slot: u8, caption: &str| builder.push_slot(location.clone(), caption, slot);
        match place {
            Place::Rows(table, rows) => {
                let rows = tables[*table].rows(rows.clone());
                let pushed = rows.iter().filter(|row| add(row.slot, &row.caption)).count();
                *tally.by_place.entry(CaptionsFrom::Metadata).or_default() += usize::from(pushed > 0);
                for _ in pushed..rows.len() {
                    builder.skipped.note("empty caption", || {
                        left(format!("has an empty caption in `{}`", tables[*table].path.display()))
                    });
                }
                return;
            }
            Place::Unlisted(table) => {
                builder
                    .skipped
                    .note("not in metadata", || left(format!("has no row in `{}`", tables[*table].path.display())));
                return;
            }
            Place::Beside => {}
        }
        tally.several_lines += usize::from(beside.several_lines);
        if let Some(path) = beside.without_key {
            tally.without_key.get_or_insert((path, 0)).1 += 1;
        }
        if let Some(from) = beside.from {
            *tally.by_place.entry(from).or_default() += 1;
            tally.fallbacks += usize::from(beside.empty.is_some());
            for (slot, caption) in &beside.captions {
                add(*slot, caption);
            }
            return;
        }
        let places = self.captions_from.as_ref().map_or(&CaptionsFrom::ALL[..], |places| &places.0);
        let name = image.file_stem().unwrap_or_default().to_string_lossy().replace(['_', '-'], " ");
        if let Some(path) = beside.empty {
            builder.skipped.note("empty caption", || left(format!("has no caption: `{}` is empty", path.display())));
        } else if !places.contains(&CaptionsFrom::Name) {
            builder.skipped.note("no caption", || left(format!("has no {}", shown(places))));
        } else if self.captions_from.is_none() && is_number_like(&name) {
            builder
                .skipped
                .note("no caption", || left("has no caption beside it, and its name is a number".to_owned()));
        } else if add(0, &name) {
            *tally.by_place.entry(CaptionsFrom::Name).or_default() += 1;
            tally.add_name(name);
        } else {
            builder.skipped.note("empty caption", || left("has no caption in its name".to_owned()));
        }
    }

    /// Says what was recognised, and what is probably not meant.
    fn report(&self, builder: &mut DatasetBuilder, tally: &Tally, tables: &[Metadata]) -> Result<(), DataError> {
        let path = self.path.display();
        let images = builder.num_images();
        let mut from: Vec<String> = Vec::new();
        for (place, count) in &tally.by_place {
            from.push(match (place, tables) {
                (CaptionsFrom::Metadata, [table]) => {
                    let name = table.path.file_name().unwrap_or_default().display().to_string();
                    format!("{} of `{name}` ({count})", quoted(&table.columns))
                }
                (CaptionsFrom::Metadata, tables) => format!("{} metadata files ({count})", tables.len()),
                (place, _) => format!("{} ({count})", place.shown()),
            });
        }
        builder.note(format!("`{path}`: folder, {}, captions from {}", counted(images, "image"), from.join(", ")));
        for table in tables {
            table.told.notes.iter().for_each(|note| builder.note(note));
            table.told.warnings.iter().for_each(|warning| builder.warn(warning));
        }
        let (named, first) = &tally.names;
        let asked_for_names = self.captions_from.is_some();
        if *named > 0 && *named < images && !asked_for_names {
            builder.warn(format!(
                "`{path}`: {named} of {images} images have no `.txt` or other file of captions: their file names are \
                 the captions, such as `{first}` (to leave such images out, set `captions_from = {})",
                without_name(&tally.by_place)
            ));
        } else if *named > 1 && *named == images && tally.pattern.is_some() {
            builder.warn(format!(
                "`{path}`: the captions are the file names, which differ only in their numbers, such as `{first}`{}",
                self.classes_hint()
            ));
        }
        if tally.several_lines > 0 {
            let how = self.txt.several_lines();
            builder.note(format!("`{path}`: several lines in {}: {how}", counted(tally.several_lines, "text file")));
        }
        if tally.fallbacks > 0 {
            let images = counted(tally.fallbacks, "image");
            builder.warn(format!("`{path}`: {images} with an empty caption file: another file beside is used"));
        }
        if let Some((file, count)) = &tally.without_key {
            let keys = caption_keys(&self.path, self.caption.as_ref(), self.captions.as_ref())?;
            let keys = if keys.is_empty() { "usual keys of captions".to_owned() } else { quoted(&keys) };
            let (files, first) = (counted(*count, "`.json` file"), file.display());
            builder.warn(format!("`{path}`: {files} beside images without the {keys}, such as `{first}`"));
        }
        let splits = if is_dir(&self.path)? { splits(&folders(&self.path)?) } else { Vec::new() };
        if splits.len() > 1 {
            builder.warn(format!("`{path}` holds {}: all are read as one set; name one in `path`", quoted(&splits)));
        }
        Ok(())
    }

    /// What to use if the folders are classes.
    fn classes_hint(&self) -> &'static str {
        // A folder that cannot be read has been reported.
        let folders = folders(&self.path).unwrap_or_default();
        if folders.len() > 1 && splits(&folders).is_empty() {
            "; if each folder is a class, use `[data.train.classes]`"
        } else {
            ""
        }
    }

    fn empty(&self, builder: &DatasetBuilder, left_out: &LeftOut) -> DataError {
        let found = match builder.skipped.count {
            0 => left_out.in_place_of_images(),
            count => format!(
                "{} without a caption, {}, such as {}; are the captions in a file for `[data.train.csv]` \
                 or `[data.train.jsonl]`?{}",
                counted(count, "image"),
                builder.skipped.by_cause(),
                builder.skipped.first(1),
                self.classes_hint()
            ),
        };
        DataError::Empty {
            path: self.path.clone(),
            found,
            expected: "images, such as jpg, png, webp, gif, bmp or tiff files, with captions in `metadata.jsonl` or \
                       `metadata.csv`, in `.txt` files beside them or in their names",
        }
    }
}

impl Tally {
    fn add_name(&mut self, name: String) {
        let (count, first) = &mut self.names;
        let pattern = without_digits(&name);
        match (*count, &self.pattern) {
            (0, _) => self.pattern = Some(pattern),
            (_, Some(known)) if *known != pattern => self.pattern = None,
            _ => {}
        }
        *count += 1;
        if first.is_empty() {
            *first = name;
        }
    }
}

/// The keys of captions: one, several, or none for the usual ones.
///
/// # Errors
/// [`DataError::Malformed`] with both, or with too many.
pub(crate) fn caption_keys(
    path: &Path,
    caption: Option<&String>,
    captions: Option<&Vec<String>>,
) -> Result<Vec<String>, DataError> {
    let repeated = captions.and_then(|captions| repeated(captions));
    let reason = match (caption, captions) {
        (None, None) => return Ok(Vec::new()),
        (Some(caption), None) => return Ok(vec![caption.clone()]),
        (Some(_), Some(_)) => "both `caption` and `captions` are set; remove one",
        (None, Some(captions)) if captions.is_empty() => "`captions` is empty; expected at least one name",
        (None, Some(captions)) if captions.len() > usize::from(u8::MAX) => "`captions` has more than 255 names",
        (None, Some(captions)) => match &repeated {
            Some(reason) => reason,
            None => return Ok(captions.clone()),
        },
    };
    Err(DataError::Loader { reason: format!("`{}`: {reason}", path.display()) })
}

/// The images, and the files that metadata names and the listing lacks (another extension, or no such file).
fn with_named_files(mut images: Vec<PathBuf>, tables: &[Metadata]) -> Vec<PathBuf> {
    let is_listed = |path: &PathBuf| {
        images.binary_search_by(|it| it.as_os_str().as_encoded_bytes().cmp(path.as_os_str().as_encoded_bytes())).is_ok()
    };
    let named = tables.iter().flat_map(Metadata::images).map(|(path, _)| path);
    let more: Vec<PathBuf> = named.filter(|path| !is_listed(path)).collect();
    if !more.is_empty() {
        images.extend(more);
        images.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
        images.dedup();
    }
    images
}

/// The rows of an image in the nearest metadata file above it that has any, or in one elsewhere.
fn place_of(image: &Path, tables: &[Metadata]) -> Place {
    // Tables are sorted by folder, so that the nearest of those above an image is the last.
    let (mut place, mut elsewhere) = (Place::Beside, None);
    for (number, table) in tables.iter().enumerate().rev() {
        let rows = table.find_rows(image);
        if !table.governs(image) {
            elsewhere = elsewhere.or(Some(rows).filter(|rows| !rows.is_empty()).map(|rows| Place::Rows(number, rows)));
        } else if !rows.is_empty() {
            return Place::Rows(number, rows);
        } else if matches!(place, Place::Beside) {
            place = Place::Unlisted(number);
        }
    }
    elsewhere.unwrap_or(place)
}

fn shown(places: &[CaptionsFrom]) -> String {
    places.iter().map(|place| place.shown()).collect::<Vec<_>>().join(" or ")
}

/// The value of `captions_from` for the places that were found, without names.
fn without_name(found: &BTreeMap<CaptionsFrom, usize>) -> String {
    let places: Vec<String> = [CaptionsFrom::Txt, CaptionsFrom::Json, CaptionsFrom::Caption, CaptionsFrom::Metadata]
        .iter()
        .filter(|place| found.contains_key(place))
        .map(|place| format!("\"{}\"", place.extension().unwrap_or("metadata")))
        .collect();
    match &places[..] {
        [one] => format!("{one}`"),
        many => format!("[{}]`", many.join(", ")),
    }
}
