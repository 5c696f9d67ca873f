//! What a loader loads, and how.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;

use crate::dataset::caption_draw::CaptionSlots;
use crate::dataset::{CaptionMode, Dataset};
use crate::image_processor::ImageProcessor;
use crate::images::augment::Augment;
use crate::loader::batch_plan::BatchPlan;
use crate::loader::feature_lookup::FeatureLookup;
use crate::loader::unreadable::{UnreadableImages, UnreadablePolicy};
use crate::text::caption_tokens::Tokens;

/// Options of a [`crate::PairLoader`].
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// Images and captions.
    pub dataset: Arc<Dataset>,
    /// Which pairs make an epoch.
    pub mode: CaptionMode,
    /// With [`CaptionMode::Slots`]: how the captions of a pair are drawn.
    pub slots: CaptionSlots,
    /// How an epoch is divided into batches. Its `len` must be `dataset.num_pairs(mode)`; its `seed` also chooses
    /// captions, views and dropped words.
    pub plan: BatchPlan,
    /// First global step, 0-based. A resumed run passes the number of completed steps.
    pub start_step: u64,
    /// Number of steps to load.
    pub num_steps: u64,
    /// How the batch of a step is divided into micro-batches.
    pub micro_batches: MicroBatches,
    /// Processing of the images.
    pub processor: Arc<ImageProcessor>,
    /// Random changes to images; for training only.
    pub augment: Option<Augment>,
    /// Number of different views of an image: epoch `e` uses view `e % views`. With 1, all epochs see the same view;
    /// with `NonZeroU64::MAX`, each sees its own.
    pub views: NonZeroU64,
    /// Cached features: images that have them need no pixels. `None` loads the pixels of all images.
    pub cached_features: Option<Arc<dyn FeatureLookup>>,
    /// Tokens of the captions.
    pub tokens: Tokens,
    /// Maximum fraction of unreadable images before the loader fails.
    pub unreadable_policy: UnreadablePolicy,
    /// Record of unreadable images; share it between the loaders of a run.
    pub unreadable_images: UnreadableImages,
    /// Number of worker threads; 0 counts as 1.
    pub workers: usize,
}

/// How the batch of a step is divided into micro-batches, for consumers that cannot hold it whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MicroBatches {
    /// Pairs in each micro-batch but the last; `None` for the whole batch at once.
    pub size: Option<NonZeroUsize>,
    /// Whether to send the micro-batches of a step twice, in two passes. A step of one micro-batch is sent once.
    pub two_passes: bool,
}
