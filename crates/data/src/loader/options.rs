//! What a loader loads, and how.

use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Range;
use std::sync::Arc;

use crate::dataset::caption_draw::CaptionSlots;
use crate::dataset::{CaptionMode, Dataset};
use crate::image_processor::ImageProcessor;
use crate::images::augment::Augment;
use crate::loader::feature_lookup::FeatureLookup;
use crate::loader::order::batch_plan::BatchPlan;
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
    /// Which micro-batches of a step to load.
    pub share: Share,
}

/// The micro-batches of a step that one of several ranks computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The rank, 0-based.
    pub rank: usize,
    /// How many ranks there are.
    pub ranks: usize,
}

/// All of them.
impl Default for Share {
    fn default() -> Self {
        Self { rank: 0, ranks: 1 }
    }
}

impl Share {
    /// The micro-batches of this rank in a step of `parts`; none if there are fewer than ranks.
    ///
    /// If the number of ranks is a power of two, micro-batches and ranks are split in halves until one rank is left,
    /// the first half with the odd one: a rank has a whole branch of the tree in which gradients are added up.
    #[must_use]
    pub const fn of(self, parts: usize) -> Range<usize> {
        let Self { rank, ranks } = self;
        if parts < ranks {
            return 0..0;
        }
        if !ranks.is_power_of_two() {
            return rank * parts / ranks..(rank + 1) * parts / ranks;
        }
        let (mut share, mut first, mut others) = (0..parts, 0, ranks);
        while others > 1 {
            others /= 2;
            let middle = share.start + (share.end - share.start).div_ceil(2);
            if rank < first + others {
                share.end = middle;
            } else {
                share.start = middle;
                first += others;
            }
        }
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_each_other() {
        for ranks in 1..=9 {
            for parts in ranks..40 {
                let mut next = 0;
                for rank in 0..ranks {
                    let share = Share { rank, ranks }.of(parts);
                    assert_eq!(share.start, next, "rank {rank} of {ranks}, {parts} parts");
                    assert!(!share.is_empty(), "rank {rank} of {ranks}, {parts} parts");
                    next = share.end;
                }
                assert_eq!(next, parts);
            }
        }
        assert!(Share { rank: 2, ranks: 3 }.of(2).is_empty());
    }
}
