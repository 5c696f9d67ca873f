//! `dualenc cache`: computes the features of the locked towers and of the teacher ahead of training.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_data::{Dataset, TokenBatch, Tokenizer, counted};
use dualenc_model::{Tower, TowerTraining};

use crate::config::RunConfig;
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::evaluation::Evaluation;
use crate::events::{Event, Observer};
use crate::features::cache_counts::CacheCounts;
use crate::features::cut_texts::{ADVICE_OF_CONFIG, cut_note};
use crate::features::image_index::{ImageList, Views, training_views};
use crate::features::images::ImageFeatures;
use crate::features::locked_towers::{LockedFingerprints, LockedTowers, check_cache_dir, feature_cache_of};
use crate::features::prefixes::{ImagePrefix, Inputs, Prefixes, TextPrefix};
use crate::features::texts::{TextFeatures, content_hash};
use crate::models::load::{LoadedModel, WithoutNotes};
use crate::models::text_pool::settled;
use crate::pairs::Pairs;
use crate::stop_flag::StopFlag;
use crate::teacher::loaded::LoadedTeacher;

/// Captions between two checks of the stop flag.
const CAPTIONS_PER_CHECK: usize = 1024;

/// The cached features of one locked tower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmedCache {
    /// `images` or `captions`; with ` of the teacher` for those of `[train.teacher]`, and with `states of ` for what
    /// the locked layers of a tower compute that trains in part.
    pub what: &'static str,
    /// Captions, or images times views, of the training data and all evaluations.
    pub total: usize,
    /// How many different ones were computed now, and how many were already cached.
    pub counts: CacheCounts,
    /// Captions with the tokens of an earlier one, and images with the content of an earlier one, times views.
    pub repeats: usize,
    /// Images that cannot be used.
    pub bad: usize,
    /// Size of the file of values, in bytes.
    pub bytes: u64,
    /// The file of values.
    pub path: PathBuf,
}

/// Computes the features of the training data and every evaluation that are not cached yet, for each locked tower, and
/// those of the training data for the teacher. When `stop` is set, features computed so far stay cached.
///
/// # Errors
/// [`TrainError::Usage`] when no tower is locked and there is no teacher, or the cache is off; [`TrainError::Stopped`]
/// when `stop` is set; and every error that training can return before its first step.
pub fn warm_cache(
    config: &RunConfig,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Vec<WarmedCache>, TrainError> {
    let refuse = |why: &str| Err(TrainError::Usage(format!("there is nothing to cache: {why}")));
    if !config.cache.enabled {
        return refuse("`cache.enabled` is false");
    }
    let first = &config.stages()[0];
    let caches = |tower, training: TowerTraining| !training.any() || config.caches_prefix(tower, &first.training);
    let caches_some = caches(Tower::Image, first.training.image) || caches(Tower::Text, first.training.text);
    if !caches_some && config.train.teacher.is_none() {
        if [first.training.image, first.training.text].iter().any(|training| training.is_partial()) {
            return refuse(
                "no tower is locked as a whole, there is no teacher, and what the locked layers of a tower compute is \
                 not cached with this config; set `cache.prefix = true`, and with `data.augment` also `cache.views`",
            );
        }
        return refuse(&format!("`model.lock` is `{}`, no tower is locked, and there is no teacher", first.lock));
    }
    if config.feature_sides() == [true; 2] {
        return refuse("the data are features already");
    }
    check_cache_dir(config)?;
    let compute = Compute::select(config.run.device.first(), config.run.threads)?.computing_as(&config.run)?;
    let workers = config.data.workers.unwrap_or(compute.threads).max(1);
    let Pairs { train: dataset, validation } = Pairs::read(config)?;
    let evaluations = Evaluation::open_all(config, validation.as_ref())?;
    let loaded = LoadedModel::from_config(&settled(config)?, &compute, &mut WithoutNotes(observer))?;
    // Apply the locks of the first stage: `LockedTowers` takes a tower without gradients for a locked one.
    let model = &first.training.of(loaded.model)?;
    let locked = LockedTowers::new(model, &loaded.processor, &compute, workers, stop)
        .with_cache(feature_cache_of(config), &LockedFingerprints::of(model)?)?;
    let mut warmed = Vec::new();
    if let Some(images) = locked.images.as_ref().filter(|_| !model.image_tower.is_absent()) {
        let training = (dataset.clone() as Arc<dyn ImageList>, training_views(config, &first.training));
        let lists =
            std::iter::once(training).chain(evaluations.iter().map(|evaluation| (evaluation.images(), Views::One)));
        warmed.push(warm_images(("images", "features of the locked image tower"), images, lists.collect(), observer)?);
    }
    if let Some(texts) = locked.texts.as_ref().filter(|_| !model.text_tower.is_absent()) {
        let mut captions = texts_of(&dataset);
        captions.extend(evaluations.iter().flat_map(Evaluation::texts));
        warmed.push(warm_texts(
            ("captions", "features of the locked text tower"),
            texts,
            &captions,
            &loaded.tokenizer,
            stop,
            observer,
        )?);
    }
    let tokenizer = &loaded.tokenizer;
    let inputs = Inputs { dataset: &dataset, processor: &loaded.processor, tokenizer, workers };
    let prefixes = Prefixes::of(model, config, &first.training, &inputs, &compute, stop)?;
    warmed.extend(warm_prefixes(prefixes, (&dataset, tokenizer), stop, observer)?);
    if let Some(teacher) = LoadedTeacher::of(config, &compute, observer)? {
        teacher.check_dataset(&dataset)?;
        let cache = feature_cache_of(config);
        let cache = cache.as_ref().map(|(dir, dtype)| (dir.as_path(), *dtype));
        let (images, texts) = teacher.features(&compute, workers, cache)?;
        let list = (dataset.clone() as Arc<dyn ImageList>, Views::One);
        warmed.push(warm_images(
            ("images of the teacher", "features of the teacher's image tower"),
            &images.with_stop_flag(stop),
            vec![list],
            observer,
        )?);
        let captions = texts_of(&dataset);
        warmed.push(warm_texts(
            ("captions of the teacher", "features of the teacher's text tower"),
            &texts,
            &captions,
            &teacher.tokenizer,
            stop,
            observer,
        )?);
    }
    if warmed.is_empty() {
        return refuse("no tower is locked, the locked layers of none are cached, and there is no teacher");
    }
    Ok(warmed)
}

/// What the locked layers of towers compute that train in part, for the training data: evaluations run towers whole.
fn warm_prefixes(
    prefixes: Prefixes,
    (dataset, tokenizer): (&Arc<Dataset>, &Tokenizer),
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Vec<WarmedCache>, TrainError> {
    let Prefixes { images, texts, notes } = prefixes;
    notes.into_iter().for_each(|note| observer.on(Event::Note(note)));
    let mut warmed = Vec::new();
    if let Some(ImagePrefix { states, set, .. }) = images {
        let list = (dataset.clone() as Arc<dyn ImageList>, set.views());
        let names = ("states of images", "locked layers of the image tower");
        warmed.push(warm_images(names, &states, vec![list], observer)?);
    }
    if let Some(TextPrefix { states, .. }) = texts {
        let captions = texts_of(dataset);
        let names = ("states of captions", "locked layers of the text tower");
        let filled = fill_texts(names.1, |tokens| states.fill(tokens), &captions, tokenizer, stop, observer)?;
        warmed.push(summary(names.0, captions.len(), filled, Some(states.size())));
    }
    Ok(warmed)
}

/// Every text that the captions of `dataset` can stand for: with templates, several each.
fn texts_of(dataset: &Dataset) -> Vec<String> {
    (0..dataset.num_captions()).flat_map(|caption| dataset.texts(caption)).map(Cow::into_owned).collect()
}

fn warm_images(
    (what, name): (&'static str, &str),
    features: &ImageFeatures,
    lists: Vec<(Arc<dyn ImageList>, Views)>,
    observer: &mut dyn Observer,
) -> Result<WarmedCache, TrainError> {
    let (mut computed, mut bad, mut before, mut usable_views) = (0, 0, 0, 0);
    let mut rows = HashSet::new();
    let total = lists.iter().map(|(list, views)| list.num_images() * views.count()).sum();
    for (list, views) in lists {
        let set = features.set(list, views);
        let (new, skipped) = features.fill(&set, |done| {
            observer.on(Event::Work { name, done: before + done, total });
        })?;
        skipped.iter().for_each(|image| {
            observer.on(Event::Skipped { image, of: "the training data", listed_in: None });
        });
        computed += new.computed;
        bad += skipped.len();
        let usable = set.usable();
        usable_views += usable.len() * views.count();
        for view in 0..views.count() as u64 {
            rows.extend(usable.iter().filter_map(|&image| set.row(image, view)));
        }
        before += set.len() * views.count();
    }
    // Images that were computed twice, since they were read at the same time, were computed nevertheless.
    let kept = rows.len().saturating_sub(computed);
    let filled = Filled {
        counts: CacheCounts { computed, kept },
        repeats: usable_views.saturating_sub(computed.max(rows.len())),
    };
    Ok(WarmedCache { bad, ..summary(what, total, filled, features.size()) })
}

fn warm_texts(
    (what, name): (&'static str, &str),
    features: &TextFeatures,
    captions: &[String],
    tokenizer: &Tokenizer,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<WarmedCache, TrainError> {
    let filled = fill_texts(name, |tokens| features.fill(tokens), captions, tokenizer, stop, observer)?;
    Ok(summary(what, captions.len(), filled, features.size()))
}

/// What filling a cache found and did.
#[derive(Default)]
struct Filled {
    counts: CacheCounts,
    repeats: usize,
}

/// Computes what `fill` lacks of the tokens of `captions`, each once.
fn fill_texts(
    name: &str,
    fill: impl Fn(&TokenBatch) -> Result<CacheCounts, TrainError>,
    captions: &[String],
    tokenizer: &Tokenizer,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Filled, TrainError> {
    let (mut filled, mut done, total) = (Filled::default(), 0, captions.len());
    let (mut known, mut cut) = (HashSet::new(), 0);
    for captions in captions.chunks(CAPTIONS_PER_CHECK) {
        let mut tokens = TokenBatch::default();
        for caption in captions {
            let encoded = tokenizer.encode(caption)?;
            cut += usize::from(encoded.cut);
            if known.insert(content_hash(&encoded.ids, &encoded.type_ids)) {
                tokens.push(encoded);
            } else {
                filled.repeats += 1;
            }
        }
        filled.counts += fill(&tokens)?;
        done += captions.len();
        observer.on(Event::Work { name, done, total });
        if let Some(signal) = stop.signal() {
            return Err(TrainError::Stopped { signal });
        }
    }
    if cut > 0 {
        let note = cut_note(cut, &counted(total, "text"), tokenizer.max_tokens(), ADVICE_OF_CONFIG);
        observer.on(Event::Note(format!("{name}: {note}")));
    }
    Ok(filled)
}

fn summary(what: &'static str, total: usize, filled: Filled, size: Option<(u64, &Path)>) -> WarmedCache {
    let Filled { counts, repeats } = filled;
    let (bytes, path) = size.map_or((0, PathBuf::new()), |(bytes, path)| (bytes, path.to_owned()));
    WarmedCache { what, total, counts, repeats, bad: 0, bytes, path }
}
