//! Evaluations and checkpoints: how often they run, and how long each takes.

use std::sync::Arc;

use crate::commands::plan::budget::{Budget, Laps};
use crate::commands::plan::loading::spread;
use crate::commands::plan::report::{CheckpointPlan, EvaluationPlan};
use crate::config::RunConfig;
use crate::error::TrainError;
use crate::eval::encoder::Encoder;
use crate::eval::evaluation::Evaluation;
use crate::events::{Event, Observer};
use crate::features::image_index::ImageList;
use crate::training::run::Run;

/// Images of a sample: two chunks of `features::images` on each of two threads.
const IMAGES: usize = 64;

/// Images of a sample where an image takes long: one chunk.
const FEW_IMAGES: usize = 16;

/// Texts of a sample.
const TEXTS: usize = 256;

/// Texts of a sample where time is short.
const FEW_TEXTS: usize = 32;

/// Largest checkpoint that is written to the temporary directory, which may be in memory.
const LARGEST_CHECKPOINT: u64 = 512 << 20;

/// Estimates each evaluation from a sample of its images and texts. `seconds_per_image`: a rough figure.
///
/// # Errors
/// Those of the encoder.
pub(super) fn evaluations(
    run: &Run,
    seconds_per_image: f64,
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
        };
        let share = budget.left() / (total - done) as f64;
        let is_short = seconds_per_image * 2.0 * IMAGES as f64 > share;
        let list = evaluation.images();
        let sample = spread(list.num_images(), if is_short { FEW_IMAGES } else { IMAGES }).map(|at| list.image(at));
        let sample: Arc<dyn ImageList> = Arc::new(sample.collect::<Vec<_>>());
        let texts = evaluation.texts();
        let text_sample = spread(texts.len(), if is_short { FEW_TEXTS } else { TEXTS }).map(|at| texts[at].as_str());
        let text_sample: Vec<&str> = text_sample.collect();
        let mut laps = Laps::start();
        let mut seconds = [0.0; 2];
        // The second time, the features of locked towers are there.
        for seconds in &mut seconds {
            encoder.images(Arc::clone(&sample), &run.data.processor, |_| {})?;
            let images = laps.lap() / sample.num_images().max(1) as f64;
            encoder.texts(&text_sample, |_| {})?;
            let of_texts = laps.lap() / text_sample.len().max(1) as f64;
            *seconds = images * list.num_images() as f64 + of_texts * texts.len() as f64;
        }
        plans.push(EvaluationPlan {
            name: evaluation.name.clone(),
            images: list.num_images(),
            texts: texts.len(),
            runs: runs(evaluation, run.position.steps_per_epoch, run.position.total_steps),
            first_seconds: seconds[0],
            later_seconds: seconds[1],
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
