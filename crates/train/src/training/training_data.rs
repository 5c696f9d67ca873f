//! The pairs of a run and the loader that turns them into batches.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use dualenc_data::{
    Batch, BatchPlan, CutCaptions, Dataset, ImageProcessor, Loaded, LoaderOptions, MicroBatches, PairLoader, Share,
    Skipped, Survey, Tokenizer, Tokens, UnreadableImages, UnreadablePolicy, counted,
};
use dualenc_model::Training;

use crate::config::RunConfig;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::loss::contrastive::PairIds;
use crate::run_dir::checkpoint::pair_counts::PairCounts;
use crate::training::health::{MANY_SAME, same_tokens_message};
use crate::training::locked_inputs::LockedInputs;

/// Captions that a run remembers the number of, in 8 bytes each. Those of later captions are computed each time, in a
/// microsecond.
const MAX_KNOWN_IDS: usize = 1 << 24;

/// The training pairs with the tokenizer, image processor and order that make batches of them.
pub(crate) struct TrainingData {
    pub dataset: Arc<Dataset>,
    /// blake3 of the pairs, as hexadecimal digits: a resumed run must find the same.
    pub fingerprint: String,
    pub tokenizer: Arc<Tokenizer>,
    pub processor: Arc<ImageProcessor>,
    /// Loader threads.
    pub workers: usize,
    /// Those of all ranks, up to the last step; of one rank, those that its loader found ahead too.
    pub unreadable_images: UnreadableImages,
    pub unreadable_policy: UnreadablePolicy,
    /// The parts of a step that this rank computes.
    share: Share,
    plan: BatchPlan,
    tokens: Tokens,
    /// Missing and empty files, in the order of the images.
    absent: Vec<Skipped>,
    /// One number a caption of `dataset`, or 0 if it was not asked for yet; equal captions have equal numbers. Of the
    /// first [`MAX_KNOWN_IDS`] captions.
    caption_ids: Mutex<Vec<u64>>,
}

impl TrainingData {
    /// Tokenizes the captions of `dataset` if they are few, fixes the order of its pairs, and looks for missing files.
    /// `share`: the parts of a step that this rank computes.
    ///
    /// # Errors
    /// [`TrainError::Data`] when a caption cannot be tokenized, or too many image files are missing or empty;
    /// [`TrainError::Usage`] when the pairs do not fill a batch, or a step has fewer parts than ranks.
    pub fn new(
        config: &RunConfig,
        dataset: Arc<Dataset>,
        tokenizer: Arc<Tokenizer>,
        processor: Arc<ImageProcessor>,
        workers: usize,
        share: Share,
    ) -> Result<Self, TrainError> {
        let tokens = Tokens::prepare(Arc::clone(&tokenizer), &dataset, config.data.word_dropout, workers)?;
        let plan = config.plan(&dataset);
        if plan.batches_per_epoch() == 0 {
            return Err(TrainError::Usage(too_few_pairs(dataset.num_pairs(config.data.captions), plan.batch_size)));
        }
        refuse_few_parts(config, plan, share.ranks)?;
        let Survey { fingerprint, absent } = dataset.survey()?;
        let unreadable_policy = UnreadablePolicy { max_bad_fraction: config.data.max_bad_fraction };
        let found = UnreadableImages::default();
        absent.iter().cloned().for_each(|skipped| {
            found.record(skipped);
        });
        found.check(&dataset, unreadable_policy)?;
        Ok(Self {
            fingerprint: blake3::Hash::from(fingerprint).to_hex().to_string(),
            // The system clears large allocations when they are first used.
            caption_ids: Mutex::new(vec![0; dataset.num_captions().min(MAX_KNOWN_IDS)]),
            unreadable_images: UnreadableImages::default(),
            unreadable_policy,
            absent,
            dataset,
            tokenizer,
            processor,
            workers,
            share,
            plan,
            tokens,
        })
    }

    /// Images and captions of the data set, those that cannot be read included.
    pub fn pair_counts(&self) -> PairCounts {
        PairCounts { images: self.dataset.num_images(), captions: self.dataset.num_captions() }
    }

    /// Updates per epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.plan.batches_per_epoch() as u64
    }

    /// Records the missing and empty files as unreadable, after those that a checkpoint lists. Returns those that it
    /// does not list.
    ///
    /// # Errors
    /// [`TrainError::Data`] when too many images are unreadable.
    pub fn leave_absent_out(&self) -> Result<Vec<Skipped>, TrainError> {
        let new = self.absent.iter().filter(|skipped| self.unreadable_images.record((*skipped).clone())).cloned();
        let new = new.collect();
        self.unreadable_images.check(&self.dataset, self.unreadable_policy)?;
        Ok(new)
    }

    /// Reports captions that the tokenizer does not distinguish, if all are tokenised.
    pub fn report_same_tokens(&self, observer: &mut dyn Observer) {
        let Some(same) = self.tokens.same_tokens(&self.dataset) else { return };
        let message = same_tokens_message(same, &self.dataset);
        observer.on(if same.share() >= MANY_SAME { Event::Warning(message) } else { Event::Note(message) });
    }

    /// How many captions are cut at the token limit, among those tokenized so far; `None`: they have features.
    pub fn cut_captions(&self) -> Option<CutCaptions> {
        self.tokens.cut_captions()
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
        let features = locked.image_features();
        let part_size = micro_batch_size(config);
        Ok(PairLoader::new(LoaderOptions {
            dataset: Arc::clone(&self.dataset),
            mode: config.data.captions,
            slots: config.caption_slots(),
            plan: self.plan,
            start_step: steps.start,
            num_steps: steps.end.saturating_sub(steps.start),
            micro_batches: MicroBatches {
                size: part_size,
                two_passes: part_size.is_some() && locked.needs_pixels_twice(),
                share: self.share,
            },
            processor: Arc::clone(&self.processor),
            augment: config.data.augment,
            views: locked.prefixes.views().unwrap_or_else(|| config.views(training)),
            cached_features: features.and_then(|(features, set)| features.for_loader(set)),
            tokens: self.tokens.clone(),
            unreadable_policy: self.unreadable_policy,
            unreadable_images: self.images_of_loader()?,
            workers: self.workers,
        })?)
    }

    /// The record that a loader writes. Of several ranks, each loader has a record of its own, since it is ahead of the
    /// others.
    fn images_of_loader(&self) -> Result<UnreadableImages, TrainError> {
        if self.share.ranks == 1 {
            return Ok(self.unreadable_images.clone());
        }
        let images = UnreadableImages::default();
        images.restore(self.unreadable_images.list(), &self.dataset)?;
        Ok(images)
    }

    /// Records the images that the loaders of several ranks found unreadable in `batch`, and leaves those in it that
    /// are new. One rank's loader has recorded them.
    ///
    /// # Errors
    /// [`TrainError::Data`] when too many images are unreadable.
    pub fn record_skipped(&self, batch: &mut Batch) -> Result<(), TrainError> {
        if self.share.ranks > 1 {
            let images = &self.unreadable_images;
            batch.skipped.retain(|skipped| images.record_at(batch.step, skipped.clone()));
            images.check(&self.dataset, self.unreadable_policy)?;
        }
        Ok(())
    }

    /// Pairs of the 0-based `step`.
    pub fn batch_len(&self, step: u64) -> usize {
        self.plan.batch(step / self.steps_per_epoch(), (step % self.steps_per_epoch()) as usize).len()
    }

    /// Which pairs of `batch` have equal captions or equal images.
    pub fn pair_ids(&self, batch: &Batch) -> PairIds {
        let images: Vec<_> = batch.pairs.iter().map(|pair| pair.image).collect();
        // Every number is written whole.
        let mut ids = self.caption_ids.lock().unwrap_or_else(PoisonError::into_inner);
        PairIds::of(&self.dataset, &images, &batch.captions, &batch.contents, |caption| {
            let id = || self.dataset.caption_id(caption);
            match ids.get_mut(caption) {
                Some(known) if *known != 0 => *known,
                Some(unknown) => {
                    *unknown = id();
                    *unknown
                }
                None => id(),
            }
        })
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

/// Threads of the loader of one of several `ranks`, which share the `threads` of the machine.
pub(crate) fn loader_threads(config: &RunConfig, threads: usize, ranks: usize) -> usize {
    config.data.workers.unwrap_or_else(|| threads.div_ceil(ranks)).max(1)
}

/// Refuses a step with fewer parts than `ranks`: the last of an epoch may be shorter.
fn refuse_few_parts(config: &RunConfig, plan: BatchPlan, ranks: usize) -> Result<(), TrainError> {
    let last = plan.batch(0, plan.batches_per_epoch() - 1).len();
    let size = micro_batch_size(config).map_or(plan.batch_size, NonZeroUsize::get);
    let parts = last.div_ceil(size);
    if parts >= ranks {
        return Ok(());
    }
    let (which, shuffle) = match last < plan.batch_size {
        true => ("the last batch of an epoch", "set `data.shuffle = true`, which leaves it out, "),
        false => ("a batch", ""),
    };
    let lower = if size > 1 { "lower `train.micro_batch_size`" } else { "raise `train.batch_size`" };
    Err(TrainError::Usage(format!(
        "{which} has {}, too few for the {ranks} devices or processes that share it with micro-batches of {size}: each \
         computes one at least; {shuffle}{lower}, or use fewer",
        counted(last, "pair"),
    )))
}

/// Pairs of a part of a step; `None`: a step is computed whole.
fn micro_batch_size(config: &RunConfig) -> Option<NonZeroUsize> {
    let size = config.train.micro_batch_size.filter(|size| *size < config.train.batch_size);
    size.and_then(NonZeroUsize::new)
}
