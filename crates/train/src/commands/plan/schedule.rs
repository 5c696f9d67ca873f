//! Evaluations and checkpoints: how often they run, and how long each takes.

use std::collections::HashSet;
use std::sync::Arc;

use crate::commands::plan::budget::{Budget, Laps};
use crate::commands::plan::cache_size::{hash_of, image_files, training_texts};
use crate::commands::plan::loading::spread;
use crate::commands::plan::report::{CachePlan, CheckpointPlan, EvaluationPlan};
use crate::config::RunConfig;
use crate::error::TrainError;
use crate::eval::encoder::Encoder;
use crate::eval::evaluation::Evaluation;
use crate::events::{Event, Observer};
use crate::features::cut_texts::CutTexts;
use crate::features::image_index::ImageList;
use crate::training::run::Run;

/// Images of a sample: two chunks of `features::images` on each of two threads.
pub(super) const IMAGES: usize = 64;

/// Images of a sample where an image takes long: one chunk.
pub(super) const FEW_IMAGES: usize = 16;

/// Texts of a sample.
pub(super) const TEXTS: usize = 256;

/// Texts of a sample where time is short.
pub(super) const FEW_TEXTS: usize = 32;

/// Largest checkpoint that is written to the temporary directory, which may be in memory.
const LARGEST_CHECKPOINT: u64 = 512 << 20;

/// The features of locked towers that an evaluation need not compute.
pub(super) struct Known {
    /// Hashes of image files and of texts with features that another part of the run computes.
    seen: [HashSet<u64>; 2],
    /// Of images and of texts, the fraction that the cache of the real run holds.
    present: [f64; 2],
}

impl Known {
    /// The features of the training data, and those that the cache holds by `cache`.
    pub fn of(run: &Run, cache: &[CachePlan]) -> Self {
        let present = ["images", "captions"].map(|what| {
            let entry = cache.iter().find(|entry| entry.what == what);
            entry.map_or(0.0, |entry| entry.present as f64 / entry.rows.max(1) as f64)
        });
        let is_shared = run.config.data.augment.is_none();
        let images = if is_shared { image_files(&*run.data.dataset) } else { HashSet::new() };
        Self { seen: [images, training_texts(run)], present }
    }

    /// The fractions of some images and of some texts that have to be computed. They are known from then on.
    fn missing(&mut self, files: HashSet<u64>, texts: HashSet<u64>) -> [f64; 2] {
        let mut found = [0.0; 2];
        for (side, new) in [files, texts].into_iter().enumerate() {
            let fresh = new.difference(&self.seen[side]).count();
            found[side] = (1.0 - self.present[side]) * fresh as f64 / new.len().max(1) as f64;
            self.seen[side].extend(new);
        }
        found
    }
}

/// Estimates each evaluation from a sample of its images and texts. `seconds_per_image`: a rough figure.
///
/// # Errors
/// Those of the encoder.
pub(super) fn evaluations(
    run: &Run,
    seconds_per_image: f64,
    mut known: Known,
    budget: &Budget,
    observer: &mut dyn Observer,
) -> Result<Vec<EvaluationPlan>, TrainError> {
    let model = run.learner.evaluation_model();
    let total = run.evaluations.len();
    let mut plans = Vec::new();
    for (done, evaluation) in run.evaluations.iter().enumerate() {
        budget.check_stop()?;
        observer.on(Event::Work { name: "samples of the evaluations", done, total });
        let encoder = Encoder {
            model: &model,
            tokenizer: &run.data.tokenizer,
            locked: &run.locked.towers,
            compute: &run.compute,
            workers: run.data.workers,
            stop: &run.stop,
            batch_size: evaluation.batch_size,
            others: None,
            cut: CutTexts::default(),
        };
        let share = budget.left() / (total - done) as f64;
        let is_short = seconds_per_image * 2.0 * IMAGES as f64 > share;
        let list = evaluation.images();
        let sample = spread(list.num_images(), if is_short { FEW_IMAGES } else { IMAGES }).map(|at| list.image(at));
        let sample: Arc<dyn ImageList> = Arc::new(sample.collect::<Vec<_>>());
        let texts = evaluation.texts();
        let text_sample = spread(texts.len(), if is_short { FEW_TEXTS } else { TEXTS }).map(|at| texts[at].as_str());
        let text_sample: Vec<&str> = text_sample.collect();
        let files = image_files(&*list);
        let missing = known.missing(files, texts.iter().map(|text| hash_of(text.as_str())).collect());
        let mut laps = Laps::start();
        // Of all images and of all texts.
        let mut seconds = [[0.0; 2]; 2];
        // The second time, the features of locked towers are there.
        for seconds in &mut seconds {
            encoder.images(Arc::clone(&sample), &run.data.processor, |_| {})?;
            let images = laps.lap() / sample.num_images().max(1) as f64;
            encoder.texts(&text_sample, |_| {})?;
            let of_texts = laps.lap() / text_sample.len().max(1) as f64;
            *seconds = [images * list.num_images() as f64, of_texts * texts.len() as f64];
        }
        let [computed, read] = seconds;
        let first = (0..2).map(|side| missing[side] * computed[side] + (1.0 - missing[side]) * read[side]);
        let later_seconds = read.iter().sum();
        plans.push(EvaluationPlan {
            name: evaluation.name.clone(),
            images: list.num_images(),
            texts: texts.len(),
            runs: runs(evaluation, run.position.steps_per_epoch, run.position.total_steps),
            first_seconds: first.sum::<f64>().max(later_seconds),
            later_seconds,
        });
    }
    Ok(plans)
}

/// How often an evaluation is due.
fn runs(evaluation: &Evaluation, steps_per_epoch: u64, total_steps: u64) -> u64 {
    (0..=total_steps).filter(|step| evaluation.is_due(*step, steps_per_epoch, total_steps)).count() as u64
}

/// How many checkpoints the run writes and, if it is small enough, how long one takes. `bytes`: of one.
///
/// # Errors
/// Those of [`Run::save`].
pub(super) fn checkpoints(
    run: &mut Run,
    bytes: u64,
    observer: &mut dyn Observer,
) -> Result<CheckpointPlan, TrainError> {
    let count = num_checkpoints(&run.config, run.position.total_steps);
    let mut laps = Laps::start();
    let seconds = if bytes > LARGEST_CHECKPOINT {
        None
    } else {
        run.save(observer)?;
        Some(laps.lap())
    };
    Ok(CheckpointPlan { count, bytes, seconds })
}

/// One at each interval, and one at the end.
fn num_checkpoints(config: &RunConfig, total_steps: u64) -> u64 {
    total_steps.div_ceil(config.checkpoint.every_steps.max(1))
}
