//! A data set: its images, and the captions of each. Pixels stay on disk until a loader reads them.
//!
//! This file has [`Dataset`]. The others:
//! - `builder`: [`builder::DatasetBuilder`], which collects the rows of a source
//! - `images`, `captions`: the two tables, each in a few allocations
//! - `columns`: what these consist of, in memory or in files
//! - `caption_draw`: which captions of an image a sample has
//! - `part`: the share of one source in an epoch of several
//! - `selection`: the rows that `only` names
//! - `class_labels`: captions that are class names, as numbers
//! - `label_readings`: labels that may be numbers or names
//! - `skipped_rows`: rows of a source that are left out
//! - `survey`: what the lengths of the image files tell before any is read
//! - `fingerprint`: a hash of what a data set holds
//! - `split`: a share of the images that is held out
//! - `parallel_io`: a function over many files on a few threads

pub(crate) mod builder;
pub(crate) mod caption_draw;
pub(crate) mod captions;
pub(crate) mod class_labels;
pub(crate) mod columns;
mod fingerprint;
pub(crate) mod images;
pub(crate) mod label_readings;
pub(crate) mod parallel_io;
pub(crate) mod part;
pub(crate) mod selection;
pub(crate) mod skipped_rows;
mod split;
pub(crate) mod survey;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::dataset::captions::caption_id::caption_id;
use crate::dataset::captions::{Caption, CaptionTable};
use crate::dataset::columns::column::Column;
use crate::dataset::images::ImageTable;
use crate::dataset::parallel_io::try_map_numbers;
use crate::dataset::part::Part;
use crate::dataset::skipped_rows::SkippedRows;
use crate::error::DataError;
use crate::files;
use crate::images::location::ImageRef;
use crate::random::{TEMPLATE_STREAM, mix};
use crate::text_lists::templates::CLASS_PLACEHOLDER;

/// Most images and most captions of a data set: they are numbered in 32 bits.
pub(crate) const MAX_ROWS: usize = u32::MAX as usize;

/// Largest number of files for which one thread reads the metadata sooner than more threads start.
const STATS_PER_THREAD: usize = 256;

/// Which pairs make an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptionMode {
    /// Every image with each of its captions.
    #[default]
    All,
    /// Every image once, with one of its captions, chosen anew in each epoch.
    One,
    /// Every image once, with several of its captions at once, drawn anew in each epoch: see
    /// [`crate::CaptionSlots`].
    Slots,
}

/// An image and one of its captions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Number of the image, less than [`Dataset::num_images`].
    pub image: usize,
    /// Number of the caption, less than [`Dataset::num_captions`].
    pub caption: usize,
}

/// Image files of a data set that do not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingFiles {
    /// Number of missing files.
    pub count: usize,
    /// The first of them, in data-set order.
    pub first: Vec<PathBuf>,
}

/// Images and their captions. Made by a [`crate::Source`] or a [`crate::DatasetBuilder`]; every image has a caption.
/// Images have the order of their first captions, captions that of the source.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    pub(crate) images: ImageTable,
    pub(crate) captions: CaptionTable,
    /// One per source.
    pub(crate) parts: Vec<Part>,
    /// Rows of the sources that were left out.
    pub skipped: SkippedRows,
    /// What was recognised, for the log: a line per file or folder.
    pub notes: Vec<String>,
    /// What may not be as the user means it.
    pub warnings: Vec<String>,
    /// `of_image[offsets[i]..offsets[i + 1]]` are the captions of image `i`.
    pub(crate) offsets: Column<u32>,
    pub(crate) of_image: Column<u32>,
    /// What an index says about the whole data set, so that nothing looks at every image and caption again.
    pub(crate) known: Option<Arc<Known>>,
}

/// What takes a pass over all images and captions to find out.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// [`Dataset::fingerprint`].
    pub(crate) fingerprint: Option<[u8; 32]>,
    /// Images without a byte.
    pub(crate) empty_images: Vec<u32>,
    /// Captions that stand for a missing text: how many, and the first of them.
    pub(crate) null_words: (usize, Option<u32>),
}

impl Dataset {
    /// `parts` cover all images and captions, in order.
    pub(crate) fn new(
        images: ImageTable,
        captions: CaptionTable,
        parts: Vec<Part>,
        skipped: SkippedRows,
        notes: Vec<String>,
        warnings: Vec<String>,
    ) -> Self {
        let mut offsets = vec![0; images.len() + 1];
        for &image in captions.images() {
            offsets[image as usize + 1] += 1;
        }
        for image in 1..offsets.len() {
            offsets[image] += offsets[image - 1];
        }
        let mut next = offsets.clone();
        let mut of_image = vec![0; captions.len()];
        for (caption, &image) in captions.images().iter().enumerate() {
            let at = &mut next[image as usize];
            of_image[*at as usize] = caption as u32;
            *at += 1;
        }
        let (offsets, of_image) = (offsets.into(), of_image.into());
        Self { images, captions, parts, skipped, notes, warnings, offsets, of_image, known: None }
    }

    /// Several data sets as one, in order.
    #[must_use]
    pub fn concat(sources: Vec<Self>) -> Self {
        let (mut images, mut captions, mut parts) = (ImageTable::default(), CaptionTable::default(), Vec::new());
        let (mut skipped, mut notes, mut warnings) = (SkippedRows::default(), Vec::new(), Vec::new());
        for source in sources {
            let (first_image, first_caption) = (images.len(), captions.len());
            for part in &source.parts {
                part.images.clone().for_each(|image| images.push(&source.image(image), &part.root));
                for caption in part.captions.clone() {
                    let caption = source.caption(caption);
                    captions.push(Caption { image: first_image + caption.image, ..caption });
                }
                parts.push(Part {
                    images: first_image + part.images.start..first_image + part.images.end,
                    captions: first_caption + part.captions.start..first_caption + part.captions.end,
                    ..part.clone()
                });
            }
            skipped.absorb(source.skipped);
            notes.extend(source.notes);
            warnings.extend(source.warnings);
        }
        images.shrink();
        captions.shrink();
        Self::new(images, captions, parts, skipped, notes, warnings)
    }

    /// Sets how the pairs of every part are used: see [`Part`].
    #[must_use]
    pub fn with_use(mut self, weight: f64, caption_weights: &[f64], templates: &[String]) -> Self {
        self.known = None;
        for part in &mut self.parts {
            part.weight = weight;
            part.caption_weights = caption_weights.to_vec();
            part.templates = templates.to_vec();
        }
        self
    }

    /// Makes the weights of [`Dataset::with_use`] those of places instead of columns: of the first, second, ... caption
    /// of an image, the last weight also of all further ones.
    #[must_use]
    pub fn with_weights_by_place(mut self) -> Self {
        self.known = None;
        self.parts.iter_mut().for_each(|part| part.weights_by_place = true);
        self
    }

    /// The same images with other captions; `parts` cover them in order.
    pub(crate) fn with_captions(&self, captions: CaptionTable, parts: Vec<Part>) -> Self {
        let (skipped, notes, warnings) = (self.skipped.clone(), self.notes.clone(), self.warnings.clone());
        Self::new(self.images.clone(), captions, parts, skipped, notes, warnings)
    }

    /// Notes the names of all classes, those without an image included.
    pub(crate) fn with_classes(mut self, names: &[String]) -> Self {
        self.parts.iter_mut().for_each(|part| part.class_names = names.to_vec());
        self
    }

    /// The images with the numbers for which `keep` is true, and their captions. Notes, warnings and skipped rows go to
    /// the caller's choice: they are copied.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(usize) -> bool) -> Self {
        let (mut images, mut captions, mut parts) = (ImageTable::default(), CaptionTable::default(), Vec::new());
        for part in &self.parts {
            let (first_image, first_caption) = (images.len(), captions.len());
            let mut numbers = vec![None; part.images.len()];
            for image in part.images.clone().filter(|&image| keep(image)) {
                numbers[image - part.images.start] = Some(images.len());
                images.push(&self.image(image), &part.root);
            }
            for number in part.captions.clone() {
                let caption = self.caption(number);
                if let Some(image) = numbers[caption.image - part.images.start] {
                    captions.push(Caption { image, ..caption });
                }
            }
            parts.push(Part {
                images: first_image..images.len(),
                captions: first_caption..captions.len(),
                ..part.clone()
            });
        }
        images.shrink();
        captions.shrink();
        Self::new(images, captions, parts, self.skipped.clone(), self.notes.clone(), self.warnings.clone())
    }

    /// Number of distinct images.
    #[must_use]
    pub fn num_images(&self) -> usize {
        self.images.len()
    }

    /// Number of captions.
    #[must_use]
    pub fn num_captions(&self) -> usize {
        self.captions.len()
    }

    /// The location of an image.
    ///
    /// # Panics
    /// If `image` is out of range.
    #[must_use]
    pub fn image(&self, image: usize) -> ImageRef {
        self.images.get(image)
    }

    /// A caption.
    ///
    /// # Panics
    /// If `caption` is out of range.
    #[must_use]
    pub fn caption(&self, caption: usize) -> Caption<'_> {
        self.captions.get(caption)
    }

    /// The text to train on for a caption: the caption itself or, with templates, a prompt drawn as a pure function of
    /// (seed, epoch, caption).
    ///
    /// # Panics
    /// If `caption` is out of range.
    #[must_use]
    pub fn text(&self, caption: usize, seed: u64, epoch: u64) -> Cow<'_, str> {
        let templates = self.part_of_caption(caption).map_or(&[][..], |part| &part.templates);
        let text = self.caption(caption).text;
        if templates.is_empty() {
            return Cow::Borrowed(text);
        }
        let drawn = mix(seed, &[TEMPLATE_STREAM, epoch, caption as u64]) % templates.len() as u64;
        Cow::Owned(templates[drawn as usize].replace(CLASS_PLACEHOLDER, text))
    }

    /// Whether texts are drawn anew in each epoch: [`Dataset::text`] depends on it.
    #[must_use]
    pub fn has_templates(&self) -> bool {
        self.parts.iter().any(|part| !part.templates.is_empty())
    }

    /// Every text that [`Dataset::text`] can return for a caption.
    pub fn texts(&self, caption: usize) -> impl Iterator<Item = Cow<'_, str>> {
        let templates = self.part_of_caption(caption).map_or(&[][..], |part| &part.templates);
        let text = self.caption(caption).text;
        let plain = templates.is_empty().then_some(Cow::Borrowed(text));
        plain.into_iter().chain(templates.iter().map(move |it| Cow::Owned(it.replace(CLASS_PLACEHOLDER, text))))
    }

    fn part_of_caption(&self, caption: usize) -> Option<&Part> {
        let at = self.parts.partition_point(|part| part.captions.end <= caption);
        self.parts.get(at)
    }

    /// The locations of all images, in order.
    pub fn images(&self) -> impl ExactSizeIterator<Item = ImageRef> + '_ {
        (0..self.num_images()).map(|image| self.image(image))
    }

    /// All captions, in order.
    pub fn captions(&self) -> impl ExactSizeIterator<Item = Caption<'_>> {
        (0..self.num_captions()).map(|caption| self.caption(caption))
    }

    /// The sources, in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Number of pairs per epoch.
    #[must_use]
    pub fn num_pairs(&self, mode: CaptionMode) -> usize {
        self.parts.iter().fold(0, |sum: usize, part| sum.saturating_add(part.draws(samples(part, mode).len())))
    }

    /// Numbers of the captions of an image, in the order of the source.
    ///
    /// # Panics
    /// If `image` is out of range.
    #[must_use]
    pub fn captions_of(&self, image: usize) -> &[u32] {
        &self.of_image[self.offsets[image] as usize..self.offsets[image + 1] as usize]
    }

    /// The directory that the source of an image has its paths relative to.
    #[must_use]
    pub fn root_of(&self, image: usize) -> Option<&Path> {
        let at = self.parts.partition_point(|part| part.images.end <= image);
        self.parts.get(at).map(|part| part.root.as_path())
    }

    /// One id per caption; equal captions share it. Captions without texts are equal if their features are. Case,
    /// Unicode form (NFKC), white space and punctuation at the end do not count. Ids can be compared between data sets.
    #[must_use]
    pub fn caption_ids(&self) -> Vec<u64> {
        (0..self.num_captions()).map(|caption| self.caption_id(caption)).collect()
    }

    /// The id of one caption: see [`Dataset::caption_ids`].
    ///
    /// # Panics
    /// If `caption` is out of range.
    #[must_use]
    pub fn caption_id(&self, caption: usize) -> u64 {
        match self.caption(caption).features {
            Some((table, row)) if !table.has_texts() => table.id(row),
            _ => caption_id(self.caption(caption).text),
        }
    }

    /// The width of the rows that stand in place of images; `None`: the images are pixels.
    #[must_use]
    pub fn image_feature_width(&self) -> Option<usize> {
        match (self.num_images() > 0).then(|| self.image(0)) {
            Some(ImageRef::FeatureRow { table, .. }) => Some(table.width()),
            _ => None,
        }
    }

    /// The width of the rows that stand in place of texts; `None`: the texts are tokenised.
    #[must_use]
    pub fn text_feature_width(&self) -> Option<usize> {
        (self.num_captions() > 0).then(|| self.caption(0).features).flatten().map(|(table, _)| table.width())
    }

    /// Checks in parallel that every image file exists, and returns the first `limit` that do not.
    ///
    /// # Errors
    /// [`DataError::Read`] if the system cannot tell whether a file exists.
    pub fn missing_files(&self, limit: usize) -> Result<MissingFiles, DataError> {
        let is_file = |number| files::is_file(self.image(number).path());
        let exists = try_map_numbers(self.num_images(), STATS_PER_THREAD, is_file)?;
        let mut missing = MissingFiles::default();
        for (number, exists) in exists.into_iter().enumerate() {
            if !exists {
                missing.count += 1;
                if missing.first.len() < limit {
                    missing.first.push(self.image(number).path().to_owned());
                }
            }
        }
        Ok(missing)
    }
}

/// The numbers of the captions or images of a part, of which an epoch draws.
fn samples(part: &Part, mode: CaptionMode) -> std::ops::Range<usize> {
    match mode {
        CaptionMode::All => part.captions.clone(),
        CaptionMode::One | CaptionMode::Slots => part.images.clone(),
    }
}
