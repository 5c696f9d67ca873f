//! Images that cannot be read or decoded: each is recorded once and counts towards a limit.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dataset::Dataset;
use crate::error::DataError;

/// How many unreadable images a run tolerates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnreadablePolicy {
    /// Maximum fraction of the images that may be unreadable, from 0 to 1 (`data.max_bad_fraction`).
    pub max_bad_fraction: f64,
}

/// An unreadable image, which the image of the next pair replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Index in [`Dataset::images`].
    pub image: usize,
    /// The path, or `shard.tar/entry.jpg`.
    pub key: String,
    /// Why it is unreadable.
    pub reason: String,
}

/// The images found unreadable so far. Clones share one record, for the loaders of one data set.
#[derive(Clone, Debug, Default)]
pub struct UnreadableImages {
    inner: Arc<Mutex<Found>>,
}

#[derive(Debug, Default)]
struct Found {
    indices: HashSet<usize>,
    in_order: Vec<Skipped>,
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

    /// Records an image; returns true if it was not recorded before.
    pub fn record(&self, skipped: Skipped) -> bool {
        let mut found = self.lock();
        let new = found.indices.insert(skipped.image);
        if new {
            found.in_order.push(skipped);
        }
        new
    }

    /// All recorded images, in the order they were recorded.
    #[must_use]
    pub fn list(&self) -> Vec<Skipped> {
        self.lock().in_order.clone()
    }

    /// Checks the number of recorded images against the limit.
    ///
    /// # Errors
    /// [`DataError::TooManyBad`] above the limit. It names the first ten images and the key to raise.
    pub fn check(&self, dataset: &Dataset, policy: UnreadablePolicy) -> Result<(), DataError> {
        let found = self.lock();
        let (bad, images) = (found.indices.len(), dataset.images.len());
        if bad as f64 <= policy.max_bad_fraction * images as f64 {
            return Ok(());
        }
        let first = found.in_order.iter().take(Self::NAMED);
        Err(DataError::TooManyBad {
            bad,
            images,
            max_fraction: policy.max_bad_fraction,
            first: first.map(|skipped| format!("  {}: {}", skipped.key, skipped.reason)).collect(),
        })
    }
}
