//! A list of images, in the ways they are given, and where the features of each are.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dualenc_data::{Augment, ContentHash, ImageRef, KeptImages, View};
use dualenc_model::Training;

use crate::config::RunConfig;
use crate::features::store::FeatureStore;
use crate::features::store_index::Row;

/// Images by number.
pub trait ImageList: Send + Sync {
    /// All of them, in order.
    fn images(&self) -> &[ImageRef];
}

impl ImageList for Vec<ImageRef> {
    fn images(&self) -> &[ImageRef] {
        self
    }
}

impl ImageList for dualenc_data::Dataset {
    fn images(&self) -> &[ImageRef] {
        &self.images
    }
}

/// In which ways a run is given its training images while `training` trains, as far as its cache must know.
pub(crate) fn views_of(config: &RunConfig, training: &Training) -> Views {
    match (config.data.augment, config.cache.enabled) {
        (Some(augment), true) => Views::Augmented { count: config.views(training), augment, seed: config.run.seed },
        _ => Views::One,
    }
}

/// A list of images, and the row of the store that each has, as far as that is known. Clones share it.
#[derive(Clone)]
pub struct ImageSet {
    list: Arc<dyn ImageList>,
    /// Of each image, view after view: the row's number and 1, or 0.
    rows: Arc<[AtomicU32]>,
    store: Arc<FeatureStore>,
    views: Views,
}

/// In which ways the images of a set are given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Views {
    /// As they are.
    One,
    /// Augmented, in so many views of each.
    Augmented {
        /// Views of an image.
        count: NonZeroU64,
        /// How they differ.
        augment: Augment,
        /// What they are drawn from.
        seed: u64,
    },
}

impl Views {
    /// How many there are of an image.
    pub fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Augmented { count, .. } => count.get() as usize,
        }
    }

    /// View `view` of image `image`; `None`: as it is.
    pub(crate) fn of(self, image: usize, view: u64) -> Option<View> {
        match self {
            Self::One => None,
            Self::Augmented { augment, seed, .. } => Some(augment.view(seed, view, image)),
        }
    }

    /// What a feature of image `image` in `view` is kept under: everything its pixels depend on.
    pub(crate) fn content(self, image: usize, view: u64, bytes: &[u8]) -> ContentHash {
        let content = blake3::hash(bytes);
        match self {
            Self::One => *content.as_bytes(),
            Self::Augmented { augment, seed, .. } => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(content.as_bytes()).update(format!("{augment:?}").as_bytes());
                for number in [seed, view, image as u64] {
                    hasher.update(&number.to_le_bytes());
                }
                *hasher.finalize().as_bytes()
            }
        }
    }
}

impl ImageSet {
    /// Nothing is known of the images of `list` yet; features are in `store`.
    pub(crate) fn new(list: Arc<dyn ImageList>, store: Arc<FeatureStore>, views: Views) -> Self {
        let rows = list.images().len() * views.count();
        Self { rows: (0..rows).map(|_| AtomicU32::new(0)).collect(), list, store, views }
    }

    /// Whether it is the set of `list` in `views`.
    pub(crate) fn is_of(&self, list: &Arc<dyn ImageList>, views: Views) -> bool {
        Arc::ptr_eq(&self.list, list) && self.views == views
    }

    /// Where image `image` is.
    pub(crate) fn reference(&self, image: usize) -> &ImageRef {
        &self.list.images()[image]
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.list.images().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In which ways they are given.
    pub fn views(&self) -> Views {
        self.views
    }

    /// The images whose features in the first view are known to be kept.
    pub fn usable(&self) -> Vec<usize> {
        (0..self.len()).filter(|&image| self.row(image, 0).is_some()).collect()
    }

    /// The row of an image in a view, if it is known.
    pub(crate) fn row(&self, image: usize, view: u64) -> Option<Row> {
        self.place(image, view).load(Ordering::Relaxed).checked_sub(1)
    }

    /// From now on it is known.
    pub(crate) fn set_row(&self, image: usize, view: u64, row: Row) {
        self.place(image, view).store(row + 1, Ordering::Relaxed);
    }

    fn place(&self, image: usize, view: u64) -> &AtomicU32 {
        &self.rows[view as usize * self.len() + image]
    }
}

impl std::fmt::Debug for ImageSet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ImageSet of {} images, {:?}", self.len(), self.views)
    }
}

impl KeptImages for ImageSet {
    fn knows(&self, image: usize, view: u64) -> bool {
        self.row(image, view).is_some()
    }

    fn find(&self, image: usize, view: u64, bytes: &[u8]) -> Result<(), ContentHash> {
        let content = self.views.content(image, view, bytes);
        let row = self.store.find(&content).ok_or(content)?;
        self.set_row(image, view, row);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_goes_with_its_view_augmentation_and_place_and_is_then_known_without_bytes() {
        let store = Arc::new(FeatureStore::in_memory(1));
        let list: Arc<dyn ImageList> = Arc::new(vec![ImageRef::File("a.png".into()), ImageRef::File("b.png".into())]);
        let set = |flip, seed| {
            let augment = Augment { flip, ..Augment::default() };
            let views = Views::Augmented { count: 2.try_into().unwrap(), augment, seed };
            ImageSet::new(Arc::clone(&list), Arc::clone(&store), views)
        };
        let first = set(0.5, 1);
        let content = first.find(0, 1, b"bytes").unwrap_err();
        store.insert(&[content], &[0.5]).unwrap();
        assert!(!first.knows(0, 1));
        assert_eq!(first.find(0, 1, b"bytes"), Ok(()));
        assert!(first.knows(0, 1) && !first.knows(0, 0) && !first.knows(1, 1));
        assert_eq!(first.row(0, 1), Some(0));
        for (set, image, view, bytes) in [
            (&first, 0, 0, b"bytes"),
            (&first, 1, 1, b"bytes"),
            (&first, 0, 1, b"other"),
            (&set(0.4, 1), 0, 1, b"bytes"),
            (&set(0.5, 2), 0, 1, b"bytes"),
        ] {
            assert!(set.find(image, view, bytes).is_err(), "{image} {view} {bytes:?}");
        }
        // Without augmentation, equal images share a feature wherever they stand.
        let plain = ImageSet::new(Arc::clone(&list), Arc::clone(&store), Views::One);
        assert_eq!(plain.find(0, 0, b"bytes"), plain.find(1, 0, b"bytes"));
        assert_eq!(plain.find(0, 0, b"bytes"), Err(*blake3::hash(b"bytes").as_bytes()));
    }
}
