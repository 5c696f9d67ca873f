//! What the feature cache will take on disk, and what it holds already.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use crate::commands::plan::report::CachePlan;
use crate::error::TrainError;
use crate::eval::evaluation::Evaluation;
use crate::features::image_index::{ImageList, Views, training_views};
use crate::features::prefixes::{ImagePrefix, Prefixes};
use crate::training::run::Run;

/// The names of the teacher's entries.
const TEACHER_IMAGES: &str = "images of the teacher";
const TEACHER_CAPTIONS: &str = "captions of the teacher";

/// Cached images, and cached captions, of the towers that the stage of `run` locks. `dir`: the cache of the real run.
///
/// # Errors
/// [`TrainError::Read`] or [`TrainError::Write`] when the cache cannot be opened.
pub(super) fn of_stage(run: &Run, dir: &Path) -> Result<Vec<CachePlan>, TrainError> {
    let entry = |what, rows, row_bytes, path: &Path| entry(what, rows, row_bytes, dir, path);
    let mut entries = Vec::new();
    if let Some(features) = &run.locked.towers.images
        && let Some((_, path)) = features.size()
    {
        let (trained, mut evaluated) = (image_files(&*run.data.dataset), HashSet::new());
        run.evaluations.iter().for_each(|evaluation| evaluated.extend(image_files(&*evaluation.images())));
        // Augmented views are rows of their own.
        let is_shared = training_views(&run.config, &run.learner.stages.at(run.position.step).training) == Views::One;
        let also_trained = if is_shared { evaluated.intersection(&trained).count() } else { 0 };
        let rows = training_images(run) + evaluated.len() - also_trained;
        entries.push(entry("images", rows, features.row_bytes(), path));
    }
    if let Some(features) = &run.locked.towers.texts
        && let Some(((_, path), row_bytes)) = features.size().zip(features.row_bytes())
    {
        let mut texts = training_texts(run);
        texts.extend(run.evaluations.iter().flat_map(Evaluation::texts).map(|text| hash_of(text.as_str())));
        entries.push(entry("captions", texts.len(), row_bytes, path));
    }
    entries.extend(of_prefixes(run, dir)?);
    Ok(entries)
}

/// What the locked layers of towers compute that train in part, for the images and the captions of the training data.
fn of_prefixes(run: &Run, dir: &Path) -> Result<Vec<CachePlan>, TrainError> {
    let Prefixes { images, texts, .. } = &run.locked.prefixes;
    let mut entries = Vec::new();
    if let Some(ImagePrefix { states, .. }) = images
        && let Some((_, path)) = states.size()
    {
        entries.push(entry("states of images", training_images(run), states.row_bytes(), dir, path));
    }
    if let Some(prefix) = texts {
        let rows = training_captions(run) as u64;
        let present = prefix.rows_in(dir)?.min(rows);
        entries.push(CachePlan { what: "states of captions", rows, present, bytes: prefix.bytes });
    }
    Ok(entries)
}

/// Images and captions of the training data that the teacher of `run` caches; none without a cache on disk.
pub(super) fn of_teacher(run: &Run, dir: &Path) -> Vec<CachePlan> {
    let mut entries = Vec::new();
    let Some(teacher) = &run.teacher else { return entries };
    if let Some((_, path)) = teacher.images.size() {
        let (rows, row_bytes) = (run.data.dataset.num_images(), teacher.images.row_bytes());
        entries.push(entry(TEACHER_IMAGES, rows, row_bytes, dir, path));
    }
    if let Some(((_, path), row_bytes)) = teacher.texts.size().zip(teacher.texts.row_bytes()) {
        entries.push(entry(TEACHER_CAPTIONS, training_captions(run), row_bytes, dir, path));
    }
    entries
}

/// Seconds that `pairs` pairs of `run` take to compute the features of the teacher that `cache` lacks, at the speed of
/// those that it has computed so far.
pub(super) fn seconds_of_teacher(run: &Run, cache: &[CachePlan], pairs: u64) -> f64 {
    let Some(teacher) = &run.teacher else { return 0.0 };
    let computed = teacher.computed();
    let missing = |what: &str| {
        let entry = cache.iter().find(|entry| entry.what == what);
        entry.map_or(1.0, |entry| 1.0 - entry.present as f64 / entry.rows.max(1) as f64)
    };
    let captions = pairs.saturating_mul(run.config.caption_slots().count as u64);
    [
        (TEACHER_IMAGES, run.data.dataset.num_images(), pairs, computed.images),
        (TEACHER_CAPTIONS, training_captions(run), captions, computed.captions),
    ]
    .into_iter()
    .zip(computed.seconds)
    .map(|((what, all, seen, count), seconds)| {
        (all as u64).min(seen) as f64 * missing(what) * seconds / count.max(1) as f64
    })
    .sum()
}

/// An entry of `rows` rows in the file that is named like `path` in `dir`. `row_bytes`: of the values of a row, and of
/// its record.
pub(super) fn entry(
    what: &'static str,
    rows: usize,
    [values, record]: [usize; 2],
    dir: &Path,
    path: &Path,
) -> CachePlan {
    // The name of a file is the key of its features, and so the same in every directory.
    let file = path.file_name().and_then(|name| fs::metadata(dir.join(name)).ok());
    let present = file.map_or(0, |file| file.len() / values.max(1) as u64);
    let rows = rows as u64;
    CachePlan { what, rows, present: present.min(rows), bytes: rows * (values + record) as u64 }
}

/// Images of the training data times their cached views.
pub(super) fn training_images(run: &Run) -> usize {
    let training = run.learner.stages.at(run.position.step).training;
    let views = run.locked.prefixes.images.as_ref().map(|prefix| prefix.set.views());
    run.data.dataset.num_images() * views.unwrap_or_else(|| training_views(&run.config, &training)).count()
}

/// Distinct texts of the training data: captions, or what templates make of them.
pub(super) fn training_captions(run: &Run) -> usize {
    training_texts(run).len()
}

/// Hashes of the texts of the training data.
pub(super) fn training_texts(run: &Run) -> HashSet<u64> {
    let dataset = &run.data.dataset;
    (0..dataset.num_captions()).flat_map(|caption| dataset.texts(caption)).map(|text| hash_of(&*text)).collect()
}

/// Hashes of the files, or places in files, of some images.
pub(super) fn image_files(images: &dyn ImageList) -> HashSet<u64> {
    (0..images.num_images()).map(|image| hash_of(&images.image(image))).collect()
}

pub(super) fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
