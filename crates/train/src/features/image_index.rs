//! Which row of the feature store belongs to which image of a list, in which view.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dualenc_data::{Augment, ContentHash, ContentId, FeatureLookup, ImageRef, View, content_id};
use dualenc_model::Training;

use crate::config::RunConfig;
use crate::features::store::FeatureStore;
use crate::features::store::index::Row;

/// A list of images.
pub trait ImageList: Send + Sync {
    /// Number of images.
    fn num_images(&self) -> usize;

    /// The location of image `image`, less than [`ImageList::num_images`].
    fn image(&self, image: usize) -> ImageRef;
}

impl ImageList for Vec<ImageRef> {
    fn num_images(&self) -> usize {
        self.len()
    }

    fn image(&self, image: usize) -> ImageRef {
        self[image].clone()
    }
}

impl ImageList for dualenc_data::Dataset {
    fn num_images(&self) -> usize {
        Self::num_images(self)
    }

    fn image(&self, image: usize) -> ImageRef {
        Self::image(self, image)
    }
}

/// The views of the training images that a run caches while `training` trains.
pub(crate) fn training_views(config: &RunConfig, training: &Training) -> Views {
    match (config.data.augment, config.cache.enabled) {
        (Some(augment), true) => Views::Augmented { count: config.views(training), augment, seed: config.run.seed },
        _ => Views::One,
    }
}

/// The views of the training images for which a run caches the states before the first layer that trains; `None`: each
/// epoch has new views.
pub(crate) fn prefix_views(config: &RunConfig) -> Option<Views> {
    let Some(augment) = config.data.augment else { return Some(Views::One) };
    let count = config.cache.views.and_then(NonZeroU64::new)?;
    Some(Views::Augmented { count, augment, seed: config.run.seed })
}

/// A list of images, and the row of each in the store if it is known. Clones share the rows.
#[derive(Clone)]
pub struct ImageSet {
    list: Arc<dyn ImageList>,
    /// Of each image, view by view: the row plus 1, or 0 if unknown.
    rows: Arc<[AtomicU32]>,
    /// The content of each image, or 0 if unknown. It is known before the row is.
    contents: Arc<[AtomicU64]>,
    store: Arc<FeatureStore>,
    views: Views,
}

/// The views of each image of a set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Views {
    /// One view, without augmentation.
    One,
    /// A number of augmented views.
    Augmented {
        /// Views of each image.
        count: NonZeroU64,
        /// The augmentation.
        augment: Augment,
        /// Seed of the random draws.
        seed: u64,
    },
}

impl Views {
    /// Views of each image.
    pub fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Augmented { count, .. } => count.get() as usize,
        }
    }

    /// The augmentation of image `image` in view `view`; `None`: no augmentation.
    pub(crate) fn of(self, image: usize, view: u64) -> Option<View> {
        match self {
            Self::One => None,
            Self::Augmented { augment, seed, .. } => Some(augment.view(seed, view, image)),
        }
    }

    /// The hash under which the feature of image `image` in view `view` is stored: it covers everything that the pixels
    /// depend on. `content`: of the image file.
    pub(crate) fn stored_as(self, image: usize, view: u64, content: &ContentHash) -> ContentHash {
        match self {
            Self::One => *content,
            Self::Augmented { augment, seed, .. } => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(content).update(describe_augment(&augment).as_bytes());
                for number in [seed, view, image as u64] {
                    hasher.update(&number.to_le_bytes());
                }
                *hasher.finalize().as_bytes()
            }
        }
    }
}

/// Everything about an augmentation that pixels depend on, as versioned text.
fn describe_augment(augment: &Augment) -> String {
    let Augment { crop_scale, crop_ratio, flip, brightness, contrast, saturation, hue, rand_ops, rand_magnitude } =
        augment;
    let range = |[low, high]: &[f64; 2]| format!("{low}-{high}");
    let crop_scale = crop_scale.as_ref().map_or_else(|| "none".to_owned(), range);
    format!(
        "augment 1: crop_scale={crop_scale} crop_ratio={} flip={flip} brightness={brightness} contrast={contrast} \
         saturation={saturation} hue={hue} rand_ops={rand_ops} rand_magnitude={rand_magnitude}",
        range(crop_ratio)
    )
}

impl ImageSet {
    /// A set in which no row is known yet. `store`: where the features are.
    pub(crate) fn new(list: Arc<dyn ImageList>, store: Arc<FeatureStore>, views: Views) -> Self {
        let rows = list.num_images() * views.count();
        let contents = (0..list.num_images()).map(|_| AtomicU64::new(0)).collect();
        Self { rows: (0..rows).map(|_| AtomicU32::new(0)).collect(), contents, list, store, views }
    }

    /// The set of rows that stand in place of images: each that can be used is known from the start.
    pub(crate) fn of_rows(list: Arc<dyn ImageList>, store: Arc<FeatureStore>) -> Self {
        let set = Self::new(list, store, Views::One);
        for image in 0..set.len() {
            if let ImageRef::FeatureRow { table, row } = set.reference(image)
                && table.fault(row).is_none()
            {
                set.contents[image].store(table.id(row), Ordering::Release);
                // The row of the store: there is none, since `select` reads the table.
                set.set_row(image, 0, 0);
            }
        }
        set
    }

    /// Whether this is the set of `list` in `views`.
    pub(crate) fn is_of(&self, list: &Arc<dyn ImageList>, views: Views) -> bool {
        Arc::ptr_eq(&self.list, list) && self.views == views
    }

    /// The location of image `image`.
    pub(crate) fn reference(&self, image: usize) -> ImageRef {
        self.list.image(image)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.list.num_images()
    }

    /// The views of each image.
    pub fn views(&self) -> Views {
        self.views
    }

    /// Images with a known row in the first view, in order.
    pub fn usable(&self) -> Vec<usize> {
        (0..self.len()).filter(|&image| self.row(image, 0).is_some()).collect()
    }

    /// The row of an image in a view, if it is known.
    pub(crate) fn row(&self, image: usize, view: u64) -> Option<Row> {
        self.slot(image, view).load(Ordering::Acquire).checked_sub(1)
    }

    /// Records the row of an image in a view.
    pub(crate) fn set_row(&self, image: usize, view: u64, row: Row) {
        self.slot(image, view).store(row + 1, Ordering::Release);
    }

    /// The content of an image, if its file was read since the set was made.
    pub(crate) fn content(&self, image: usize) -> Option<ContentId> {
        Some(self.contents[image].load(Ordering::Acquire)).filter(|&content| content != 0)
    }

    fn slot(&self, image: usize, view: u64) -> &AtomicU32 {
        &self.rows[view as usize * self.len() + image]
    }
}

impl std::fmt::Debug for ImageSet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ImageSet of {} images, {:?}", self.len(), self.views)
    }
}

impl FeatureLookup for ImageSet {
    fn known(&self, image: usize, view: u64) -> Option<ContentId> {
        self.row(image, view).and_then(|_| self.content(image))
    }

    fn find(&self, image: usize, view: u64, content: &ContentHash) -> Result<(), ContentHash> {
        self.contents[image].store(content_id(content), Ordering::Release);
        let name = self.views.stored_as(image, view, content);
        let row = self.store.find(&name).ok_or(name)?;
        self.set_row(image, view, row);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_hash_covers_view_and_augmentation() {
        let store = Arc::new(FeatureStore::in_memory(1));
        let list: Arc<dyn ImageList> = Arc::new(vec![ImageRef::File("a.png".into()), ImageRef::File("b.png".into())]);
        let set = |flip, seed| {
            let augment = Augment { flip, ..Augment::default() };
            let views = Views::Augmented { count: 2.try_into().unwrap(), augment, seed };
            ImageSet::new(Arc::clone(&list), Arc::clone(&store), views)
        };
        let first = set(0.5, 1);
        let hash = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
        let bytes = hash(b"bytes");
        let name = first.find(0, 1, &bytes).unwrap_err();
        store.insert(&[name], &[0.5]).unwrap();
        assert_eq!(first.known(0, 1), None);
        assert_eq!(first.find(0, 1, &bytes), Ok(()));
        let known = [(0, 1), (0, 0), (1, 1)].map(|(image, view)| first.known(image, view));
        assert_eq!(known, [Some(content_id(&bytes)), None, None]);
        assert_eq!(first.row(0, 1), Some(0));
        for (set, image, view, content) in [
            (&first, 0, 0, bytes),
            (&first, 1, 1, bytes),
            (&first, 0, 1, hash(b"other")),
            (&set(0.4, 1), 0, 1, bytes),
            (&set(0.5, 2), 0, 1, bytes),
        ] {
            assert!(set.find(image, view, &content).is_err(), "{image} {view} {content:?}");
        }
        // Without augmentation, equal images share a feature.
        let plain = ImageSet::new(Arc::clone(&list), Arc::clone(&store), Views::One);
        assert_eq!(plain.find(0, 0, &bytes), plain.find(1, 0, &bytes));
        assert_eq!(plain.find(0, 0, &bytes), Err(bytes));
        assert_eq!(plain.content(0), plain.content(1));
        assert_ne!(plain.content(0), None);
    }

    #[test]
    fn augment_description_is_pinned() {
        let augment = Augment { crop_scale: Some([0.5, 1.0]), flip: 0.25, rand_ops: 2, ..Augment::default() };
        assert_eq!(
            describe_augment(&augment),
            "augment 1: crop_scale=0.5-1 crop_ratio=0.75-1.3333333333333333 flip=0.25 brightness=0 contrast=0 \
             saturation=0 hue=0 rand_ops=2 rand_magnitude=9"
        );
        assert!(describe_augment(&Augment::default()).contains("crop_scale=none "));
    }
}
