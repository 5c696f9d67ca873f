//! Batches of pairs, in an order that is a pure function of (seed, epoch, step). Worker threads read, decode and
//! process samples; a collator puts them in order and keeps a batch ready ahead of the consumer. A loader keeps no
//! state to save and computes no features.
//!
//! An unreadable image is replaced by that of the next pair of the data set. So every batch is whole, and the
//! replacement is the same in every run, with pixels or with cached features.
//!
//! This file has [`PairLoader`] and the collator. The others:
//! - `options`: what to load and how
//! - `batch`: what a loader returns
//! - `batch_plan`: how epochs are divided into batches
//! - `epoch_order`: the shuffled order of an epoch
//! - `jobs`: the samples of a load, one by one
//! - `sample`: the work on one sample
//! - `load_image`: one image from disk to a tower's input
//! - `parallel_map`: a function over a stream on several threads, with results in order
//! - `unreadable`: the record of unreadable images and the limit on them
//! - `feature_lookup`: which images have cached features

pub(crate) mod batch;
pub(crate) mod batch_plan;
pub(crate) mod epoch_order;
pub(crate) mod feature_lookup;
mod jobs;
pub(crate) mod load_image;
pub(crate) mod options;
pub(crate) mod parallel_map;
mod sample;
pub(crate) mod unreadable;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::error::DataError;
use crate::loader::batch::{Batch, LoadedImage};
use crate::loader::jobs::jobs;
use crate::loader::options::LoaderOptions;
use crate::loader::parallel_map::ordered_map;
use crate::loader::sample::{Image, load};
use crate::panics::panic_message;

/// Samples in progress per worker: enough that none waits while one slow image is decoded.
const QUEUE_PER_WORKER: usize = 8;

/// Batches that are ready beside the one in use.
const BATCHES_AHEAD: usize = 1;

/// A batch, and whether it is the last of its step.
type Collated = (Batch, bool);

/// An iterator over the batches of steps `start_step..start_step + num_steps`. It ends after its first error.
///
/// The errors are [`DataError::TooManyBad`] above the limit on unreadable images, [`DataError::Loader`] if no image is
/// readable, [`DataError::Tokenizer`] for a caption that cannot be tokenised, and [`DataError::Worker`] for a panic.
#[derive(Debug)]
pub struct PairLoader {
    batches: Option<Receiver<Result<Collated, DataError>>>,
    collator: Option<JoinHandle<()>>,
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
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        let collator = std::thread::spawn(move || {
            for batch in collate(options) {
                let failed = batch.is_err();
                // A closed channel means that the consumer is gone.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        });
        Ok(Self { batches: Some(receiver), collator: Some(collator), remaining })
    }
}

impl Iterator for PairLoader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            return None;
        }
        let start = Instant::now();
        let received = self.batches.as_ref().and_then(|batches| batches.recv().ok());
        let received = received.unwrap_or_else(|| {
            let message = match self.collator.take().map(JoinHandle::join) {
                Some(Err(panic)) => panic_message(panic.as_ref()),
                _ => "the thread ended early".to_owned(),
            };
            Err(DataError::Worker { job: "collating a batch".to_owned(), message })
        });
        match received {
            Ok((batch, ends_step)) => {
                self.remaining -= u64::from(ends_step);
                Some(Ok(Batch { waited: start.elapsed(), ..batch }))
            }
            Err(error) => {
                self.remaining = 0;
                Some(Err(error))
            }
        }
    }
}

impl Drop for PairLoader {
    fn drop(&mut self) {
        // Closing the channel first wakes a collator that waits for room in it.
        self.batches = None;
        if let Some(collator) = self.collator.take() {
            let _ = collator.join();
        }
    }
}

/// Loads the samples on worker threads and collates them to batches, in order.
fn collate(options: LoaderOptions) -> impl Iterator<Item = Result<Collated, DataError>> {
    let jobs = jobs(options.plan, options.views, options.micro_batches, options.start_step, options.num_steps);
    let (unreadable_images, dataset, policy) =
        (options.unreadable_images.clone(), Arc::clone(&options.dataset), options.unreadable_policy);
    let batch_size =
        options.micro_batches.size.map_or(options.plan.batch_size, |size| size.get().min(options.plan.batch_size));
    let (workers, queue_len) = (options.workers.max(1), options.workers.max(1) * QUEUE_PER_WORKER);
    let options = Arc::new(options);
    let mut samples = ordered_map(jobs, workers, queue_len, move |job| load(&options, job));
    std::iter::from_fn(move || {
        let mut batch = Batch::default();
        loop {
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
                if unreadable_images.record(skipped.clone()) {
                    batch.skipped.push(skipped);
                    if let Err(error) = unreadable_images.check(&dataset, policy) {
                        return Some(Err(error));
                    }
                }
            }
            if let Image::Pixels { content, pixels } = sample.image {
                if batch.pixels.is_empty() {
                    batch.pixels.reserve_exact(pixels.len() * (batch_size - batch.pairs.len()));
                }
                batch.loaded.push(LoadedImage { pair: batch.pairs.len(), content });
                batch.pixels.extend_from_slice(&pixels);
            }
            batch.pairs.push(sample.pair);
            batch.tokens.push(sample.tokens);
            if job.ends_part {
                batch.is_last_of_pass = job.is_last_of_pass;
                return Some(Ok((batch, job.ends_step)));
            }
        }
    })
}
