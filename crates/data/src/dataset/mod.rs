//! A data set in memory: which images there are, and which captions each has. Pixels stay on disk until asked for.

pub(crate) mod caption_id;

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::dataset::caption_id::caption_id;
use crate::error::DataError;
use crate::images::location::ImageRef;
use crate::loader::epoch_order::mix;

/// Threads that stat or index files: the calls wait for the file system, not for a core.
const IO_THREADS: usize = 8;

/// Fewer files are checked sooner than threads are started.
const STATS_A_THREAD: usize = 256;

/// Stream number of the caption choice among the uses of [`mix`] in this crate.
const CAPTION_STREAM: u64 = 0x0063_6170_7469_6F6E;

/// A caption and the image it describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caption {
    /// The text as found, without leading and trailing white space.
    pub text: String,
    /// Index of the image in [`Dataset::images`].
    pub image: usize,
}

/// What the pairs of an epoch are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptionMode {
    /// Every (image, caption) is a pair of the epoch.
    #[default]
    All,
    /// Every image comes once an epoch, with one of its captions, chosen anew each epoch.
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

/// What to do with a malformed row of a table, or the damaged rest of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BadRows {
    /// The first one is an error.
    #[default]
    Error,
    /// It is left out and counted in [`Dataset::skipped`].
    Skip,
}

/// Rows that gave no pair: empty captions or image names always, malformed ones under [`BadRows::Skip`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkippedRows {
    /// How many.
    pub count: usize,
    /// The first ten, each with its place and reason.
    pub first: Vec<String>,
}

impl SkippedRows {
    const NAMED: usize = 10;

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < Self::NAMED {
            self.first.push(what());
        }
    }

    pub(crate) fn absorb(&mut self, other: Self) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.truncate(Self::NAMED);
    }

    /// Counts the error under [`BadRows::Skip`], else returns it.
    pub(crate) fn or_fail(&mut self, policy: BadRows, error: DataError) -> Result<(), DataError> {
        match policy {
            BadRows::Error => Err(error),
            BadRows::Skip => {
                self.note(|| error.to_string());
                Ok(())
            }
        }
    }
}

/// Image files that a data set names and that are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingFiles {
    /// How many.
    pub count: usize,
    /// The first of them, in data-set order.
    pub first: Vec<PathBuf>,
}

/// Images and their captions. Built by a [`crate::Source`] or a [`DatasetBuilder`]; every image has a caption.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    /// Distinct images, in first-seen order.
    pub images: Vec<ImageRef>,
    /// All captions, in the order of the source.
    pub captions: Vec<Caption>,
    /// Rows of the source that gave no pair.
    pub skipped: SkippedRows,
    /// Directory against which [`Dataset::fingerprint`] takes paths, so that a moved data set is still the same.
    root: PathBuf,
    /// `of_image[offsets[i]..offsets[i + 1]]` are the captions of image `i`.
    offsets: Vec<usize>,
    of_image: Vec<usize>,
}

impl Dataset {
    /// Pairs an epoch.
    #[must_use]
    pub fn num_pairs(&self, mode: CaptionMode) -> usize {
        match mode {
            CaptionMode::All => self.captions.len(),
            CaptionMode::One => self.images.len(),
        }
    }

    /// Pair `index` of `0..num_pairs(mode)`. Under [`CaptionMode::One`] the caption is a pure function of
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
    #[must_use]
    pub fn captions_of(&self, image: usize) -> &[usize] {
        &self.of_image[self.offsets[image]..self.offsets[image + 1]]
    }

    /// A hash of the listing: paths (below the data set's root, so moving it changes nothing), their order, the captions,
    /// and the length in bytes of each file. File *contents* are not read: an image replaced by another of equal length
    /// goes unseen.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let lengths = in_parallel(&self.images, STATS_A_THREAD, |image| match image {
            ImageRef::File(path) => std::fs::metadata(path).map_or(u64::MAX, |metadata| metadata.len()),
            ImageRef::TarEntry { len, .. } => *len,
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
            field(&len.to_le_bytes());
        }
        for caption in &self.captions {
            field(caption.text.as_bytes());
            field(&(caption.image as u64).to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// For each caption a number that equal captions share, whatever their case, the form of their characters (Unicode's
    /// NFKC), their white space and the punctuation at their end. It can be compared between data sets.
    #[must_use]
    pub fn caption_ids(&self) -> Vec<u64> {
        self.captions.iter().map(|caption| caption_id(&caption.text)).collect()
    }

    /// Checks that every image file is there, in parallel, and names the first `limit` that are not.
    #[must_use]
    pub fn missing_files(&self, limit: usize) -> MissingFiles {
        let there = in_parallel(&self.images, STATS_A_THREAD, |image| image.path().is_file());
        let mut missing = MissingFiles::default();
        for (image, there) in self.images.iter().zip(there) {
            if !there {
                missing.count += 1;
                if missing.first.len() < limit {
                    missing.first.push(image.path().to_owned());
                }
            }
        }
        missing
    }
}

/// `f` of each item, in order, on a few threads if there are more than `worth_a_thread` items.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], worth_a_thread: usize, f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() <= worth_a_thread {
        return items.iter().map(f).collect();
    }
    let f = &f;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(items.len().div_ceil(IO_THREADS))
            .map(|chunk| scope.spawn(move || chunk.iter().map(f).collect::<Vec<R>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Collects (image, caption) rows; rows that name the same image share it.
#[derive(Debug, Default)]
pub struct DatasetBuilder {
    images: Vec<ImageRef>,
    captions: Vec<Caption>,
    known: HashMap<ImageRef, usize>,
    root: PathBuf,
    /// Rows left out.
    pub(crate) skipped: SkippedRows,
}

impl DatasetBuilder {
    /// A builder whose fingerprint takes paths below `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ..Self::default() }
    }

    /// Adds one row. A caption of nothing but white space adds nothing and returns `false`.
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

    /// Number of rows added so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.captions.len()
    }

    /// Whether no row was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.captions.is_empty()
    }

    /// The data set.
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
    fn rows_with_one_image_share_it() {
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
    fn one_caption_an_epoch_is_chosen_by_seed_epoch_and_index() {
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
    fn fingerprint_sees_sizes_captions_and_order_but_not_the_place() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&first, &second] {
            std::fs::write(dir.path().join("a.png"), b"12345").unwrap();
            std::fs::write(dir.path().join("b.png"), b"123").unwrap();
        }
        let (one, two) = (sample(first.path().to_str().unwrap()), sample(second.path().to_str().unwrap()));
        assert_eq!(one.fingerprint(), two.fingerprint());
        let before = one.fingerprint();
        std::fs::write(first.path().join("b.png"), b"1234").unwrap();
        assert_ne!(one.fingerprint(), before, "a file that grew");
        let mut edited = two.clone();
        edited.captions[3].text.push('!');
        assert_ne!(edited.fingerprint(), two.fingerprint(), "an edited caption");
        let mut swapped = two.clone();
        swapped.captions.swap(0, 1);
        assert_ne!(swapped.fingerprint(), two.fingerprint(), "another order");
    }

    #[test]
    fn missing_files_are_counted_and_the_first_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("0.png"), b"x").unwrap();
        let mut builder = DatasetBuilder::new(dir.path());
        for index in 0..1000 {
            builder.push(ImageRef::File(dir.path().join(format!("{index}.png"))), "x");
        }
        let missing = builder.build().missing_files(2);
        assert_eq!(missing.count, 999);
        assert_eq!(missing.first, [dir.path().join("1.png"), dir.path().join("2.png")]);
    }
}
