//! Batches of pairs, in an order that is a pure function of (seed, epoch, step): samples are read, decoded and
//! processed on worker threads, put in order, and collated ahead of the consumer.
//!
//! A bad image is replaced by the next pair of the data set, so every batch is whole and the replacement is the same in
//! every run, with pixels or with cached features.

pub(crate) mod epoch_order;
pub(crate) mod feature_lookup;
pub(crate) mod parallel_map;
pub(crate) mod unreadable;

use std::num::{NonZeroU64, NonZeroUsize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::dataset::{CaptionMode, Dataset, Pair};
use crate::error::DataError;
use crate::image_processor::ImageProcessor;
use crate::images::augment::{Augment, View};
use crate::images::decode::{Limits, decode};
use crate::images::location::ImageRef;
use crate::loader::epoch_order::Plan;
use crate::loader::feature_lookup::{ContentHash, KeptImages};
use crate::loader::parallel_map::{ordered_map, panic_message};
use crate::loader::unreadable::{BadImages, BadSamplePolicy, Skipped};
use crate::text::token_table::{TokenBatch, Tokens};
use crate::text::tokenizer::Encoded;

/// Samples begun ahead for each worker: enough that none waits while one slow image is decoded.
const QUEUE_PER_WORKER: usize = 8;

/// Whole batches kept ready beside the one in use.
const BATCHES_AHEAD: usize = 1;

/// What a [`PairLoader`] loads.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// The images and captions.
    pub dataset: Arc<Dataset>,
    /// What the pairs of an epoch are.
    pub mode: CaptionMode,
    /// How an epoch is cut; its `len` must be `dataset.num_pairs(mode)`, its `seed` also chooses captions.
    pub plan: Plan,
    /// First global step, 0-based. A resumed run passes the number of completed steps.
    pub start_step: u64,
    /// How many steps to give.
    pub num_steps: u64,
    /// In how many pieces each step comes.
    pub parts: Parts,
    /// Processing of the images.
    pub processor: Arc<ImageProcessor>,
    /// How images are varied; for training only.
    pub augment: Option<Augment>,
    /// How many views of an image there are, in turn: epoch `e` gives view `e` modulo this. 1: every epoch gives the same;
    /// `NonZeroU64::MAX`: each gives its own.
    pub views: NonZeroU64,
    /// What is kept of some images, which then need no pixels; `None` to load the pixels of all.
    pub kept: Option<Arc<dyn KeptImages>>,
    /// The captions' tokens.
    pub tokens: Tokens,
    /// How many unusable images to bear.
    pub bad: BadSamplePolicy,
    /// Where unusable images are recorded; share it between the loaders of a run.
    pub bad_images: BadImages,
    /// Threads.
    pub workers: usize,
}

/// How the batch of a step is cut for those who cannot hold it whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Pairs in each but the last; `None`: all in one.
    pub size: Option<NonZeroUsize>,
    /// Whether all parts of a step come a second time after its last one; a step of one part comes once.
    pub twice: bool,
}

/// The pairs of one step, or a part of them.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Global step, 0-based.
    pub step: u64,
    /// Epoch, 0-based.
    pub epoch: u64,
    /// Of its images.
    pub view: u64,
    /// Which part of its step it is, from 0.
    pub part: usize,
    /// Whether none of its step comes after it, in this pass over the parts.
    pub ends_pass: bool,
    /// What is in it, after replacement of bad images.
    pub pairs: Vec<Pair>,
    /// `[loaded, 3, height, width]`, flat.
    pub pixels: Vec<f32>,
    /// Which of the pairs have pixels, in order: all but those of which something is kept.
    pub loaded: Vec<LoadedImage>,
    /// One sequence a pair.
    pub tokens: TokenBatch,
    /// Images first found unusable in this batch.
    pub skipped: Vec<Skipped>,
    /// How long the consumer had to wait for it.
    pub waited: Duration,
}

/// A pair whose image was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its place among the pairs of the batch.
    pub pair: usize,
    /// To keep something of it under, where that is done.
    pub content: Option<ContentHash>,
}

/// Reads, decodes and processes one image: `[3, height, width]`, flat.
///
/// # Errors
/// [`DataError::Image`].
pub fn load_pixels(image: &ImageRef, processor: &ImageProcessor) -> Result<Vec<f32>, DataError> {
    load_view(image, processor, None)
}

/// The same in one view of the image.
///
/// # Errors
/// [`DataError::Image`].
pub fn load_view(image: &ImageRef, processor: &ImageProcessor, view: Option<View>) -> Result<Vec<f32>, DataError> {
    decode_view(&image.read()?, image, processor, view)
}

/// The same of an image whose bytes were read.
///
/// # Errors
/// [`DataError::Image`].
pub fn decode_view(
    bytes: &[u8],
    image: &ImageRef,
    processor: &ImageProcessor,
    view: Option<View>,
) -> Result<Vec<f32>, DataError> {
    let decoded = decode(bytes, &Limits::default()).map_err(|source| image.fail(source))?;
    Ok(match view {
        Some(view) => processor.process_view(&decoded, view),
        None => processor.process(&decoded),
    })
}

/// An iterator over the batches of steps `start_step..start_step + num_steps`. It ends after its first error.
#[derive(Debug)]
pub struct PairLoader {
    batches: Option<Receiver<Result<(Batch, bool), DataError>>>,
    collator: Option<JoinHandle<()>>,
    /// Steps.
    remaining: u64,
}

impl PairLoader {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`DataError::Loader`] when an epoch has no batch, or the plan is for another number of pairs.
    pub fn new(options: LoaderOptions) -> Result<Self, DataError> {
        let pairs = options.dataset.num_pairs(options.mode);
        let fail = |reason: String| Err(DataError::Loader { reason });
        if options.plan.len != pairs {
            return fail(format!("the plan is for {} pairs, the data set has {pairs}", options.plan.len));
        }
        if options.num_steps > 0 && options.plan.batches_per_epoch() == 0 {
            return fail(format!(
                "{pairs} pairs do not fill one batch of {}; lower `train.batch_size` or add data",
                options.plan.batch_size
            ));
        }
        let remaining = options.num_steps;
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        let collator = std::thread::spawn(move || {
            for batch in batches(options) {
                let failed = batch.is_err();
                // A closed channel means that the consumer has gone.
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
        let begun = Instant::now();
        let received = self.batches.as_ref().and_then(|batches| batches.recv().ok());
        let received = received.unwrap_or_else(|| {
            let message = match self.collator.take().map(JoinHandle::join) {
                Some(Err(panic)) => panic_message(panic.as_ref()),
                _ => "it ended early".to_owned(),
            };
            Err(DataError::Worker { job: "collating a batch".to_owned(), message })
        });
        match received {
            Ok((batch, ends_step)) => {
                self.remaining -= u64::from(ends_step);
                Some(Ok(Batch { waited: begun.elapsed(), ..batch }))
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
        // Closing the channel first frees a collator that waits for room in it.
        self.batches = None;
        if let Some(collator) = self.collator.take() {
            let _ = collator.join();
        }
    }
}

/// One sample of one batch.
#[derive(Clone, Copy, Debug)]
struct Job {
    step: u64,
    epoch: u64,
    /// Of the image.
    view: u64,
    index: usize,
    part: usize,
    ends_part: bool,
    ends_pass: bool,
    ends_step: bool,
}

struct Sample {
    job: Job,
    pair: Pair,
    image: Image,
    tokens: Encoded,
    /// Images found unusable on the way to this pair.
    bad: Vec<Skipped>,
}

/// What a worker made of an image.
enum Image {
    /// Something is kept of it.
    Kept,
    /// It was decoded.
    Pixels { content: Option<ContentHash>, pixels: Vec<f32> },
}

fn jobs(
    plan: Plan,
    views: NonZeroU64,
    parts: Parts,
    start_step: u64,
    num_steps: u64,
) -> impl Iterator<Item = Job> + Send + 'static {
    (start_step..start_step.saturating_add(num_steps)).flat_map(move |step| {
        let (epoch, step_in_epoch) = plan.locate(step).unwrap_or((0, 0));
        let indices = plan.batch(epoch, step_in_epoch);
        let size = parts.size.map_or(usize::MAX, NonZeroUsize::get);
        let passes = if parts.twice && indices.len() > size { 2 } else { 1 };
        (0..passes).flat_map(move |pass| {
            let (indices, last) = (indices.clone(), indices.len().saturating_sub(1));
            indices.into_iter().enumerate().map(move |(i, index)| Job {
                step,
                epoch,
                view: epoch % views,
                index,
                part: i / size,
                ends_part: i == last || (i + 1) % size == 0,
                ends_pass: i == last,
                ends_step: i == last && pass + 1 == passes,
            })
        })
    })
}

/// Batches, each with whether it is the last of its step.
fn batches(options: LoaderOptions) -> impl Iterator<Item = Result<(Batch, bool), DataError>> {
    let jobs = jobs(options.plan, options.views, options.parts, options.start_step, options.num_steps);
    let (bad_images, dataset, policy) = (options.bad_images.clone(), Arc::clone(&options.dataset), options.bad);
    let batch_size = options.parts.size.map_or(options.plan.batch_size, |size| size.get().min(options.plan.batch_size));
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
            if batch.pairs.is_empty() {
                let job = sample.job;
                (batch.step, batch.epoch, batch.view, batch.part) = (job.step, job.epoch, job.view, job.part);
            }
            // Recorded here, in the order of the samples, so that runs report the same images at the same steps.
            for skipped in sample.bad {
                if bad_images.record(skipped.clone()) {
                    batch.skipped.push(skipped);
                    if let Err(error) = bad_images.check(&dataset, policy) {
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
            if sample.job.ends_part {
                batch.ends_pass = sample.job.ends_pass;
                return Some(Ok((batch, sample.job.ends_step)));
            }
        }
    })
}

/// The pair of a job, or the first usable one after it in data-set order.
fn load(options: &LoaderOptions, job: Job) -> Result<Sample, DataError> {
    let dataset = &options.dataset;
    let mut bad = Vec::new();
    for offset in 0..options.plan.len {
        let index = (job.index + offset) % options.plan.len;
        let pair = dataset.pair(options.mode, index, options.plan.seed, job.epoch);
        // Recorded images need no second reading: the outcome is the same.
        if bad.iter().any(|skipped: &Skipped| skipped.image == pair.image) || options.bad_images.contains(pair.image) {
            continue;
        }
        let loaded = catch_unwind(AssertUnwindSafe(|| load_image(options, pair.image, job))).map_err(|panic| {
            let key = dataset.images[pair.image].key();
            DataError::Worker { job: format!("image `{key}`"), message: panic_message(panic.as_ref()) }
        })?;
        match loaded {
            Ok(image) => {
                let tokens = options.tokens.encode(dataset, pair.caption, options.plan.seed, job.epoch)?;
                return Ok(Sample { job, pair, image, tokens, bad });
            }
            Err(DataError::Image { key, source }) => {
                bad.push(Skipped { image: pair.image, key, reason: source.to_string() });
                // So many in a row are over any sensible limit: stop before reading the rest of the data set.
                if over_limit(options, bad.len()) {
                    return Err(too_many(options, bad));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(too_many(options, bad))
}

/// The pixels of an image, unless something is kept of it.
fn load_image(options: &LoaderOptions, index: usize, job: Job) -> Result<Image, DataError> {
    let image = &options.dataset.images[index];
    let view = options.augment.map(|augment| augment.view(options.plan.seed, job.view, index));
    let pixels = |bytes: &[u8]| decode_view(bytes, image, &options.processor, view);
    let Some(kept) = &options.kept else {
        return Ok(Image::Pixels { content: None, pixels: pixels(&image.read()?)? });
    };
    if kept.knows(index, job.view) {
        return Ok(Image::Kept);
    }
    let bytes = image.read()?;
    match kept.find(index, job.view, &bytes) {
        Ok(()) => Ok(Image::Kept),
        Err(content) => Ok(Image::Pixels { content: Some(content), pixels: pixels(&bytes)? }),
    }
}

fn over_limit(options: &LoaderOptions, bad: usize) -> bool {
    bad as f64 > options.bad.max_bad_fraction * options.dataset.images.len() as f64
}

/// The error for a run of bad images that alone is over the limit, or that leaves nothing to use.
fn too_many(options: &LoaderOptions, bad: Vec<Skipped>) -> DataError {
    for skipped in bad {
        options.bad_images.record(skipped);
    }
    match options.bad_images.check(&options.dataset, options.bad) {
        Err(error) => error,
        Ok(()) => {
            DataError::Loader { reason: format!("none of the {} images can be used", options.dataset.images.len()) }
        }
    }
}
