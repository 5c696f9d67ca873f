//! The work of one worker thread: the image and the tokens of one pair, or of the next pair with a readable image.

use crate::dataset::Pair;
use crate::error::DataError;
use crate::image_processor::processed::ProcessedImages;
use crate::loader::feature_lookup::{ContentHash, ContentId, content_id};
use crate::loader::in_progress::InProgress;
use crate::loader::jobs::Job;
use crate::loader::load_image::decode_view;
use crate::loader::options::LoaderOptions;
use crate::panics::catch_quietly;
use crate::skipped::Skipped;
use crate::text::tokenizer::Encoded;

/// A loaded pair.
pub(crate) struct Sample {
    pub(crate) job: Job,
    pub(crate) pair: Pair,
    pub(crate) content: ContentId,
    pub(crate) image: Image,
    /// Of the pair's caption.
    pub(crate) tokens: Encoded,
    /// The captions of the pair after the first, with their tokens.
    pub(crate) more: Vec<(usize, Encoded)>,
    /// Images found unreadable on the way to this pair.
    pub(crate) unreadable: Vec<Skipped>,
}

/// The image of a loaded pair.
pub(crate) enum Image {
    /// Its features are cached.
    Cached,
    /// It was decoded. `content` is the hash to cache its features under.
    Pixels { content: Option<ContentHash>, pixels: ProcessedImages },
}

/// Loads the pair of a job, or the first readable one after it in data-set order.
pub(crate) fn load(options: &LoaderOptions, in_progress: &InProgress, job: Job) -> Result<Sample, DataError> {
    let dataset = &options.dataset;
    let mut unreadable = Vec::new();
    for offset in 0..options.plan.len {
        let index = (job.index + offset) % options.plan.len;
        let seed = options.plan.seed;
        let (pair, more) = dataset.sample(options.mode, options.slots, index, seed, job.epoch);
        // Recorded images need no second reading: the outcome is the same.
        let is_known = unreadable.iter().any(|skipped: &Skipped| skipped.image == pair.image);
        if is_known || options.unreadable_images.contains(pair.image) {
            continue;
        }
        let loading = in_progress.enter(pair.image);
        let loaded = catch_quietly(|| {
            let (content, image) = load_image(options, pair.image, job)?;
            let tokens = options.tokens.encode(dataset, pair.caption, seed, job.epoch)?;
            let encode = |(slot, &caption): (usize, &usize)| {
                Ok((caption, options.tokens.encode_slot(dataset, caption, seed, job.epoch, slot + 1)?))
            };
            Ok((content, image, tokens, more.iter().enumerate().map(encode).collect::<Result<_, DataError>>()?))
        });
        drop(loading);
        let loaded = loaded.map_err(|panic| {
            let key = dataset.image(pair.image).key();
            DataError::Worker { job: format!("image `{key}`"), message: panic.to_string() }
        })?;
        match loaded {
            Ok((content, image, tokens, more)) => {
                return Ok(Sample { job, pair, content, image, tokens, more, unreadable });
            }
            Err(DataError::Image { key, source }) => {
                unreadable.push(Skipped::new(pair.image, key, &source));
                // This run of images alone is over the limit: stop before reading the rest of the data set.
                if is_over_limit(options, unreadable.len()) {
                    return Err(too_many(options, job.step, unreadable));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(too_many(options, job.step, unreadable))
}

/// Loads the pixels of an image, unless its features are cached.
fn load_image(options: &LoaderOptions, index: usize, job: Job) -> Result<(ContentId, Image), DataError> {
    if let Some(content) = options.cached_features.as_ref().and_then(|cache| cache.known(index, job.view)) {
        return Ok((content, Image::Cached));
    }
    let image = &options.dataset.image(index);
    let view = options.augment.map(|augment| augment.view(options.plan.seed, job.view, index));
    let pixels = |bytes: &[u8]| decode_view(bytes, image, &options.processor, view);
    let bytes = image.read()?;
    let content = *blake3::hash(&bytes).as_bytes();
    let cached = options.cached_features.as_ref().map(|cache| cache.find(index, job.view, &content));
    let image = match cached {
        Some(Ok(())) => Image::Cached,
        Some(Err(hash)) => Image::Pixels { content: Some(hash), pixels: pixels(&bytes)? },
        None => Image::Pixels { content: None, pixels: pixels(&bytes)? },
    };
    Ok((content_id(&content), image))
}

fn is_over_limit(options: &LoaderOptions, unreadable: usize) -> bool {
    unreadable as f64 > options.unreadable_policy.max_bad_fraction * options.dataset.num_images() as f64
}

/// The error for a run of unreadable images that alone is over the limit, or that leaves no image to use.
fn too_many(options: &LoaderOptions, step: u64, unreadable: Vec<Skipped>) -> DataError {
    for skipped in unreadable {
        options.unreadable_images.record_at(step, skipped);
    }
    match options.unreadable_images.check(&options.dataset, options.unreadable_policy) {
        Err(error) => error,
        Ok(()) => {
            DataError::Loader { reason: format!("none of the {} images can be used", options.dataset.num_images()) }
        }
    }
}
