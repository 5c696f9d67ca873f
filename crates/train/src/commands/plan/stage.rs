//! A stage of the run, measured at its start: the parts of a step, its memory, and whole steps, while features are
//! computed and when they are cached.

use std::sync::Arc;

use dualenc_data::{Batch, counted};
use dualenc_model::parameters;

use crate::commands::plan::budget::{Budget, Laps};
use crate::commands::plan::cache_size::{training_captions, training_images};
use crate::commands::plan::host;
use crate::commands::plan::memory::{self, Probe};
use crate::commands::plan::parts::{self, Parts};
use crate::commands::plan::report::{Share, StagePlan, StepPlan};
use crate::commands::plan::steps::{self, Measured};
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::features::image_index::Views;
use crate::features::locked_towers::LockedTowers;
use crate::training::locked_inputs::LockedInputs;
use crate::training::run::Run;
use crate::training::step::StepContext;
use crate::training::training_data::next_batch;

/// A measured stage.
pub(super) struct MeasuredStage {
    pub plan: StagePlan,
    /// Loss and gradients at two sizes.
    pub probes: [Probe; 2],
    /// Peak of the process during whole steps.
    pub peak: Option<u64>,
    /// Trainable values.
    pub trainable: usize,
    /// Features that this stage adds to the cache.
    pub filling: Filling,
    /// Seconds of the parts of a step.
    pub parts: Parts,
    /// Images that are decoded in a step, where features are computed.
    pub loaded_per_step: f64,
}

/// The features that a stage computes for the cache.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Filling {
    /// Images times views, or captions if only the text tower is locked, that are not cached yet.
    pub features: f64,
    /// The same of one epoch.
    pub of_epoch: f64,
    /// Seconds that each adds to the step that computes it.
    pub seconds_each: f64,
    /// Features that such a step computes.
    pub per_step: f64,
}

/// Measures the stage that begins at the position of `run`. `cached_before`: of the image and the text tower, whether
/// an earlier stage has filled the cache. `present`: fraction of the features that the cache of the real run holds.
///
/// # Errors
/// Those of a training step.
pub(super) fn measure(
    run: &mut Run,
    steps: u64,
    cached_before: [bool; 2],
    present: f64,
    budget: &Budget,
    observer: &mut dyn Observer,
) -> Result<MeasuredStage, TrainError> {
    let (from, per_epoch) = (run.position.step, run.position.steps_per_epoch);
    let (end, lock) = (run.learner.stages.end(from), run.learner.stages.at(from).lock.to_string());
    let (uncached, batch_size) = (uncached(run), run.config.train.batch_size);
    observer.on(Event::Note(format!("measuring a step of the lock `{lock}`, with {}", counted(batch_size, "pair"))));
    let batch = first_batch(run, &uncached, observer)?;
    budget.check_stop()?;
    if let Some(teacher) = &run.teacher {
        teacher.prepare(&batch)?;
    }
    let context = StepContext { locked: &uncached, ..run.step_context() };
    let probes = memory::measure(&context, &batch, budget, observer)?;
    budget.check_stop()?;
    // As many pairs as the larger probe, so that it fits into the time.
    let batch = memory::head(&batch, probes[1].pairs);
    let of_batch = parts::measure(&context, &batch)?;
    let in_parts = run.config.train.micro_batch_size.is_some_and(|size| size < run.config.train.batch_size);
    let whole = |parts: Parts| if in_parts { parts.with_second_forward() } else { parts };
    let parts = whole(of_batch);
    drop(uncached);
    budget.check_stop()?;

    let caches = caches(run);
    let is_cached = caches.contains(&true);
    let knows_peak = run.compute.on_host && host::reset_peak();
    // Beyond the first epoch, features are read.
    let end_of_first = if is_cached { end.min(from + per_epoch) } else { end };
    let of_first = budget.share(if is_cached { 0.5 } else { 1.0 });
    let first = steps::measure(run, end_of_first, end, steps, "measured steps", &of_first, observer)?;
    let peak = host::peak().filter(|_| knows_peak);
    let mut plan = StagePlan {
        lock,
        from_step: from,
        steps: end - from,
        step: step_plan(&first, &parts),
        cached_step: None,
        seconds: first.seconds() * (end - from) as f64,
    };
    let mut filling = Filling::default();
    if is_cached {
        // The cache has the features of the steps that were made, and of no other.
        let made = from + first.made;
        let cached = steps::measure(run, made, made, steps, "measured steps with cached features", budget, observer)?;
        let parts = whole(of_batch.without_locked_layers(locked_shares(run)));
        let reading = Parts { locked_image: 0.0, locked_text: 0.0, ..parts };
        let step = step_plan(&cached, &with_reading(reading, run, &cached, &batch)?);
        plan.seconds = step.seconds * plan.steps as f64;
        if caches.iter().zip(cached_before).any(|(cached, before)| *cached && !before) {
            filling = to_fill(run, caches, present, plan.steps, (&first, &cached));
            plan.cached_step = Some(step);
            plan.seconds += filling.features * filling.seconds_each;
        } else {
            plan.step = step;
        }
    }
    let trains = parameters::list(&run.learner.model).into_iter().filter(|info| info.trains);
    let trainable = trains.map(|info| info.shape.iter().product::<usize>()).sum();
    let loaded_per_step = first.mean(|step| step.loaded as f64);
    Ok(MeasuredStage { plan, probes, peak, trainable, filling, parts, loaded_per_step })
}

/// Of the image and the text tower, whether the stage caches its features on disk, or what its locked layers compute.
pub(super) fn caches(run: &Run) -> [bool; 2] {
    let (towers, prefixes) = (&run.locked.towers, &run.locked.prefixes);
    [
        towers.images.as_ref().is_some_and(|features| features.size().is_some()) || prefixes.images.is_some(),
        towers.texts.as_ref().is_some_and(|features| features.size().is_some()) || prefixes.texts.is_some(),
    ]
}

/// The fraction of the layers of the image and the text tower that is locked and cached.
fn locked_shares(run: &Run) -> [f64; 2] {
    let (prefixes, model) = (&run.locked.prefixes, &run.learner.model);
    let share = |layers: Option<usize>, of: usize| layers.map_or(0.0, |layers| layers as f64 / of.max(1) as f64);
    [
        share(prefixes.images.as_ref().map(|prefix| prefix.layers), model.image_tower.num_layers()),
        share(prefixes.texts.as_ref().map(|prefix| prefix.layers), model.text_tower.num_layers()),
    ]
}

/// The locked towers without a cache, so that the loader decodes every image.
fn uncached(run: &Run) -> LockedInputs {
    let (data, model) = (&run.data, &run.learner.model);
    let towers = LockedTowers::new(model, &data.processor, &run.compute, data.workers, &run.stop);
    LockedInputs::new(towers, Arc::clone(&data.dataset), Views::One)
}

/// The first batch, or part of one, with all pixels.
fn first_batch(run: &Run, locked: &LockedInputs, observer: &mut dyn Observer) -> Result<Batch, TrainError> {
    let step = run.position.step;
    let training = run.learner.stages.at(step).training;
    let mut batches = run.data.batches(&run.config, &training, locked, step..step + 1)?;
    let batch = next_batch(&mut batches, observer)?;
    let batch = batch.ok_or_else(|| TrainError::Internal("a stage has no batch".to_owned()))?;
    batch.skipped.iter().for_each(|image| {
        observer.on(Event::Skipped { image, of: "the training data", listed_in: None });
    });
    Ok(batch)
}

/// `parts` with the time in which the features of a batch are read from the cache.
fn with_reading(mut parts: Parts, run: &Run, cached: &Measured, batch: &Batch) -> Result<Parts, TrainError> {
    let mut laps = Laps::start();
    if let (Some((features, set)), Some(batch)) = (run.locked.image_features(), &cached.last) {
        features.of_batch(set, batch)?;
        parts.locked_image = laps.lap();
    }
    laps = Laps::start();
    let states = run.locked.prefixes.texts.as_ref().map(|prefix| prefix.of_batch(batch)).transpose()?;
    if states.is_some() || run.locked.texts_of_batch(batch)?.is_some() {
        parts.locked_text = laps.lap();
    }
    Ok(parts)
}

/// What a stage of `steps` steps adds to the cache, from a step that computes features and one that reads them.
fn to_fill(
    run: &Run,
    [images, _]: [bool; 2],
    present: f64,
    steps: u64,
    (first, cached): (&Measured, &Measured),
) -> Filling {
    let mut batch = first.mean(|step| step.pairs as f64);
    let (all, per_step) = if images {
        (training_images(run), first.mean(|step| step.loaded as f64))
    } else {
        batch *= run.config.caption_slots().count as f64;
        (training_captions(run), batch)
    };
    let missing = all as f64 * (1.0 - present);
    let pairs_of_epoch = run.position.steps_per_epoch as f64 * batch;
    let views = if images { all as f64 / training_images_once(run) } else { 1.0 };
    Filling {
        features: missing.min(steps as f64 * batch),
        of_epoch: (missing / views).min(pairs_of_epoch),
        seconds_each: (first.seconds() - cached.seconds()).max(0.0) / per_step.max(1.0),
        per_step: per_step.max(1.0),
    }
}

/// The training images in one view, at least 1.
fn training_images_once(run: &Run) -> f64 {
    run.locked.image_features().map_or(1, |(_, set)| set.len()).max(1) as f64
}

/// Where the time of a measured step goes. `parts` divides the time of loss and gradients.
fn step_plan(measured: &Measured, parts: &Parts) -> StepPlan {
    let seconds = measured.seconds();
    let all = measured.mean(|step| step.whole).max(f64::MIN_POSITIVE);
    let share = |number: f64| number / all;
    let waited = share(measured.mean(|step| step.waited));
    let computed = share(measured.mean(|step| step.computed));
    let updated = share(measured.mean(|step| step.updated));
    let part = |of_part: f64| if parts.sum() > 0.0 { computed * of_part / parts.sum() } else { 0.0 };
    let shares = [
        ("waiting for images", waited),
        ("locked image tower", part(parts.locked_image)),
        ("locked text tower", part(parts.locked_text)),
        ("image tower", part(parts.image)),
        ("text tower", part(parts.text)),
        ("projections and loss", part(parts.head)),
        ("optimiser", updated),
    ];
    let other = (1.0 - shares.iter().map(|(_, share)| share).sum::<f64>()).max(0.0);
    let shares = shares.into_iter().filter(|(name, share)| *share > 0.0 || !name.contains("tower"));
    let shares = shares.chain([("other", other)]);
    let parts = shares.map(|(part, share)| Share { part, seconds: share * seconds, share }).collect();
    let pairs_per_second = measured.mean(|step| step.pairs as f64) / seconds.max(f64::MIN_POSITIVE);
    StepPlan { measured: measured.steps.len(), seconds, pairs_per_second, parts }
}
