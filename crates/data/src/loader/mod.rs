//! Batches of pairs, in an order that is a pure function of (seed, epoch, step). Worker threads read, decode and
//! process samples; a collator puts them in order and keeps a batch ready ahead of the consumer. A loader keeps no
//! state to save and computes no features.
//!
//! A bad image (missing, empty, too large, or impossible to decode) is replaced by that of the next pair of the data
//! set. So every batch is whole, and the replacement is the same in every run, with pixels or with cached features. A
//! file that the system cannot read is not a bad image: it is tried again, then it ends the load.
//!
//! This file has [`PairLoader`] and the collator. The others:
//! - `options`: what to load and how
//! - `batch`: what a loader returns
//! - `order`: which samples are in which batch
//! - `jobs`: the samples of a load, one by one
//! - `sample`: the work on one sample
//! - `load_image`: one image from disk to a tower's input
//! - `parallel_map`: a function over a stream on several threads, with results in order
//! - `read_ahead`: reads the shards of an order with windows ahead
//! - `unreadable`: the record of unreadable images and the limit on them
//! - `in_progress`: which images are loading, to name one that stalls
//! - `feature_lookup`: which images have cached features

pub(crate) mod batch;
pub(crate) mod feature_lookup;
pub(crate) mod in_progress;
mod jobs;
pub(crate) mod load_image;
pub(crate) mod options;
pub(crate) mod order;
pub(crate) mod parallel_map;
mod read_ahead;
mod sample;
#[cfg(test)]
mod tests;
pub(crate) mod unreadable;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::loader::batch::{Batch, LoadedImage};
use crate::loader::in_progress::{InProgress, Stall};
use crate::loader::jobs::jobs;
use crate::loader::options::LoaderOptions;
use crate::loader::parallel_map::{PATIENCE, ordered_map};
use crate::loader::read_ahead::ReadAhead;
use crate::loader::sample::{Image, load};
use crate::panics::catch_quietly;

/// Samples in progress per worker: enough that none waits while one slow image is decoded.
const QUEUE_PER_WORKER: usize = 8;

/// Batches that are ready beside the one in use.
const BATCHES_AHEAD: usize = 1;

/// Bytes of pixels that wait, both in samples for a batch and in batches for the consumer: 1783 images of 224 x 224
/// pixels each, a byte for each value.
const PREFETCH_BYTES: usize = 256 << 20;

/// How long an image loads before it counts as stalled. It takes milliseconds from a healthy disk, and about 5 seconds
/// from one that is tried again.
const STALL_AFTER: Duration = Duration::from_secs(60);

/// A batch, and whether it is the last of its step.
type Collated = (Batch, bool);

/// What [`PairLoader::next_or_stall`] found.
#[derive(Debug)]
pub enum Loaded {
    /// The next batch.
    Batch(Box<Batch>),
    /// No batch yet: an image has been loading for a minute.
    Stalled(Stall),
}

/// An iterator over the batches of steps `start_step..start_step + num_steps`. It ends after its first error.
///
/// The errors are [`DataError::Read`] if the system cannot read an image, [`DataError::TooManyBad`] above the limit on
/// bad images, [`DataError::Loader`] if no image is usable, [`DataError::Tokenizer`] for a caption that cannot be
/// tokenised, and [`DataError::Worker`] for a panic, with the image.
///
/// Dropping a loader ends its threads. One that waits for a stalled disk is left behind after 10 seconds.
#[derive(Debug)]
pub struct PairLoader {
    batches: Option<Receiver<Result<Collated, DataError>>>,
    collator: Option<JoinHandle<()>>,
    /// Is disconnected when the collator has ended.
    ended: Receiver<()>,
    cancelled: Arc<AtomicBool>,
    dataset: Arc<Dataset>,
    in_progress: InProgress,
    stall_after: Duration,
    /// When the consumer asked for the next batch.
    waiting_since: Option<Instant>,
    /// Steps still to come.
    remaining: u64,
}

impl PairLoader {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`DataError::Loader`] if the plan is for another number of pairs, or if an epoch has no batch.
    pub fn new(options: LoaderOptions) -> Result<Self, DataError> {
        let pairs = options.dataset.num_pairs(options.mode);
        if options.plan.len != pairs {
            let reason = format!("the plan is for {} pairs, the data set has {pairs}", options.plan.len);
            return Err(DataError::Loader { reason });
        }
        if options.num_steps > 0 && options.plan.batches_per_epoch() == 0 {
            let reason = format!(
                "{pairs} pairs do not fill one batch of {}; lower `train.batch_size` or add data",
                options.plan.batch_size
            );
            return Err(DataError::Loader { reason });
        }
        let remaining = options.num_steps;
        let dataset = Arc::clone(&options.dataset);
        let (in_progress, cancelled) = (InProgress::default(), Arc::new(AtomicBool::new(false)));
        let (sender, receiver) = sync_channel(batches_ahead(&options));
        let (ending, ended) = channel::<()>();
        let (loading, stop) = (in_progress.clone(), Arc::clone(&cancelled));
        let collator = std::thread::spawn(move || {
            let _ending = ending.clone();
            let collating = catch_quietly(|| {
                for batch in collate(options, loading, stop, ending) {
                    let failed = batch.is_err();
                    // A closed channel means that the consumer is gone.
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                }
            });
            if let Err(panic) = collating {
                let (job, message) = ("collating a batch".to_owned(), panic.to_string());
                let _ = sender.send(Err(DataError::Worker { job, message }));
            }
        });
        Ok(Self {
            batches: Some(receiver),
            collator: Some(collator),
            ended,
            cancelled,
            dataset,
            in_progress,
            stall_after: STALL_AFTER,
            waiting_since: None,
            remaining,
        })
    }

    /// Sets how long an image loads before [`Self::next_or_stall`] reports it. Default 60 seconds.
    #[must_use]
    pub const fn with_stall_after(mut self, stall_after: Duration) -> Self {
        self.stall_after = stall_after;
        self
    }

    /// Waits for the next batch, or until an image has been loading for 60 seconds. A stall is no error: after it, call
    /// this again to go on waiting. It is reported every 60 seconds while it lasts.
    ///
    /// # Errors
    /// As the iterator, which waits through stalls.
    pub fn next_or_stall(&mut self) -> Option<Result<Loaded, DataError>> {
        if self.remaining == 0 {
            return None;
        }
        // A minimum, so that a batch that is ready is preferred.
        const SHORTEST: Duration = Duration::from_millis(1);
        let start = *self.waiting_since.get_or_insert_with(Instant::now);
        let received = loop {
            let patience = self.in_progress.time_left(self.stall_after).max(SHORTEST);
            match self.batches.as_ref().map(|batches| batches.recv_timeout(patience)) {
                Some(Ok(received)) => break received,
                Some(Err(RecvTimeoutError::Timeout)) => {
                    if let Some((image, elapsed, others)) = self.in_progress.take_stalled(self.stall_after) {
                        let key = self.dataset.image(image).key();
                        return Some(Ok(Loaded::Stalled(Stall { key, elapsed, others })));
                    }
                }
                Some(Err(RecvTimeoutError::Disconnected)) | None => {
                    let (job, message) = ("collating a batch".to_owned(), "the thread ended early".to_owned());
                    break Err(DataError::Worker { job, message });
                }
            }
        };
        self.waiting_since = None;
        match received {
            Ok((batch, ends_step)) => {
                self.remaining -= u64::from(ends_step);
                Some(Ok(Loaded::Batch(Box::new(Batch { waited: start.elapsed(), ..batch }))))
            }
            Err(error) => {
                self.remaining = 0;
                Some(Err(error))
            }
        }
    }
}

impl Iterator for PairLoader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_or_stall()? {
                Ok(Loaded::Batch(batch)) => return Some(Ok(*batch)),
                Ok(Loaded::Stalled(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Drop for PairLoader {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        // Closing the channel first wakes a collator that waits for room in it.
        self.batches = None;
        if self.ended.recv_timeout(self.stall_after.min(PATIENCE)) == Err(RecvTimeoutError::Timeout) {
            return;
        }
        if let Some(collator) = self.collator.take() {
            let _ = collator.join();
        }
    }
}

/// Samples that are loaded ahead: fewer of large images, but one for each worker.
fn queue_len(options: &LoaderOptions) -> usize {
    let workers = options.workers.max(1);
    (PREFETCH_BYTES / options.processor.waiting_bytes().max(1)).clamp(workers, workers * QUEUE_PER_WORKER)
}

/// Batches that wait for the consumer, beside the one that is being collated: none if one is large.
fn batches_ahead(options: &LoaderOptions) -> usize {
    let size = options.micro_batches.size.map_or(usize::MAX, |size| size.get()).min(options.plan.batch_size);
    if size.saturating_mul(options.processor.waiting_bytes()) > PREFETCH_BYTES { 0 } else { BATCHES_AHEAD }
}

/// Loads the samples on worker threads and collates them to batches, in order, until it is cancelled.
fn collate(
    options: LoaderOptions,
    in_progress: InProgress,
    cancelled: Arc<AtomicBool>,
    ending: Sender<()>,
) -> impl Iterator<Item = Result<Collated, DataError>> {
    let jobs = jobs(options.plan, options.views, options.micro_batches, options.start_step, options.num_steps);
    let (unreadable_images, dataset, policy) =
        (options.unreadable_images.clone(), Arc::clone(&options.dataset), options.unreadable_policy);
    let batch_size =
        options.micro_batches.size.map_or(options.plan.batch_size, |size| size.get().min(options.plan.batch_size));
    let (workers, queue_len) = (options.workers.max(1), queue_len(&options));
    let options = Arc::new(options);
    let mut ahead = ReadAhead::start(&options, &cancelled, ending);
    let jobs = jobs.inspect(move |job| ahead.iter_mut().for_each(|ahead| ahead.at(job.step)));
    let mut samples = ordered_map(jobs, workers, queue_len, move |job| load(&options, &in_progress, job));
    std::iter::from_fn(move || {
        let mut batch = Batch::default();
        while !cancelled.load(Ordering::Relaxed) {
            let sample = match samples.next()? {
                Ok(Ok(sample)) => sample,
                Ok(Err(error)) | Err(error) => return Some(Err(error)),
            };
            let job = sample.job;
            if batch.pairs.is_empty() {
                (batch.step, batch.epoch, batch.view, batch.part) = (job.step, job.epoch, job.view, job.part);
            }
            // Recorded here, in the order of the samples, so that every run reports the same images at the same steps.
            for skipped in sample.unreadable {
                if unreadable_images.record_at(job.step, skipped.clone()) {
                    batch.skipped.push(skipped);
                    if let Err(error) = unreadable_images.check(&dataset, policy) {
                        return Some(Err(error));
                    }
                }
            }
            if let Image::Pixels { content, pixels } = sample.image {
                batch.loaded.push(LoadedImage { pair: batch.pairs.len(), content });
                batch.pixels.append(pixels, batch_size - batch.pairs.len());
            }
            batch.pairs.push(sample.pair);
            batch.captions.push(sample.pair.caption);
            batch.contents.push(sample.content);
            batch.tokens.push(sample.tokens);
            for (caption, tokens) in sample.more {
                batch.captions.push(caption);
                batch.tokens.push(tokens);
            }
            if job.ends_part {
                batch.is_last_of_pass = job.is_last_of_pass;
                return Some(Ok((batch, job.ends_step)));
            }
        }
        None
    })
}
