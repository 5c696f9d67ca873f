//! WebDataset: tar shards of `key.jpg` with `key.txt` or `key.json`. Each shard is indexed once; its images are then
//! read by position, in any order. Nothing is ever unpacked, so hostile entry names and links do no harm.
//!
//! This file has [`WebdatasetSource`]. The others:
//! - `shard_patterns`: the tar files that the config names
//! - `shard_kind`: files that are no tar archives
//! - `fields`: which entries are the image and the captions of a sample
//! - `index`: the samples of one shard
//! - `summary`: notes and warnings about the shards
//! - `unread`: entries that no rule reads, and the samples that are lost with them
//! - `watched_reader`: remembers the disk's errors

mod fields;
mod index;
mod shard_kind;
pub(crate) mod shard_patterns;
mod summary;
#[cfg(test)]
mod tests;
mod unread;
mod watched_reader;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::dataset::builder::DatasetBuilder;
use crate::dataset::label_readings::{Undecided, is_number};
use crate::dataset::parallel_io::map_files;
use crate::dataset::selection::Selection;
use crate::dataset::skipped_rows::{Left, NO_IMAGE};
use crate::error::DataError;
use crate::sources::class_labels::{ClassNames, NumberLabels};
use crate::sources::folder::caption_keys;
use crate::sources::folder::options::TextCaptions;
use crate::sources::one_or_many::OneOrMany;
use crate::sources::webdataset::fields::Fields;
use crate::sources::webdataset::index::{Sample, index_shard};
use crate::sources::webdataset::shard_patterns::{common_root, empty, shards};
use crate::sources::webdataset::summary::Summary;
use crate::sources::webdataset::unread::{UNREAD, is_about_shard};

/// Number of shard indices in memory at once: one for each thread that indexes shards.
const WAVE: usize = 8;

/// `[data.train.webdataset]`: one shard, a folder of them, or a pattern with `*`, `?`, `{a,b}` or `{000..127}`; or a
/// list of such.
///
/// Entries with the same key make a sample. The key is the name up to the first dot of its last component; the rest is
/// the extension. Captions are the lines of `.txt`, else the value of `caption` in `.json` (a string or a list of
/// strings), else the class in `.cls`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WebdatasetSource {
    /// A shard, a folder of shards, a pattern, or a list of such.
    pub path: OneOrMany<PathBuf>,
    /// Extension of the image, or several, the preferred first. Default: every usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<OneOrMany<String>>,
    /// Extension of the captions, such as `txt` or `outputs.txt`, or key in `.json`, such as `llava` or `meta.caption`.
    /// Default: `txt`, else `caption` in `.json`, else `cls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Several extensions or keys, each with captions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captions: Option<Vec<String>>,
    /// How text entries are read. Default `lines`.
    #[serde(default, skip_serializing_if = "crate::sources::folder::is_lines")]
    pub txt: TextCaptions,
    /// Whether a damaged shard is an error; if not, the samples before the damage are used. Default true.
    #[serde(default = "default_strict")]
    pub strict: bool,
}

const fn default_strict() -> bool {
    true
}

impl WebdatasetSource {
    /// The shards of `path`; a damaged one is an error.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: OneOrMany(vec![path.into()]),
            image: None,
            caption: None,
            captions: None,
            txt: TextCaptions::Lines,
            strict: true,
        }
    }

    /// The shards, in order.
    ///
    /// # Errors
    /// [`DataError::Malformed`] for an invalid pattern, [`DataError::Empty`] without a shard, [`DataError::Read`].
    pub(crate) fn shards(&self) -> Result<Vec<PathBuf>, DataError> {
        Ok(shards(&self.path.0)?.0)
    }

    /// Resolves relative paths against `base`.
    pub fn resolve(&mut self, base: &Path) {
        self.path.resolve(base);
    }

    /// Indexes the shards.
    ///
    /// # Errors
    /// [`DataError::Shard`] for a damaged shard if `strict`, [`DataError::Malformed`] for an invalid pattern and for
    /// shards that are compressed, [`DataError::NotAFile`] for a shard that is not a regular file, [`DataError::Empty`]
    /// without a usable sample, [`DataError::Read`].
    pub fn read(&self) -> Result<Dataset, DataError> {
        self.read_named(None, NumberLabels::Named(&[]), None)
    }

    /// As [`WebdatasetSource::read`]. `labels`: what becomes of captions that are class numbers. `segments`: is given
    /// the samples of a few shards at a time; only the last of them are in the data set that is returned.
    pub(crate) fn read_named(
        &self,
        selection: Option<Selection>,
        labels: NumberLabels<'_>,
        mut segments: Option<Segments<'_>>,
    ) -> Result<Dataset, DataError> {
        let root = common_root(&self.path.0)?;
        let names = caption_keys(&root, self.caption.as_ref(), self.captions.as_ref())?;
        let image = self.image.as_ref().map_or(&[][..], |image| &image.0);
        let fields = Fields::new(image, names, self.txt);
        let (shards, warnings) = shards(&self.path.0)?;
        let mut builder = DatasetBuilder::new(&root).with_selection(selection);
        warnings.into_iter().for_each(|warning| builder.warn(warning));
        let mut classes = ClassNames::given(labels);
        let is_named = matches!(labels, NumberLabels::Named(_));
        let mut summary = Summary::new(fields.num_slots());
        for wave in shards.chunks(WAVE) {
            // Each thread indexes one shard at a time: a read and a seek per entry.
            let indices = map_files(wave, 1, |shard| index_shard(shard, &fields, self.strict));
            for (shard, index) in wave.iter().zip(indices) {
                let mut index = index?;
                builder.skipped.absorb(std::mem::take(&mut index.skipped));
                summary.add(&mut index);
                for lost in &index.lost {
                    if builder.names(&lost.key) {
                        builder.skipped.note(UNREAD, || lost.left(shard));
                        summary.lost.count(lost);
                    }
                }
                for sample in index.samples {
                    summary.samples += 1;
                    if selects(&mut builder, summary.samples, &sample.key) {
                        push(&mut builder, sample, shard, (is_named, &mut classes), &mut summary)?;
                    }
                }
            }
            // A shard is read once, so that later ones have other images.
            if let Some(take) = &mut segments {
                take(builder.take_segment())?;
            }
        }
        let path = self.path.0.first().map_or(root.as_path(), PathBuf::as_path);
        builder.refuse_empty(path, || empty(path, summary.found(shards.len(), &builder.skipped, &fields)))?;
        if let Some(Err(Undecided { label, problem })) = classes.as_ref().map(ClassNames::check) {
            let reason = format!("samples have the label `{label}`; {problem}");
            return Err(DataError::Malformed { path: path.to_owned(), reason });
        }
        summary.report(&mut builder, path, &fields, shards.len(), self.txt)?;
        Ok(builder.finish(path)?.with_classes(&classes.map_or_else(Vec::new, ClassNames::into_names)))
    }
}

/// Takes the samples of a few shards, which are gone from memory after it.
pub(crate) type Segments<'a> = &'a mut dyn FnMut(Dataset) -> Result<(), DataError>;

/// Whether a sample is wanted. `tar cf s.tar .` puts `./` in front of each name.
fn selects(builder: &mut DatasetBuilder, row: u64, key: &str) -> bool {
    builder.selects(row, key) || key.strip_prefix("./").is_some_and(|key| builder.selects(row, key))
}

/// Adds a sample, or counts it as skipped.
fn push(
    builder: &mut DatasetBuilder,
    mut sample: Sample,
    shard: &Path,
    (is_named, classes): (bool, &mut Option<ClassNames>),
    summary: &mut Summary,
) -> Result<(), DataError> {
    let left = |key: &str, fault: &str| {
        let shard = shard.display();
        Left::sample(format!("{shard}/{key}"), format!("`{shard}`: sample `{key}` has {fault}"))
    };
    let Some(image) = sample.image().cloned() else {
        if sample.is_bare() && is_about_shard(&sample.key) {
            return Ok(());
        }
        builder.skipped.note(NO_IMAGE, || {
            let why = match (&sample.status, &sample.unread_image) {
                (Some(status), _) => format!(": its status is `{status}`"),
                (None, Some(extension)) => format!(": the extension `{extension}` is not read"),
                (None, None) => String::new(),
            };
            left(&sample.key, &format!("no image{why}"))
        });
        return Ok(());
    };
    let (mut pushed, mut has_entry) = (false, false);
    for slot in 0..summary.num_slots() {
        let Some(best) = sample.take(slot) else { continue };
        has_entry = true;
        let mut any = false;
        for caption in &best.captions {
            let mut text = caption.as_str();
            if is_named && best.field.is_label && is_number(text) && classes.is_none() {
                *classes = ClassNames::find(shard.parent().unwrap_or(Path::new("")))?;
                let way_out = "name a file of class names, one per line, with `classnames`";
                if classes.is_none() {
                    let key = &sample.key;
                    let reason = format!("sample `{key}` has the class number `{text}` as its caption; {way_out}");
                    return Err(DataError::Malformed { path: shard.to_owned(), reason });
                }
            }
            if let Some(names) = classes.as_mut().filter(|names| best.field.is_label || names.path.is_none()) {
                text = names.name(text).map_err(|problem| DataError::Malformed {
                    path: shard.to_owned(),
                    reason: format!("sample `{}` has the label `{text}`; {problem}", sample.key),
                })?;
            }
            any |= builder.push_slot(image.clone(), text, slot);
        }
        summary.count(&best, any);
        pushed |= any;
    }
    if !pushed {
        let missing = if has_entry { "an empty caption" } else { "no caption" };
        let cause = match (&sample.problem, has_entry) {
            (Some(_), false) => "malformed caption",
            (_, true) => "empty caption",
            (None, false) => "no caption",
        };
        builder.skipped.note(cause, || {
            let why = sample.problem.as_ref().map_or(String::new(), |problem| format!(": {problem}"));
            left(&sample.key, &format!("{missing}{why}"))
        });
    } else if let Some(problem) = sample.problem.filter(|_| sample.is_malformed) {
        summary.count_malformed(|| format!("`{}`: {problem}", shard.display()));
    }
    if let Some(names) = classes.as_ref().and_then(|names| names.path.as_ref()) {
        summary.classnames = Some(names.clone());
    }
    Ok(())
}
