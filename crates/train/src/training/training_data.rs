//! The pairs of a run and the loader that turns them into batches.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use dualenc_data::{
    Batch, BatchPlan, Dataset, ImageProcessor, Loaded, LoaderOptions, MicroBatches, PairLoader, Tokenizer, Tokens,
    UnreadableImages, UnreadablePolicy,
};
use dualenc_model::Training;

use crate::config::RunConfig;
use crate::counted::counted;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::loss::contrastive::PairIds;
use crate::training::locked_inputs::LockedInputs;

/// The training pairs with the tokenizer, image processor and order that make batches of them.
pub(crate) struct TrainingData {
    pub dataset: Arc<Dataset>,
    /// blake3 of the pairs, as hexadecimal digits: a resumed run must find the same.
    pub fingerprint: String,
    pub tokenizer: Arc<Tokenizer>,
    pub processor: Arc<ImageProcessor>,
    /// Loader threads.
    pub workers: usize,
    pub unreadable_images: UnreadableImages,
    pub unreadable_policy: UnreadablePolicy,
    plan: BatchPlan,
    tokens: Tokens,
    /// One number a caption of `dataset`; equal captions have equal numbers.
    caption_ids: Vec<u64>,
}

impl TrainingData {
    /// Tokenizes the captions of `dataset` and fixes the order of its pairs.
    ///
    /// # Errors
    /// [`TrainError::Data`] when a caption cannot be tokenized; [`TrainError::Usage`] when the pairs do not fill a
    /// batch.
    pub fn new(
        config: &RunConfig,
        dataset: Arc<Dataset>,
        tokenizer: Arc<Tokenizer>,
        processor: Arc<ImageProcessor>,
        workers: usize,
    ) -> Result<Self, TrainError> {
        let tokens = Tokens::prepare(Arc::clone(&tokenizer), &dataset, config.data.word_dropout, workers)?;
        let plan = config.plan(&dataset);
        if plan.batches_per_epoch() == 0 {
            return Err(TrainError::Usage(too_few_pairs(dataset.num_pairs(config.data.captions), plan.batch_size)));
        }
        Ok(Self {
            fingerprint: blake3::Hash::from(dataset.fingerprint()?).to_hex().to_string(),
            caption_ids: dataset.caption_ids(),
            unreadable_images: UnreadableImages::default(),
            unreadable_policy: UnreadablePolicy { max_bad_fraction: config.data.max_bad_fraction },
            dataset,
            tokenizer,
            processor,
            workers,
            plan,
            tokens,
        })
    }

    /// Updates per epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.plan.batches_per_epoch() as u64
    }

    /// How many captions are cut at the token limit; `None`: tokens are drawn anew each epoch (word dropout).
    pub fn num_cut_captions(&self) -> Option<usize> {
        match &self.tokens {
            Tokens::Table(table) => Some(table.num_cut()),
            _ => None,
        }
    }

    /// The batches of the 0-based `steps`, while `training` trains. Order, augmentation and caption choice are
    /// functions of (seed, epoch, step, index).
    ///
    /// # Errors
    /// [`TrainError::Data`] when the loader cannot start.
    pub fn batches(
        &self,
        config: &RunConfig,
        training: &Training,
        locked: &LockedInputs,
        steps: Range<u64>,
    ) -> Result<PairLoader, TrainError> {
        let features = locked.towers.images.as_ref().zip(locked.images.as_ref());
        let part_size = micro_batch_size(config);
        Ok(PairLoader::new(LoaderOptions {
            dataset: Arc::clone(&self.dataset),
            mode: config.data.captions,
            plan: self.plan,
            start_step: steps.start,
            num_steps: steps.end.saturating_sub(steps.start),
            micro_batches: MicroBatches {
                size: part_size,
                two_passes: part_size.is_some() && locked.needs_pixels_twice(),
            },
            processor: Arc::clone(&self.processor),
            augment: config.data.augment,
            views: config.views(training),
            cached_features: features.and_then(|(features, set)| features.for_loader(set)),
            tokens: self.tokens.clone(),
            unreadable_policy: self.unreadable_policy,
            unreadable_images: self.unreadable_images.clone(),
            workers: self.workers,
        })?)
    }

    /// Pairs of the 0-based `step`.
    pub fn batch_len(&self, step: u64) -> usize {
        self.plan.batch(step / self.steps_per_epoch(), (step % self.steps_per_epoch()) as usize).len()
    }

    /// Which pairs of `batch` have equal captions or equal images.
    pub fn pair_ids(&self, batch: &Batch) -> PairIds {
        let pairs = batch.pairs.iter().map(|pair| (pair.image, pair.caption));
        PairIds::of(&self.dataset, &self.caption_ids, pairs)
    }
}

/// The next batch; `None`: the stage is over. Reports an image that takes long to load.
///
/// # Errors
/// [`TrainError::Data`] when the loader fails.
pub(crate) fn next_batch(batches: &mut PairLoader, observer: &mut dyn Observer) -> Result<Option<Batch>, TrainError> {
    loop {
        match batches.next_or_stall().transpose()? {
            None => return Ok(None),
            Some(Loaded::Batch(batch)) => return Ok(Some(*batch)),
            Some(Loaded::Stalled(stall)) => {
                observer.on(Event::Warning(stall.to_string()));
            }
        }
    }
}

/// The message that `pairs` are fewer than a batch.
pub(crate) fn too_few_pairs(pairs: usize, batch_size: usize) -> String {
    let smaller = if pairs >= 2 { format!("set `train.batch_size` to at most {pairs}, or ") } else { String::new() };
    let (pairs, do_not) = (counted(pairs, "pair"), if pairs == 1 { "does not" } else { "do not" });
    format!("{pairs} {do_not} fill one batch of {batch_size}; {smaller}add data")
}

/// Pairs of a part of a step; `None`: a step is computed whole.
fn micro_batch_size(config: &RunConfig) -> Option<NonZeroUsize> {
    let size = config.train.micro_batch_size.filter(|size| *size < config.train.batch_size);
    size.and_then(NonZeroUsize::new)
}
