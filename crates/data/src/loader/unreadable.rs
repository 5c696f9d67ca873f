//! Bad images: missing, empty, too large, or impossible to decode. Each is recorded once and counts towards a limit.
//!
//! What replaces a bad image depends only on the pair and on the content of the files, not on this record: the record
//! only saves a second reading. It matters when a file changes during a run. An image that was found bad stays out,
//! even if it is repaired, so a resumed run must know what was found before ([`UnreadableImages::restore`]).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dataset::Dataset;
use crate::error::{DataError, ImageError};
use crate::skipped::Skipped;

/// How many unreadable images a run tolerates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnreadablePolicy {
    /// Maximum fraction of the images that may be unreadable, from 0 to 1 (`data.max_bad_fraction`).
    pub max_bad_fraction: f64,
}

impl Skipped {
    /// Image number `image`, named `key`, which cannot be used because of `error`.
    #[must_use]
    pub fn new(image: usize, key: String, error: &ImageError) -> Self {
        Self { image, key, cause: error.cause().to_owned(), reason: error.to_string() }
    }
}

/// The images found unreadable so far. Clones share one record, for the loaders of one data set.
#[derive(Clone, Debug, Default)]
pub struct UnreadableImages {
    inner: Arc<Mutex<Found>>,
}

#[derive(Debug, Default)]
struct Found {
    indices: HashSet<usize>,
    /// Each with the number of steps after which it counts: 0 if it was found before the first step.
    in_order: Vec<(u64, Skipped)>,
}

impl UnreadableImages {
    /// Number of images that the error about too many of them names.
    const NAMED: usize = 10;

    fn lock(&self) -> MutexGuard<'_, Found> {
        // Every update leaves the two fields consistent, so a panic elsewhere does not spoil them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this image was recorded.
    #[must_use]
    pub fn contains(&self, image: usize) -> bool {
        self.lock().indices.contains(&image)
    }

    /// Records an image that was found before the first step; returns true if it was not recorded before.
    pub fn record(&self, skipped: Skipped) -> bool {
        self.insert(0, skipped)
    }

    /// Records an image that the 0-based `step` found; returns true if it was not recorded before.
    pub fn record_at(&self, step: u64, skipped: Skipped) -> bool {
        self.insert(step.saturating_add(1), skipped)
    }

    fn insert(&self, num_steps: u64, skipped: Skipped) -> bool {
        let mut found = self.lock();
        let new = found.indices.insert(skipped.image);
        if new {
            found.in_order.push((num_steps, skipped));
        }
        new
    }

    /// All recorded images, in the order they were recorded. A loader is some batches ahead of its consumer.
    #[must_use]
    pub fn list(&self) -> Vec<Skipped> {
        self.lock().in_order.iter().map(|(_, skipped)| skipped.clone()).collect()
    }

    /// The images that were found in the first `num_steps` steps or before them, in order: what a checkpoint after
    /// `num_steps` steps saves. Those that the loader found ahead of its consumer are left out: a resumed run finds
    /// them again.
    #[must_use]
    pub fn found(&self, num_steps: u64) -> Vec<Skipped> {
        let found = self.lock();
        let before = found.in_order.iter().filter(|(steps, _)| *steps <= num_steps);
        before.map(|(_, skipped)| skipped.clone()).collect()
    }

    /// Replaces the record by what [`Self::found`] returned, before the first batch of a resumed run.
    ///
    /// # Errors
    /// [`DataError::Loader`] for an image that `dataset` does not have.
    pub fn restore(&self, found: Vec<Skipped>, dataset: &Dataset) -> Result<(), DataError> {
        let images = dataset.num_images();
        if let Some(Skipped { image, key, .. }) = found.iter().find(|skipped| skipped.image >= images) {
            let reason = format!(
                "the bad image `{key}` is number {image}, but the data set has {images} images; expected the data set \
                 of the saved run"
            );
            return Err(DataError::Loader { reason });
        }
        let mut restored = Found::default();
        for skipped in found {
            // The data set may have moved since.
            let skipped = Skipped { key: dataset.image(skipped.image).key(), ..skipped };
            if restored.indices.insert(skipped.image) {
                restored.in_order.push((0, skipped));
            }
        }
        *self.lock() = restored;
        Ok(())
    }

    /// Checks the number of recorded images against the limit.
    ///
    /// # Errors
    /// [`DataError::TooManyBad`] above the limit. It counts the causes and names the first ten images and the key to
    /// raise.
    pub fn check(&self, dataset: &Dataset, policy: UnreadablePolicy) -> Result<(), DataError> {
        let found = self.lock();
        let (bad, images) = (found.indices.len(), dataset.num_images());
        if bad as f64 <= policy.max_bad_fraction * images as f64 {
            return Ok(());
        }
        let first = found.in_order.iter().take(Self::NAMED);
        Err(DataError::TooManyBad {
            bad,
            images,
            is_all: bad == images,
            max_fraction: policy.max_bad_fraction,
            causes: Skipped::by_cause(found.in_order.iter().map(|(_, skipped)| skipped)),
            first: first.map(|(_, skipped)| format!("  {}: {}", skipped.key, skipped.reason)).collect(),
            found: found.in_order.iter().map(|(_, skipped)| skipped.clone()).collect(),
        })
    }
}
