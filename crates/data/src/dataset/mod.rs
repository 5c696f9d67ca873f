//! A data set in memory: its images, and the captions of each. Pixels stay on disk until a loader reads them.
//!
//! This file has [`Dataset`] and [`DatasetBuilder`]. The others:
//! - `caption_id`: a number that equal captions share
//! - `skipped_rows`: rows of a source that are left out
//! - `parallel_io`: a function over many files on a few threads

mod caption_id;
pub(crate) mod parallel_io;
pub(crate) mod skipped_rows;

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::dataset::caption_id::caption_id;
use crate::dataset::parallel_io::map_files;
use crate::dataset::skipped_rows::SkippedRows;
use crate::error::DataError;
use crate::files;
use crate::images::location::ImageRef;
use crate::random::{CAPTION_STREAM, mix};

/// Number of files whose metadata one thread reads sooner than more threads start.
const STATS_PER_THREAD: usize = 256;

/// A caption and the image it describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caption {
    /// The text, without leading and trailing white space.
    pub text: String,
    /// Index of the image in [`Dataset::images`].
    pub image: usize,
}

/// Which pairs make an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptionMode {
    /// Every image with each of its captions.
    #[default]
    All,
    /// Every image once, with one of its captions, chosen anew in each epoch.
    One,
}

/// An image and one of its captions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Index in [`Dataset::images`].
    pub image: usize,
    /// Index in [`Dataset::captions`].
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

/// Images and their captions. Made by a [`crate::Source`] or a [`DatasetBuilder`]; every image has a caption.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    /// Distinct images, in the order of their first captions.
    pub images: Vec<ImageRef>,
    /// All captions, in the order of the source.
    pub captions: Vec<Caption>,
    /// Rows of the source that were left out.
    pub skipped: SkippedRows,
    /// [`Dataset::fingerprint`] takes paths relative to this directory, so that moving a data set does not change it.
    root: PathBuf,
    /// `of_image[offsets[i]..offsets[i + 1]]` are the captions of image `i`.
    offsets: Vec<usize>,
    of_image: Vec<usize>,
}

impl Dataset {
    /// Number of pairs per epoch.
    #[must_use]
    pub fn num_pairs(&self, mode: CaptionMode) -> usize {
        match mode {
            CaptionMode::All => self.captions.len(),
            CaptionMode::One => self.images.len(),
        }
    }

    /// Pair `index` of `0..num_pairs(mode)`. With [`CaptionMode::One`], the caption is a pure function of
    /// (seed, epoch, index).
    ///
    /// # Panics
    /// If `index` is out of range.
    #[must_use]
    pub fn pair(&self, mode: CaptionMode, index: usize, seed: u64, epoch: u64) -> Pair {
        match mode {
            CaptionMode::All => Pair { image: self.captions[index].image, caption: index },
            CaptionMode::One => {
                let captions = self.captions_of(index);
                let choice = mix(seed, &[CAPTION_STREAM, epoch, index as u64]) % captions.len() as u64;
                Pair { image: index, caption: captions[choice as usize] }
            }
        }
    }

    /// Indices of the captions of an image, in the order of the source.
    ///
    /// # Panics
    /// If `image` is out of range.
    #[must_use]
    pub fn captions_of(&self, image: usize) -> &[usize] {
        &self.of_image[self.offsets[image]..self.offsets[image + 1]]
    }

    /// A hash of the paths (relative to the data set's root, so that moving it changes nothing), their order, the
    /// captions, and the length of each file in bytes. File *contents* are not read: an image replaced by another of
    /// equal length goes unnoticed.
    ///
    /// # Errors
    /// [`DataError::Read`] if the system cannot tell the length of a file. A missing file is no error.
    pub fn fingerprint(&self) -> Result<[u8; 32], DataError> {
        let lengths = map_files(&self.images, STATS_PER_THREAD, |image| match image {
            ImageRef::File(path) => files::metadata(path).map(|metadata| metadata.map_or(u64::MAX, |it| it.len())),
            ImageRef::TarEntry { len, .. } => Ok(*len),
        });
        let mut hasher = blake3::Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for (image, len) in self.images.iter().zip(lengths) {
            let path = image.path();
            field(path.strip_prefix(&self.root).unwrap_or(path).as_os_str().as_encoded_bytes());
            if let ImageRef::TarEntry { name, offset, .. } = image {
                field(name.as_bytes());
                field(&offset.to_le_bytes());
            }
            field(&len?.to_le_bytes());
        }
        for caption in &self.captions {
            field(caption.text.as_bytes());
            field(&(caption.image as u64).to_le_bytes());
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// One id per caption; equal captions share it. Case, Unicode form (NFKC), white space and punctuation at the end
    /// do not count. Ids can be compared between data sets.
    #[must_use]
    pub fn caption_ids(&self) -> Vec<u64> {
        self.captions.iter().map(|caption| caption_id(&caption.text)).collect()
    }

    /// Checks in parallel that every image file exists, and returns the first `limit` that do not.
    ///
    /// # Errors
    /// [`DataError::Read`] if the system cannot tell whether a file exists.
    pub fn missing_files(&self, limit: usize) -> Result<MissingFiles, DataError> {
        let exists = map_files(&self.images, STATS_PER_THREAD, |image| files::is_file(image.path()));
        let mut missing = MissingFiles::default();
        for (image, exists) in self.images.iter().zip(exists) {
            if !exists? {
                missing.count += 1;
                if missing.first.len() < limit {
                    missing.first.push(image.path().to_owned());
                }
            }
        }
        Ok(missing)
    }
}

/// Collects (image, caption) rows; rows that name the same image share it.
#[derive(Debug, Default)]
pub struct DatasetBuilder {
    images: Vec<ImageRef>,
    captions: Vec<Caption>,
    known: HashMap<ImageRef, usize>,
    root: PathBuf,
    /// Rows that were left out.
    pub(crate) skipped: SkippedRows,
}

impl DatasetBuilder {
    /// An empty builder. The fingerprint of its data set takes paths relative to `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ..Self::default() }
    }

    /// Adds one row; returns true unless the caption is empty or all white space, which adds nothing.
    pub fn push(&mut self, image: ImageRef, caption: &str) -> bool {
        let text = caption.trim();
        if text.is_empty() {
            return false;
        }
        let image = match self.known.get(&image) {
            Some(&index) => index,
            None => {
                self.known.insert(image.clone(), self.images.len());
                self.images.push(image);
                self.images.len() - 1
            }
        };
        self.captions.push(Caption { text: text.to_owned(), image });
        true
    }

    /// Number of rows added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.captions.len()
    }

    /// Whether no rows were added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.captions.is_empty()
    }

    /// Builds the data set.
    #[must_use]
    pub fn build(self) -> Dataset {
        let mut offsets = vec![0; self.images.len() + 1];
        for caption in &self.captions {
            offsets[caption.image + 1] += 1;
        }
        for image in 1..offsets.len() {
            offsets[image] += offsets[image - 1];
        }
        let mut next = offsets.clone();
        let mut of_image = vec![0; self.captions.len()];
        for (index, caption) in self.captions.iter().enumerate() {
            of_image[next[caption.image]] = index;
            next[caption.image] += 1;
        }
        Dataset {
            images: self.images,
            captions: self.captions,
            skipped: self.skipped,
            root: self.root,
            offsets,
            of_image,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn sample(root: &str) -> Dataset {
        let mut builder = DatasetBuilder::new(root);
        for (image, caption) in [("a.png", "A cat"), ("b.png", "a  dog "), ("a.png", "a CAT"), ("a.png", "sleeping")] {
            assert!(builder.push(ImageRef::File(Path::new(root).join(image)), caption));
        }
        assert!(!builder.push(ImageRef::File(Path::new(root).join("c.png")), "  "));
        builder.build()
    }

    #[test]
    fn rows_share_images() {
        let dataset = sample("/data");
        assert_eq!(dataset.images.len(), 2);
        assert_eq!(dataset.captions_of(0), [0, 2, 3]);
        assert_eq!(dataset.captions_of(1), [1]);
        assert_eq!(dataset.captions[1].text, "a  dog");
        assert_eq!(dataset.num_pairs(CaptionMode::All), 4);
        assert_eq!(dataset.num_pairs(CaptionMode::One), 2);
        assert_eq!(dataset.pair(CaptionMode::All, 2, 0, 0), Pair { image: 0, caption: 2 });
    }

    #[test]
    fn one_caption_per_epoch() {
        let dataset = sample("/data");
        let choices: Vec<_> = (0..300).map(|epoch| dataset.pair(CaptionMode::One, 0, 5, epoch).caption).collect();
        for caption in [0, 2, 3] {
            let count = choices.iter().filter(|&&choice| choice == caption).count();
            assert!((70..130).contains(&count), "caption {caption} chosen {count} of 300 times");
        }
        assert_eq!(choices[7], dataset.pair(CaptionMode::One, 0, 5, 7).caption);
    }

    #[test]
    fn caption_ids_ignore_case_and_space() {
        let ids = sample("/data").caption_ids();
        assert_eq!(ids[0], ids[2]);
        assert_ne!(ids[0], ids[1]);
        assert_ne!(ids[2], ids[3]);
    }

    #[test]
    fn fingerprint_ignores_location_only() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&first, &second] {
            std::fs::write(dir.path().join("a.png"), b"12345").unwrap();
            std::fs::write(dir.path().join("b.png"), b"123").unwrap();
        }
        let (one, two) = (sample(first.path().to_str().unwrap()), sample(second.path().to_str().unwrap()));
        assert_eq!(one.fingerprint().unwrap(), two.fingerprint().unwrap());
        let before = one.fingerprint().unwrap();
        std::fs::write(first.path().join("b.png"), b"1234").unwrap();
        assert_ne!(one.fingerprint().unwrap(), before, "a file that grew");
        let mut edited = two.clone();
        edited.captions[3].text.push('!');
        assert_ne!(edited.fingerprint().unwrap(), two.fingerprint().unwrap(), "an edited caption");
        let mut swapped = two.clone();
        swapped.captions.swap(0, 1);
        assert_ne!(swapped.fingerprint().unwrap(), two.fingerprint().unwrap(), "another order");
    }

    #[test]
    fn counts_missing_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("0.png"), b"x").unwrap();
        let mut builder = DatasetBuilder::new(dir.path());
        for index in 0..1000 {
            builder.push(ImageRef::File(dir.path().join(format!("{index}.png"))), "x");
        }
        let missing = builder.build().missing_files(2).unwrap();
        assert_eq!(missing.count, 999);
        assert_eq!(missing.first, [dir.path().join("1.png"), dir.path().join("2.png")]);
    }

    #[cfg(unix)]
    #[test]
    fn unknown_length_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let dataset = sample(dir.path().to_str().unwrap());
        assert!(dataset.fingerprint().is_ok(), "missing files are bad images, not errors");
        // A link to itself stands for a file that the disk cannot read.
        std::os::unix::fs::symlink("b.png", dir.path().join("b.png")).unwrap();
        for error in [dataset.fingerprint().unwrap_err(), dataset.missing_files(1).unwrap_err()] {
            assert!(matches!(&error, DataError::Read { path, .. } if path.ends_with("b.png")), "{error}");
        }
    }
}
