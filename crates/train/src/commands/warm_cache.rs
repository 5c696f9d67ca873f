//! `dualenc cache`: the features of the locked towers, ahead of training.

use std::path::PathBuf;
use std::sync::Arc;

use dualenc_data::{TokenBatch, Tokenizer};

use crate::config::RunConfig;
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::evaluation::Evaluation;
use crate::events::{Event, Observer};
use crate::features::image_index::{ImageList, Views, views_of};
use crate::features::images::ImageFeatures;
use crate::features::key::Counts;
use crate::features::locked_towers::{LockedFingerprints, LockedTowers, cache_of};
use crate::features::texts::TextFeatures;
use crate::models::load::Assembly;
use crate::stop_flag::StopFlag;

/// Captions between two looks at the signal.
const CAPTIONS_AT_ONCE: usize = 1024;

/// What is kept of one locked tower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// `images` or `captions`.
    pub what: &'static str,
    /// Images, each in its views, or captions of the training data and of all evaluations.
    pub total: usize,
    /// Of them: computed now, and kept before.
    pub counts: Counts,
    /// Images that cannot be used.
    pub bad: usize,
    /// Of the values of the whole store.
    pub bytes: u64,
    /// The file of the values.
    pub path: PathBuf,
}

/// Computes what the cache of `config` lacks: the features of the training data and of every evaluation, for each locked
/// tower. What is there when a signal comes is kept.
///
/// # Errors
/// When no tower is locked or the cache is off, and as training's, before its first step.
pub fn fill(config: &RunConfig, stop: &StopFlag, observer: &mut dyn Observer) -> Result<Vec<Filled>, TrainError> {
    let refuse = |why: &str| Err(TrainError::Usage(format!("there is nothing to cache: {why}")));
    if !config.cache.enabled {
        return refuse("`cache.enabled` is false");
    }
    let first = &config.stages()[0];
    if first.training.image.any() && first.training.text.any() {
        return refuse(&format!("`model.lock` is `{}`, no tower is locked", first.lock));
    }
    let compute = Compute::select(&config.run.device, config.run.threads)?.computing_as(&config.run)?;
    let workers = config.data.workers.unwrap_or(compute.threads).max(1);
    let dataset = Arc::new(config.data.train.read()?);
    let evaluations = Evaluation::open_all(config)?;
    let assembly = Assembly::from_config(config, &compute, observer)?;
    // What the first stage locks: without gradients, a tower that trains could not be told from a locked one.
    let model = &first.training.of(assembly.model)?;
    let locked = LockedTowers::new(model, &assembly.processor, &compute, workers, stop)
        .kept_in(cache_of(config), &LockedFingerprints::of(model)?)?;
    let mut filled = Vec::new();
    if let Some(images) = &locked.images {
        let training = (dataset.clone() as Arc<dyn ImageList>, views_of(config, &first.training));
        let lists =
            std::iter::once(training).chain(evaluations.iter().map(|evaluation| (evaluation.images(), Views::One)));
        filled.push(fill_images(images, lists.collect(), observer)?);
    }
    if let Some(texts) = &locked.texts {
        let mut captions: Vec<String> = dataset.captions.iter().map(|caption| caption.text.clone()).collect();
        captions.extend(evaluations.iter().flat_map(Evaluation::texts));
        filled.push(fill_texts(texts, &captions, &assembly.tokenizer, stop, observer)?);
    }
    Ok(filled)
}

fn fill_images(
    features: &ImageFeatures,
    lists: Vec<(Arc<dyn ImageList>, Views)>,
    observer: &mut dyn Observer,
) -> Result<Filled, TrainError> {
    let (mut counts, mut bad, mut before) = (Counts::default(), 0, 0);
    let total = lists.iter().map(|(list, views)| list.images().len() * views.count()).sum();
    for (list, views) in lists {
        let set = features.set(list, views);
        let (new, skipped) = features.fill(&set, |done| {
            observer.on(Event::Work { name: "features of the locked image tower", done: before + done, total });
        })?;
        skipped.iter().for_each(|skipped| observer.on(Event::Skipped(skipped)));
        counts += new;
        bad += skipped.len();
        before += set.len() * views.count();
    }
    Ok(Filled { bad, ..described("images", total, counts, features.size()) })
}

fn fill_texts(
    features: &TextFeatures,
    captions: &[String],
    tokenizer: &Tokenizer,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Filled, TrainError> {
    let (mut counts, mut done, total) = (Counts::default(), 0, captions.len());
    for captions in captions.chunks(CAPTIONS_AT_ONCE) {
        let mut tokens = TokenBatch::default();
        for caption in captions {
            tokens.push(tokenizer.encode(caption)?);
        }
        counts += features.fill(&tokens)?;
        done += captions.len();
        observer.on(Event::Work { name: "features of the locked text tower", done, total });
        if let Some(signal) = stop.signal() {
            return Err(TrainError::Stopped { signal });
        }
    }
    Ok(described("captions", total, counts, features.size()))
}

fn described(what: &'static str, total: usize, counts: Counts, size: Option<(u64, &std::path::Path)>) -> Filled {
    let (bytes, path) = size.map_or((0, PathBuf::new()), |(bytes, path)| (bytes, path.to_owned()));
    Filled { what, total, counts, bad: 0, bytes, path }
}
