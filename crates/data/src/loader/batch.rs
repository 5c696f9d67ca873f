//! What a loader returns.

use std::time::Duration;

use crate::dataset::Pair;
use crate::image_processor::processed::ProcessedImages;
use crate::loader::feature_lookup::{ContentHash, ContentId};
use crate::skipped::Skipped;
use crate::text::token_batch::TokenBatch;

/// The pairs of one step, or one of its micro-batches.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Global step, 0-based.
    pub step: u64,
    /// Epoch, 0-based.
    pub epoch: u64,
    /// View of the images, 0-based; see [`crate::LoaderOptions::views`].
    pub view: u64,
    /// Number of this micro-batch in its step, 0-based.
    pub part: usize,
    /// Whether this is the last micro-batch of its step in this pass, among those of this rank.
    pub is_last_of_pass: bool,
    /// The pairs, after replacement of unreadable images. With several captions a pair, the caption is the first.
    pub pairs: Vec<Pair>,
    /// Numbers of all captions of each pair, `[pairs, slots]`, flat: see [`Batch::slots`].
    pub captions: Vec<usize>,
    /// The content of the image of each pair. Files with equal bytes have equal numbers, whatever their names.
    pub contents: Vec<ContentId>,
    /// The images of [`Batch::loaded`].
    pub pixels: ProcessedImages,
    /// The pairs that have pixels, in order: all except those with cached features.
    pub loaded: Vec<LoadedImage>,
    /// Tokens of the captions, `[pairs, slots]` sequences.
    pub tokens: TokenBatch,
    /// Images first found unreadable in this batch.
    pub skipped: Vec<Skipped>,
    /// How long the consumer waited for this batch.
    pub waited: Duration,
}

impl Batch {
    /// Captions per pair: 1 unless the loader draws several.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.captions.len().checked_div(self.pairs.len()).unwrap_or(1)
    }
}

/// A pair with a decoded image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// Index in [`Batch::pairs`].
    pub pair: usize,
    /// Hash to cache the features under; `None` if nothing is cached.
    pub content: Option<ContentHash>,
}
