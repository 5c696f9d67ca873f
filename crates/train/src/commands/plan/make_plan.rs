//! `dualenc plan`: opens the run in a temporary directory, measures each stage, and adds up what the run will take.

use std::path::Path;
use std::sync::Arc;

use dualenc_kernels::{bf16_is_faster, return_freed_memory};
use dualenc_model::parameters;

use crate::commands::plan::advice::{self, Facts};
use crate::commands::plan::budget::{Budget, Laps};
use crate::commands::plan::loading::Loading;
use crate::commands::plan::report::{
    Advice, CachePlan, CheckpointPlan, DataPlan, EvaluationPlan, FitPlan, LoadingPlan, MemoryPlan, Plan, TimePlan,
};
use crate::commands::plan::schedule::Known;
use crate::commands::plan::stage::{self, MeasuredStage};
use crate::commands::plan::{cache_size, fit, host, loading, memory, schedule};
use crate::config::{FitSection, HeadInit, Precision, RunConfig};
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::optim::part_summary::summarize_parts;
use crate::ranks::alone::Alone;
use crate::run_dir::layout::{checkpoints_of, metrics_of, refuse_config_of_user};
use crate::stop_flag::StopFlag;
use crate::training::position::Start;
use crate::training::run::Run;

/// Fraction of a step's time above which its waiting for images counts.
const MAX_WAITING: f64 = 0.1;

/// Fraction of the time to measure in that the stages get; the rest is for evaluations.
const STAGES_SHARE: f64 = 0.8;

/// Bytes of an `f32`.
const VALUE: u64 = 4;

/// Batches of pixels that a loader holds: in use, ready, and being collated.
const BATCHES_HELD: f64 = 3.0;

/// Predicts what a run takes from `steps` of its steps (fewer where one takes long, at least one) in each stage. Writes
/// nothing to the run directory or the feature cache.
///
/// # Errors
/// Those of [`train`](crate::train) up to these steps; [`TrainError::Stopped`] when `stop` is set.
pub fn make_plan(
    config: &RunConfig,
    steps: u64,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Plan, TrainError> {
    refuse_config_of_user(&config.run.dir)?;
    let temporary = std::env::temp_dir();
    let dir = tempfile::Builder::new().prefix("dualenc-plan-").tempdir().map_err(TrainError::write(&temporary))?;
    let observer = &mut Quiet { observer };
    let mut laps = Laps::start();
    let mut run = Run::open(&elsewhere(config, dir.path()), Start::New, Arc::new(Alone), stop, observer)?;
    let start = laps.lap();

    let budget = Budget::new(stop);
    return_freed_memory();
    let loaded = host::resident().filter(|_| run.compute.on_host);
    let groups = run.learner.optimizer().param_groups();
    let parts = summarize_parts(&run.learner.model, groups, run.learner.stages.at(0).learning_rate)?;
    let images = loading::measure(&run)?;
    let (mut stages, mut evaluations, mut fit) = (Vec::<MeasuredStage>::new(), Vec::new(), None);
    let mut cache = Vec::<CachePlan>::new();
    let mut cached_before = cached_by_fit(config, &run);
    for number in 0..run.learner.stages.len() {
        go_to_stage(&mut run, number, observer)?;
        for entry in cache_size::of_stage(&run, &config.cache_dir())? {
            if cache.iter().all(|known| known.what != entry.what) {
                cache.push(entry);
            }
        }
        let present = cache.first().map_or(0.0, |entry| entry.present as f64 / entry.rows.max(1) as f64);
        let share = budget.share(STAGES_SHARE / (run.learner.stages.len() - number) as f64);
        let stage = stage::measure(&mut run, steps, cached_before, present, &share, observer)?;
        cached_before = std::array::from_fn(|tower| cached_before[tower] || stage::caches(&run)[tower]);
        if number == 0 {
            let [_, large] = stage.probes;
            let per_image = images.read + images.decode + large.seconds / large.pairs.max(1) as f64;
            if config.model.head_init != HeadInit::Random {
                observer.on(Event::Note("measuring the fit of the heads".to_owned()));
            }
            if let Some((found, left)) = fit::measure(&run, config, per_image, &budget)? {
                fit = Some(found);
                for entry in left {
                    if cache.iter().all(|known| known.what != entry.what) {
                        cache.push(entry);
                    }
                }
            }
            budget.check_stop()?;
            evaluations = schedule::evaluations(&run, per_image, Known::of(&run, &cache), &budget, observer)?;
        }
        stages.push(stage);
    }

    cache.extend(cache_size::of_teacher(&run, &config.cache_dir()));
    let memory = memory_plan(&run, &stages, loaded)?;
    let checkpoint_bytes = checkpoint_bytes(&run)?;
    let checkpoints = schedule::checkpoints(&mut run, checkpoint_bytes, observer)?;
    let time = time_plan(&run, &stages, (start, fit.as_ref()), &evaluations, &checkpoints, &cache);
    let mut plan = Plan {
        device: config.run.device.first().to_owned(),
        threads: run.compute.threads,
        parameters: parts,
        data: data_plan(&run),
        images: loading_plan(&run, images, &stages[0]),
        stages: stages.iter().map(|stage| stage.plan.clone()).collect(),
        fit,
        evaluations,
        checkpoints,
        memory,
        cache_disk_free: if cache.is_empty() { None } else { host::free_disk(&config.cache_dir()) },
        cache,
        time,
        advice: Advice { key: None, text: String::new(), saves_seconds: None },
        notes: notes(config, &run),
    };
    let longest = stages.iter().max_by(|left, right| left.plan.seconds.total_cmp(&right.plan.seconds));
    if let Some(stage) = longest {
        let facts = Facts {
            cache_enabled: config.cache.enabled,
            is_augmented: config.data.augment.is_some(),
            checkpoint_every: config.checkpoint.every_steps,
            stage,
            on_host: run.compute.on_host,
            bf16_is_faster: run.compute.on_host && config.run.precision == Precision::F32 && bf16_is_faster(),
        };
        plan.advice = advice::choose(&plan, &facts);
    }
    Ok(plan)
}

/// Forwards events, but for those of a run that really starts, and for weights that are not used.
struct Quiet<'a> {
    observer: &'a mut dyn Observer,
}

impl Observer for Quiet<'_> {
    fn on(&mut self, event: Event<'_>) {
        let is_left_out = match &event {
            Event::Audit { audit, .. } => audit.missing.is_empty(),
            event => matches!(event, Event::Parts(_) | Event::Start { .. } | Event::Saved { .. }),
        };
        if !is_left_out {
            self.observer.on(event);
        }
    }
}

/// `config` for a run that leaves its traces in `dir`, its feature cache included.
fn elsewhere(config: &RunConfig, dir: &Path) -> RunConfig {
    let mut config = config.clone();
    config.run.dir = dir.join("run");
    config.cache.dir = None;
    // It would compute the features of all images first. What that costs is in the time that fills the cache.
    config.model.image_projection.whitening = 0.0;
    // Likewise; how heads start changes no time of a step.
    config.model.head_init = HeadInit::Random;
    config.fit = FitSection::default();
    config
}

/// Of the image and the text tower, whether a fit has cached what the first stage reads.
fn cached_by_fit(config: &RunConfig, run: &Run) -> [bool; 2] {
    let towers = &run.locked.towers;
    let is_cached = config.model.head_init != HeadInit::Random && config.cache.enabled;
    // Augmented images have other features.
    [towers.images.is_some() && config.data.augment.is_none(), towers.texts.is_some()]
        .map(|of_tower| is_cached && of_tower)
}

/// Goes to the start of a stage.
fn go_to_stage(run: &mut Run, number: usize, observer: &mut dyn Observer) -> Result<(), TrainError> {
    if number == 0 {
        return Ok(());
    }
    run.position.step = run.learner.stages.end(run.position.step);
    run.enter_stage(observer)?;
    run.learner.begin_averages()
}

fn data_plan(run: &Run) -> DataPlan {
    let (dataset, config, position) = (&run.data.dataset, &run.config, &run.position);
    let batch_size = config.train.batch_size;
    DataPlan {
        images: dataset.num_images(),
        captions: dataset.num_captions(),
        pairs: dataset.num_pairs(config.data.captions),
        batch_size,
        captions_per_pair: config.caption_slots().count,
        micro_batch_size: config.train.micro_batch_size.filter(|size| *size < batch_size),
        steps_per_epoch: position.steps_per_epoch,
        total_steps: position.total_steps,
        epochs: position.total_steps as f64 / position.steps_per_epoch.max(1) as f64,
    }
}

fn loading_plan(run: &Run, found: Loading, stage: &MeasuredStage) -> LoadingPlan {
    let each = found.read + found.decode;
    let (step, workers) = (&stage.plan.step, run.data.workers);
    let waiting: f64 = step.parts.iter().filter(|part| part.part == "waiting for images").map(|part| part.share).sum();
    let computing = (step.seconds * (1.0 - waiting)).max(f64::MIN_POSITIVE);
    LoadingPlan {
        measured: found.measured,
        unusable: found.unusable,
        read_seconds: found.read,
        decode_seconds: found.decode,
        workers,
        images_per_second: (found.measured > 0 && each > 0.0)
            .then(|| workers.min(run.compute.threads).max(1) as f64 / each),
        needed_per_second: stage.loaded_per_step / computing,
        waiting,
        keeps_up: waiting <= MAX_WAITING,
    }
}

/// The memory of the largest stage.
fn memory_plan(run: &Run, stages: &[MeasuredStage], loaded: Option<u64>) -> Result<MemoryPlan, TrainError> {
    let parameters = parameters::list(&run.learner.model);
    let parameters = parameters.iter().map(|info| info.shape.iter().product::<usize>()).sum::<usize>();
    let gradients = stages.iter().map(|stage| stage.trainable).max().unwrap_or(0) as u64 * VALUE;
    let state = run.learner.optimizer().num_values();
    let averages = if run.config.train.ema_decay.is_some() { gradients } else { 0 };
    let Some(largest) = stages.iter().max_by_key(|stage| stage.peak) else {
        return Err(TrainError::Internal("a run has no stage".to_owned()));
    };
    let [_, large] = largest.probes;
    let per_pair = memory::slope(largest.probes);
    let pixels = if largest.loaded_per_step > 0.0 { run.data.processor.waiting_bytes() as f64 } else { 0.0 };
    let available = host::available().filter(|_| run.compute.on_host);
    let pairs = run.data.dataset.num_pairs(run.config.data.captions);
    let whole = run.config.train.batch_size;
    let at_once = run.config.train.micro_batch_size.map_or(whole, |size| size.min(whole));
    let batch_that_fits = available.zip(largest.peak).zip(per_pair).map(|((available, peak), per_pair)| {
        let per_pair = per_pair + BATCHES_HELD * pixels;
        memory::largest_batch(available, peak, at_once, per_pair).min(memory::round_down(pairs))
    });
    Ok(MemoryPlan {
        parameters: parameters as u64 * VALUE,
        gradients,
        optimizer: state as u64 * VALUE + averages,
        teacher: run.teacher.as_ref().map_or(0, |teacher| teacher.parameters() as u64 * VALUE),
        loaded,
        activations: per_pair
            .map(|per_pair| (per_pair * at_once as f64) as u64)
            .or_else(|| Some(large.peak?.saturating_sub(gradients))),
        activations_per_pair: per_pair.map(|bytes| bytes as u64),
        measured_pairs: largest.probes.map(|probe| probe.pairs),
        peak: largest.peak,
        available,
        batch_that_fits,
    })
}

/// Size of a checkpoint: trainable parameters, state of the optimiser, averages.
fn checkpoint_bytes(run: &Run) -> Result<u64, TrainError> {
    let tensors = run.config.ever_trains().of(run.learner.model.clone())?;
    let trainable = parameters::list(&tensors).into_iter().filter(|info| info.trains);
    let trainable = trainable.map(|info| info.shape.iter().product::<usize>()).sum::<usize>();
    let state = run.learner.optimizer().num_values();
    let averages = if run.config.train.ema_decay.is_some() { trainable } else { 0 };
    Ok((trainable + state + averages) as u64 * VALUE)
}

fn time_plan(
    run: &Run,
    stages: &[MeasuredStage],
    (start, fit): (f64, Option<&FitPlan>),
    evaluations: &[EvaluationPlan],
    checkpoints: &CheckpointPlan,
    cache: &[CachePlan],
) -> TimePlan {
    let first = &stages[0];
    let later_step = first.plan.cached_step.as_ref().unwrap_or(&first.plan.step);
    let later_epoch = later_step.seconds * run.position.steps_per_epoch as f64;
    let batch = run.config.train.batch_size as u64;
    let teacher_in = |steps: u64| cache_size::seconds_of_teacher(run, cache, steps.saturating_mul(batch));
    let (steps, per_epoch) = (run.position.total_steps, run.position.steps_per_epoch);
    let teacher = teacher_in(steps);
    let training = stages.iter().map(|stage| stage.plan.seconds).sum::<f64>() + teacher;
    let filling_cache = stages.iter().map(|stage| stage.filling.features * stage.filling.seconds_each).sum();
    let of_evaluation = |plan: &EvaluationPlan| match plan.runs {
        0 => 0.0,
        runs => plan.first_seconds + plan.later_seconds * (runs - 1) as f64,
    };
    let checkpoint = checkpoints.seconds.unwrap_or(0.0);
    let checkpoints = checkpoint * checkpoints.count as f64;
    let once = evaluations.iter().map(|plan| plan.first_seconds).sum::<f64>();
    let fit_alone = fit.map(|fit| start + seconds_of(fit) + once + checkpoint);
    let fit = fit.map_or(0.0, seconds_of);
    let evaluations = evaluations.iter().map(of_evaluation).sum::<f64>();
    TimePlan {
        start,
        fit,
        fit_alone,
        first_epoch: later_epoch
            + first.filling.of_epoch * first.filling.seconds_each
            + teacher_in(per_epoch.min(steps)),
        later_epoch,
        training,
        filling_cache,
        teacher,
        evaluations,
        checkpoints,
        run: start + fit + training + evaluations + checkpoints,
    }
}

fn seconds_of(fit: &FitPlan) -> f64 {
    fit.features_seconds + fit.closed_form_seconds
}

/// What the figures leave out.
fn notes(config: &RunConfig, run: &Run) -> Vec<String> {
    let mut notes = config.notes();
    let has_run = metrics_of(&config.run.dir).exists() || checkpoints_of(&config.run.dir).exists();
    if has_run {
        let dir = config.run.dir.display();
        notes.push(format!("`{dir}` holds a run already: `train` needs `--resume`, or another `run.dir`"));
    }
    if let several @ 2.. = config.run.device.all().len() {
        notes.push(format!(
            "measured on `{}` alone; `train` shares each batch between the {several} devices of `run.device`",
            config.run.device.first()
        ));
    }
    if config.model.image_projection.whitening > 0.0 {
        notes.push("whitening computes the features of all images before the first step, not during it".to_owned());
    }
    if let (Some(teacher), false) = (&run.teacher, config.cache.enabled) {
        let rows = [run.data.dataset.num_images(), cache_size::training_captions(run)];
        let bytes = teacher.row_values().into_iter().zip(rows);
        let bytes: u64 = bytes.map(|(values, rows)| (values * rows) as u64 * VALUE).sum();
        notes.push(format!(
            "the features of the teacher take up to {:.1} MB of memory: `cache.enabled` is false",
            bytes as f64 / 1e6
        ));
    }
    if config.checkpoint.patience.is_some() {
        notes.push("the run may end earlier: `checkpoint.patience`".to_owned());
    }
    if !run.compute.on_host {
        notes.push("memory of the device is not measured".to_owned());
    }
    notes
}
