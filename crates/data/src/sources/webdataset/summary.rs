//! Notes and warnings about the shards of a source: what was recognised, and what is missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::counted::counted;
use crate::dataset::builder::DatasetBuilder;
use crate::dataset::skipped_rows::{NO_IMAGE, SkippedRows};
use crate::error::DataError;
use crate::sources::folder::file_names::quoted;
use crate::sources::folder::options::TextCaptions;
use crate::sources::image_files::IMAGE_EXTENSIONS;
use crate::sources::webdataset::fields::{DEFAULT_KEY, Fields, RANKS};
use crate::sources::webdataset::index::{Best, Index, MAX_EXTENSIONS};
use crate::sources::webdataset::unread::{UNREAD, UnreadTally};

/// Extensions that an error lists.
const SHOWN: usize = 10;

/// Last parts of extensions that are usual for captions.
const TEXT_EXTENSIONS: [&str; 4] = ["txt", "caption", "cap", "text"];

/// Counts over all shards.
pub(crate) struct Summary {
    pub samples: u64,
    pub classnames: Option<PathBuf>,
    /// Samples without an entry that is read.
    pub lost: UnreadTally,
    extensions: BTreeMap<String, usize>,
    json_keys: Vec<String>,
    several_lines: usize,
    fallbacks: usize,
    /// Samples with a malformed entry beside the one that is used, and the first of them.
    malformed: (usize, String),
    /// Number of samples with captions, by slot and rank.
    used: Vec<[usize; RANKS as usize]>,
}

impl Summary {
    pub(crate) fn new(num_slots: u8) -> Self {
        Self {
            samples: 0,
            classnames: None,
            lost: UnreadTally::default(),
            extensions: BTreeMap::new(),
            json_keys: Vec::new(),
            several_lines: 0,
            fallbacks: 0,
            malformed: (0, String::new()),
            used: vec![[0; RANKS as usize]; usize::from(num_slots)],
        }
    }

    pub(crate) fn num_slots(&self) -> u8 {
        self.used.len() as u8
    }

    /// Adds the counts of a shard.
    pub(crate) fn add(&mut self, index: &mut Index) {
        for (extension, count) in std::mem::take(&mut index.extensions) {
            if self.extensions.len() < MAX_EXTENSIONS || self.extensions.contains_key(&extension) {
                *self.extensions.entry(extension).or_default() += count;
            }
        }
        if self.json_keys.is_empty() {
            self.json_keys = std::mem::take(&mut index.json_keys);
        }
        self.several_lines += index.several_lines;
    }

    /// Counts what was used of a sample.
    pub(crate) fn count(&mut self, best: &Best, has_caption: bool) {
        if has_caption {
            self.used[usize::from(best.field.slot)][usize::from(best.field.rank)] += 1;
            self.fallbacks += usize::from(best.is_fallback);
        }
    }

    /// Counts a sample with a malformed entry, although it has a caption.
    pub(crate) fn count_malformed(&mut self, message: impl FnOnce() -> String) {
        if self.malformed.0 == 0 {
            self.malformed.1 = message();
        }
        self.malformed.0 += 1;
    }

    /// The extensions with their counts, the most frequent first.
    fn listed(&self) -> String {
        let mut extensions: Vec<_> = self.extensions.iter().collect();
        extensions.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let more = if extensions.len() > SHOWN { ", ..." } else { "" };
        let shown = extensions.iter().take(SHOWN).map(|(extension, count)| format!("`{extension}` ({count})"));
        shown.collect::<Vec<_>>().join(", ") + more
    }

    /// The extensions that are not read, and end in one of `endings`.
    fn unread(&self, fields: &Fields, endings: &[&str]) -> Vec<&str> {
        let ending = |extension: &str| extension.rsplit('.').next().is_some_and(|end| endings.contains(&end));
        let is_unread = |extension: &&str| fields.role(extension).is_none() && ending(extension);
        self.extensions.keys().map(String::as_str).filter(is_unread).collect()
    }

    /// What an empty set holds instead of samples, and what to set.
    pub(crate) fn found(&self, shards: usize, skipped: &SkippedRows, fields: &Fields) -> String {
        let shards = counted(shards, "shard");
        if self.extensions.is_empty() {
            return format!("{shards} without a named entry");
        }
        let mut found = format!("{shards} with entries of the extensions {}", self.listed());
        let unread = skipped.causes.get(UNREAD).copied().unwrap_or_default();
        // What to set says enough of samples that are not read.
        if skipped.count > unread || self.lost.are_cut_names() {
            found += &format!("; left out: {}, such as {}", skipped.by_cause(), skipped.first(1));
        }
        if self.lost.are_cut_names() {
            return format!("{found}; {}", self.lost.way_out());
        }
        let mut set = Vec::new();
        let has_image = self.extensions.keys().any(|extension| fields.is_image(extension));
        let images = if has_image { Vec::new() } else { self.unread(fields, &IMAGE_EXTENSIONS) };
        match &images[..] {
            [] => {}
            [one] => set.push(format!("`image = \"{one}\"`")),
            several => set.push(format!("`image = [{}]`", listed(several))),
        }
        if let Some(extension) = self.unread(fields, &TEXT_EXTENSIONS).first() {
            set.push(format!("`caption = \"{extension}\"`"));
        }
        if !set.is_empty() {
            found += &format!("; set {}?", set.join(" and "));
        } else if !self.json_keys.is_empty() {
            found += &format!("; `.json` has the keys {}: set `caption` to one of them", quoted(&self.json_keys));
        }
        found
    }

    /// Adds notes and warnings.
    ///
    /// # Errors
    /// [`DataError::Malformed`] if one of several names is nowhere.
    pub(crate) fn report(
        &self,
        builder: &mut DatasetBuilder,
        path: &Path,
        fields: &Fields,
        shards: usize,
        txt: TextCaptions,
    ) -> Result<(), DataError> {
        let mut from = Vec::new();
        for (used, slot) in self.used.iter().zip(0..) {
            let (entry, json, other) = match fields.name(slot) {
                None => ("`.txt`".to_owned(), format!("`{DEFAULT_KEY}` in `.json`"), "`.cls`"),
                Some(name) => {
                    (format!("`.{}`", name.trim_start_matches('.')), format!("`{name}` in `.json`"), "`.txt`")
                }
            };
            let counts = [entry.as_str(), &json, other].into_iter().zip(used).filter(|(_, count)| **count > 0);
            from.extend(counts.map(|(what, count)| format!("{what} ({count})")));
            if let (0, Some(name)) = (used.iter().sum::<usize>(), fields.name(slot)) {
                let keys = if self.json_keys.is_empty() {
                    String::new()
                } else {
                    format!(", and the keys of `.json` {}", quoted(&self.json_keys))
                };
                let reason = format!(
                    "no sample has a caption in `{name}`; the extensions are {}{keys}; correct `captions`",
                    self.listed()
                );
                return Err(DataError::Malformed { path: path.to_owned(), reason });
            }
        }
        let shown = path.display();
        let (shards, samples) = (counted(shards, "shard"), counted(self.samples as usize, "sample"));
        builder.note(format!("`{shown}`: {shards}, {samples}, captions from {}", from.join(", ")));
        if let Some(names) = &self.classnames {
            builder.note(format!("`{shown}`: class names from `{}`", names.display()));
        }
        if let Some(lost) = self.lost.describe() {
            builder.warn(format!("`{shown}`: {lost}"));
        }
        let unread = self.unread(fields, &IMAGE_EXTENSIONS);
        if !unread.is_empty() && fields.prefers_images() && builder.skipped.causes.contains_key(NO_IMAGE) {
            let all: Vec<&str> = fields.images().chain(unread.iter().copied()).collect();
            builder.warn(format!(
                "`{shown}`: samples have no image under `image`, and {} beside it: to read them too, set \
                 `image = [{}]`",
                quoted(&unread.iter().map(|it| format!(".{it}")).collect::<Vec<_>>()),
                listed(&all)
            ));
        }
        if self.several_lines > 0 {
            let (count, how) = (self.several_lines, txt.several_lines());
            builder.note(format!("`{shown}`: several lines in text entries ({count}): {how}"));
        }
        if self.fallbacks > 0 {
            let samples = counted(self.fallbacks, "sample");
            builder.warn(format!("`{shown}`: {samples} with an empty caption entry: another entry is used"));
        }
        if let (count @ 1.., first) = &self.malformed {
            let samples = counted(*count, "sample");
            builder.warn(format!(
                "`{shown}`: {samples} with a malformed caption entry: another entry is used, such as for {first}"
            ));
        }
        Ok(())
    }
}

/// Extensions as a list of the config has them.
fn listed(extensions: &[&str]) -> String {
    extensions.iter().map(|extension| format!("\"{extension}\"")).collect::<Vec<_>>().join(", ")
}
