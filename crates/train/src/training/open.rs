//! Opening a run: everything it needs is checked, its directory is taken, and a checkpoint is put in place.

mod replica;
mod resume_checks;
mod whitening;

use std::sync::Arc;

use burn::module::Param;
use burn::tensor::FloatDType;
use dualenc_data::{Dataset, counted};
use dualenc_kernels::{bf16_instructions, bf16_is_faster};
use dualenc_model::DualEncoder;

use crate::config::{BestMetric, Change, RunConfig};
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::evaluation::Evaluation;
use crate::eval::shared::ImageShares;
use crate::events::{Event, Observer};
use crate::features::absent::check_dataset;
use crate::features::image_index::ImageSet;
use crate::features::images::ImageFeatures;
use crate::features::locked_towers::{LockedFingerprints, check_cache_of_run, feature_cache_of};
use crate::loss::terms::LossTerms;
use crate::models::feature_widths::with_feature_widths;
use crate::models::load::LoadedModel;
use crate::models::text_pool::{continued, settled};
use crate::optim::lr_schedule::LrSchedule;
use crate::optim::part_summary::summarize_parts;
use crate::pairs::Pairs;
use crate::ranks::exchange::Exchange;
use crate::run_dir::atomic_file::write_whole;
use crate::run_dir::bad_samples::BadSamples;
use crate::run_dir::best::BestTracker;
use crate::run_dir::checkpoint::manifest::Progress;
use crate::run_dir::checkpoint::{self, Checkpoint, Newest};
use crate::run_dir::layout::RunDir;
use crate::run_dir::metrics_log::{MetricsLog, last_step};
use crate::run_dir::tensorboard::event_file::EventFile;
use crate::stop_flag::StopFlag;
use crate::teacher::features::Teacher;
use crate::teacher::loaded::LoadedTeacher;
use crate::training::health::{HealthMonitor, STEPS_READ_AT_RESUME, one_caption};
use crate::training::learner::{Learner, LearnerState};
use crate::training::locked_inputs::LockedInputs;
use crate::training::open::resume_checks::{
    refuse_changed_inputs, refuse_changed_rates, refuse_other_run, refuse_skipping_all, report_changes, safe_changes,
    warn_of_higher_rates,
};
use crate::training::open::whitening::whitened;
use crate::training::position::{Position, Start};
use crate::training::records::{MAX_FAILED_SAVES, Records, report_skipped};
use crate::training::run::Run;
use crate::training::stages::Stages;
use crate::training::training_data::{TrainingData, loader_threads};

/// Features whitened at once: 12 MB at a width of 768.
const WHITENED_AT_ONCE: usize = 4096;

/// Gaps in the log that a warning names.
const MAX_NAMED_GAPS: usize = 3;

/// Rows that cannot be used that a warning names.
const MAX_NAMED_ROWS: usize = 2;

impl Run {
    /// Checks everything a run needs, takes its directory, and goes to where it left off: as the first of `ranks`.
    ///
    /// # Errors
    /// [`TrainError`], before the first step. Until config, data and weights are accepted, nothing of an earlier run is
    /// changed.
    pub fn open(
        config: &RunConfig,
        start: Start,
        ranks: Arc<dyn Exchange>,
        stop: &StopFlag,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let config = &with_feature_widths(config)?;
        let warnings = if start == Start::New { config.warnings() } else { config.warnings_beside_start() };
        warnings.into_iter().for_each(|warning| observer.on(Event::Warning(warning)));
        let compute = open_device(config, config.run.device.first(), observer)?;
        for device in config.run.device.all().iter().take(ranks.ranks_of_process()).skip(1) {
            Compute::select(device, config.run.threads)?.computing_as(&config.run)?;
        }
        let dir = RunDir::open(&config.run.dir, start.is_resumed())?;
        check_cache_of_run(config)?;
        let (checkpoint, changes_of_start) = find_checkpoint(&dir, start, config, ranks.ranks(), observer)?;
        let (continued, changes) = match &checkpoint {
            Some(checkpoint) => {
                let old = checkpoint.run_config()?;
                let config = continued(config, &old).with_parts(ranks.ranks());
                let changes = safe_changes(&old, &config)?;
                (Some(config), changes)
            }
            None => (None, changes_of_start),
        };

        let workers = loader_threads(config, compute.threads, ranks.ranks_of_process());
        let Pairs { train: dataset, validation } = Pairs::read(config)?;
        report_dataset(config, &dataset, observer);
        one_caption(&dataset).into_iter().for_each(|warning| observer.on(Event::Warning(warning)));
        let config = &match continued {
            Some(config) => config,
            None => settled(config)?.with_parts(ranks.ranks()),
        };
        let loaded = LoadedModel::from_config(config, &compute, observer)?;
        let tower_forms = loaded.tower_forms();
        let LoadedModel { model, tokenizer, processor, .. } = loaded;
        warn_of_convolutions(&model, &compute, observer);
        check_dataset(&dataset, &model, "the training data")?;
        let teacher = open_teacher(config, &dataset, &compute, observer)?;
        let terms =
            LossTerms::new(config, model.embed_dim())?.with_teacher(teacher.as_ref().map(|teacher| teacher.term));
        let mut evaluations = Evaluation::open_all(config, validation.as_ref())?;
        evaluations.iter().try_for_each(|evaluation| evaluation.check_towers(&model))?;
        let told: Vec<String> = dataset.warnings.iter().cloned().chain(dataset.null_words()).collect();
        evaluations.iter_mut().for_each(|evaluation| evaluation.mute(&told));
        let data = TrainingData::new(config, dataset, tokenizer, processor, workers, ranks.share())?;
        data.report_same_tokens(observer);
        evaluations.iter().try_for_each(Evaluation::check_files)?;

        let steps_per_epoch = data.steps_per_epoch();
        let total_steps = config.total_steps(steps_per_epoch);
        let lr_schedule = match start {
            Start::Fit => LrSchedule::of_fit(&config.train, total_steps),
            Start::New | Start::Resume { .. } => LrSchedule::new(&config.train, total_steps)?,
        };
        let locked_fingerprints = LockedFingerprints::of(&model)?;
        if let Some(checkpoint) = &checkpoint {
            refuse_changed_inputs(checkpoint, &data, &tower_forms, &locked_fingerprints.all, teacher.as_ref())?;
            refuse_changed_rates(checkpoint, config, total_steps)?;
        }
        // A run that is refused accepts none of them.
        report_changes(changes, checkpoint.is_none(), observer);
        let mut stages = Stages::new(config, &model, steps_per_epoch, total_steps)?;
        if let Some(checkpoint) = &checkpoint {
            warn_of_higher_rates(checkpoint, &model, (&stages, &lr_schedule), steps_per_epoch, observer)?;
        }
        let skipped_steps = checkpoint.iter().flat_map(|checkpoint| &checkpoint.progress.skipped_steps);
        skipped_steps.for_each(|range| stages.skip(*range));
        let warmup_steps = lr_schedule.warmup_steps;
        if start != Start::Fit {
            config.window_note(&data.dataset).into_iter().for_each(|note| observer.on(Event::Note(note)));
            let warning = config.warmup_warning_of_data(warmup_steps);
            warning.into_iter().for_each(|warning| observer.on(Event::Warning(warning)));
        }
        let mut learner = Learner::new(config, model, stages, lr_schedule, compute.on_host)?;
        report_stages(&learner, observer)?;
        let progress = checkpoint.as_ref().map(|checkpoint| checkpoint.progress.clone());
        if let Some(checkpoint) = checkpoint {
            data.unreadable_images.restore(checkpoint.progress.bad_images.clone(), &data.dataset)?;
            learner.restore(checkpoint.progress.step, LearnerState::of(checkpoint)?)?;
        }
        let absent = data.leave_absent_out()?;
        let (step, skip_steps) = (progress.as_ref().map_or(0, |progress| progress.step), start.skip_steps());
        refuse_skipping_all(step, skip_steps, total_steps)?;

        let best = match &progress {
            Some(progress) => best_so_far(config, &evaluations, &dir, progress.step, observer)?,
            None => BestTracker::new(&config.checkpoint),
        };

        // Nothing of an earlier run is changed before this line.
        let bad_samples = BadSamples::open(&dir.bad_samples(), &data.dataset, &data.unreadable_images.found(step))?;
        let list = dir.bad_samples();
        report_skipped(&absent, &data.dataset, &list, observer);
        let records = open_records(config, dir, step, warmup_steps, (best, bad_samples), observer)?;
        let skipped = progress.as_ref().map_or(&[][..], |progress| &progress.skipped_steps);
        let missing = lines_are_missing(&records, step, skipped);
        missing.into_iter().for_each(|warning| observer.on(Event::Warning(warning)));
        let teacher = match teacher {
            Some(teacher) => {
                Some(Teacher::open(teacher, config, &data.dataset, &compute, workers, feature_cache_of(config))?)
            }
            None => None,
        };
        let mut run = Self {
            config: config.clone(),
            position: Position::start(steps_per_epoch, total_steps),
            learner,
            locked: LockedInputs::none(Arc::clone(&data.dataset)),
            data,
            terms,
            teacher,
            records: Some(records),
            evaluations,
            image_shares: ImageShares::default(),
            locked_fingerprints,
            tower_forms,
            compute,
            ranks,
            stop: stop.clone(),
            cut_captions_reported: false,
            unfinished: None,
            is_uncounted: false,
            last_step: std::time::Instant::now(),
            fitted: None,
        };
        run.report_cut_captions(false, observer);
        if let Some(progress) = &progress {
            run.resume_at(progress, observer)?;
        }
        if skip_steps > 0 {
            run.skip_steps(skip_steps, observer)?;
        }
        run.enter_stage(observer)?;
        if progress.is_none() {
            run.whiten_projection(observer)?;
            run.fit_heads(observer)?;
        }
        run.learner.begin_averages()?;
        if skip_steps > 0 {
            // So that a later resume need not ask for it again.
            run.save_rescue(observer)?;
        }
        let Position { step, total_steps, steps_per_epoch, .. } = run.position;
        // A fit takes no steps.
        if start != Start::Fit {
            observer.on(Event::Start { step, total_steps, steps_per_epoch });
        }
        if let Some(best) = run.records.as_ref().and_then(|records| records.best.best()) {
            observer.on(Event::Best(&best));
        }
        Ok(run)
    }

    /// Goes to where a checkpoint was written.
    fn resume_at(&mut self, saved: &Progress, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let (before, now) = (counted(saved.threads, "thread"), self.compute.threads);
        if saved.threads != now {
            // By default, processes of a machine divide its cores, so their number changes that of threads.
            let each = if self.ranks.ranks() > self.ranks.ranks_of_process() { " in each process" } else { "" };
            observer.on(Event::Warning(format!(
                "the run was started with {before} and continues with {now}{each}: sums may round differently, so its \
                 bits may not be those of an uninterrupted run; `run.threads = {}` keeps them",
                saved.threads
            )));
        }
        self.position.step = saved.step;
        self.position.samples_seen = saved.samples_seen;
        let Some(records) = &mut self.records else { return Ok(()) };
        records.saved_step = Some(saved.step);
        records.health.resume_from(records.metrics.lines(STEPS_READ_AT_RESUME)?);
        if !saved.is_rescue {
            records.prune(saved.step, observer);
        }
        Ok(())
    }

    /// Starts the image projection from whitened features, where `model.image_projection.whitening` asks for it. It
    /// needs the features of every training image, so all are computed before the first step.
    fn whiten_projection(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let strength = self.config.model.image_projection.whitening;
        let locked = self.locked.towers.images.as_ref().zip(self.locked.images.as_ref());
        let Some((features, set)) = locked.filter(|_| strength > 0.0) else { return Ok(()) };
        let (features, set) = (features.clone(), set.clone());
        self.fill_image_features(&features, &set, observer)?;
        let usable = set.usable();
        let form = self.learner.model.image_projection.form();
        let Some(map) = self.learner.model.image_projection.linear_part() else {
            return Err(TrainError::Internal(format!("`{form}`, a head without a linear map, is to be whitened")));
        };
        let inputs = |images| features.select(&set, images, 0).map(|pooled| map.input(pooled).without_autodiff());
        let blocks = usable.chunks(WHITENED_AT_ONCE).map(inputs);
        let white = whitened(map.weight.val().without_autodiff(), usable.len(), blocks, strength)?;
        *map.weight = Param::from_tensor(white.autodiff().require_grad());
        Ok(())
    }
}

impl Run {
    /// Computes the features of the training images that are not cached yet, and leaves out images that cannot be used.
    ///
    /// # Errors
    /// Those of [`ImageFeatures::fill`]; [`TrainError::Data`] when too many images are unreadable.
    pub(crate) fn fill_image_features(
        &mut self,
        features: &ImageFeatures,
        set: &ImageSet,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let (_, bad) = features.fill(set, |done| {
            observer.on(Event::Work { name: "features of the locked image tower", done, total: set.len() });
        })?;
        let new = bad.into_iter().filter(|skipped| self.data.unreadable_images.record(skipped.clone()));
        if let Some(records) = &mut self.records {
            records.log_skipped(&new.collect::<Vec<_>>(), &self.data.dataset, observer);
        }
        self.data.unreadable_images.check(&self.data.dataset, self.data.unreadable_policy)?;
        Ok(())
    }
}

/// Opens `device`, one of those of `run.device`.
fn open_device(config: &RunConfig, device: &str, observer: &mut dyn Observer) -> Result<Compute, TrainError> {
    let compute = Compute::select(device, config.run.threads)?.computing_as(&config.run)?;
    let what =
        match (compute.trains_with_rounded_factors(), compute.rounds_factors() && config.computes_locked_layers()) {
            (true, true) => Some("training and locked towers"),
            (true, false) => Some("training"),
            (false, true) => Some("locked towers"),
            (false, false) => None,
        };
    if let Some((instructions, what)) = bf16_instructions().zip(what) {
        let slower = if bf16_is_faster() { "" } else { ", on Intel processors slower than `f32`" };
        observer.on(Event::Note(format!("{what}: products in bf16 by {instructions}{slower}")));
    }
    let is_slower = [compute.trained_dtype(), compute.locked_dtype()] != [FloatDType::F32; 2];
    if compute.on_host && is_slower {
        observer.on(Event::Warning("the CPU is slower below single precision: it converts to f32".to_owned()));
    }
    #[cfg(feature = "cuda")]
    if device.starts_with("cuda") {
        observer.on(match dualenc_kernels::matrix_library(&compute.device) {
            Some(name) => Event::Note(format!("matrices are multiplied by {name}")),
            None => Event::Warning(
                "cuBLASLt is not in use (it is not found, does not start on this driver, or is turned off): matrices \
                 are multiplied by slower kernels, which are tuned first; see docs/GPU.md, \"Install\""
                    .to_owned(),
            ),
        });
    }
    Ok(compute)
}

/// Names a tower of which nothing is computed in bf16, though the config asks for it.
fn warn_of_convolutions(model: &DualEncoder, compute: &Compute, observer: &mut dyn Observer) {
    let tower = &model.image_tower;
    let key = match tower.is_locked() {
        true => compute.rounds_factors().then_some("locked_precision"),
        false => compute.trains_with_rounded_factors().then_some("precision"),
    };
    if let Some(key) = key.filter(|_| !tower.is_absent() && !tower.has_linears()) {
        observer.on(Event::Warning(format!(
            "the image tower has convolutions only, which the CPU computes in f32, though `run.{key}` is `bf16`"
        )));
    }
}

/// The teacher, which has to fit the data.
fn open_teacher(
    config: &RunConfig,
    dataset: &Dataset,
    compute: &Compute,
    observer: &mut dyn Observer,
) -> Result<Option<LoadedTeacher>, TrainError> {
    let teacher = LoadedTeacher::of(config, compute, observer)?;
    if let Some(teacher) = &teacher {
        teacher.check_dataset(dataset)?;
        observer.on(Event::Note(teacher.describe()));
    }
    Ok(teacher)
}

/// The checkpoint to start from; `None`: the run starts at the beginning, with the keys that differ from those of a run
/// that it starts over. Changes nothing.
fn find_checkpoint(
    dir: &RunDir,
    start: Start,
    config: &RunConfig,
    ranks: usize,
    observer: &mut dyn Observer,
) -> Result<(Option<Checkpoint>, Vec<Change>), TrainError> {
    if !start.is_resumed() {
        return Ok((None, Vec::new()));
    }
    let Some(Newest { checkpoint, damaged }) = checkpoint::newest_valid(&dir.checkpoints())? else {
        // A run that was killed before its first checkpoint has logged no more steps than it may lose.
        let step = last_step(&dir.metrics())?;
        let every_steps = config.checkpoint.every_steps;
        let every_steps = RunConfig::load(&dir.config(), &[]).map_or(every_steps, |old| old.checkpoint.every_steps);
        if dir.has_lost_checkpoints() || step > every_steps.saturating_mul(u64::from(MAX_FAILED_SAVES)) {
            return Err(TrainError::CheckpointsGone { dir: dir.root().to_owned(), step });
        }
        let changes = if step > 0 { refuse_other_run(dir, config, ranks)? } else { Vec::new() };
        observer.on(Event::Note(match step {
            0 => "there is no checkpoint to resume from: the run starts at the beginning".to_owned(),
            _ => {
                format!(
                    "there is no checkpoint to resume from: the run starts over, after {} that {} lost",
                    counted(step as usize, "step"),
                    if step == 1 { "was" } else { "were" }
                )
            }
        }));
        return Ok((None, changes));
    };
    for error in damaged {
        let step = checkpoint.progress.step;
        observer.on(Event::Warning(format!("{error}; resuming from the checkpoint of step {step}")));
    }
    Ok((Some(checkpoint), Vec::new()))
}

/// The best evaluation up to `step`. If the evaluation that `checkpoint.best` names has changed, its earlier figures do
/// not count.
fn best_so_far(
    config: &RunConfig,
    evaluations: &[Evaluation],
    dir: &RunDir,
    step: u64,
    observer: &mut dyn Observer,
) -> Result<BestTracker, TrainError> {
    let metric = config.checkpoint.best_metric();
    let named = |metric: &BestMetric| evaluations.iter().find(|found| found.name == metric.evaluation);
    let measures = metric.as_ref().and_then(named).map(Evaluation::fingerprint).transpose()?;
    let best = BestTracker::of_run(&config.checkpoint, dir.root(), step, measures.as_deref())?;
    if let (Some(metric), other @ 1..) = (metric, best.num_other()) {
        observer.on(Event::Warning(format!(
            "the evaluation `{}` has changed, so its {other} earlier results are not comparable: `checkpoint.best` and \
             `checkpoint.patience` start over, and the best checkpoint so far is kept until there is a new one",
            metric.evaluation
        )));
    }
    Ok(best)
}

/// Opens the records of a run at `step` and writes its resolved config.
fn open_records(
    config: &RunConfig,
    dir: RunDir,
    step: u64,
    warmup_steps: u64,
    (best, bad_samples): (BestTracker, BadSamples),
    observer: &mut dyn Observer,
) -> Result<Records, TrainError> {
    dir.prepare()?;
    let (metrics, config_toml) = (MetricsLog::open(&dir.metrics(), step)?, config.to_toml()?);
    let open_events = || EventFile::open(dir.root(), &config_toml, &dir.metrics());
    let records = Records {
        metrics,
        events: config.run.tensorboard.then(open_events).transpose()?,
        bad_samples,
        best,
        health: HealthMonitor::new(config.train.loss, warmup_steps, config.train.logit_scale_max),
        config_toml,
        checkpoint: config.checkpoint.clone(),
        saved_step: None,
        failed_saves: 0,
        dir,
    };
    if let damaged @ 1.. = records.metrics.damaged_lines {
        let path = records.dir.metrics();
        observer.on(Event::Warning(format!("damaged lines removed from `{}`: {damaged}", path.display())));
    }
    write_whole(&records.dir.config(), |file| file.write_all(records.config_toml.as_bytes()))?;
    Ok(records)
}

/// The warning about steps before `step` that are not in the log, such as when it was deleted.
fn lines_are_missing(records: &Records, step: u64, skipped: &[[u64; 2]]) -> Option<String> {
    let missing = records.metrics.missing_steps(step, skipped);
    let range =
        |[first, last]: &[u64; 2]| if first == last { format!("{first}") } else { format!("{first} to {last}") };
    let mut names: Vec<String> = missing.iter().take(MAX_NAMED_GAPS).map(range).collect();
    let count: u64 = missing.iter().map(|[first, last]| last - first + 1).sum();
    if let more @ 1.. = missing.len().saturating_sub(MAX_NAMED_GAPS) {
        names.push(format!("{more} more gaps"));
    }
    (count > 0).then(|| {
        format!(
            "`{}` lacks {} of the {step} before this resume: {}; reports leave them out. If you have a copy of the \
             file, stop, put it back and resume again",
            records.dir.metrics().display(),
            counted(count as usize, "step"),
            names.join(", ")
        )
    })
}

/// What trains in each stage.
fn report_stages(learner: &Learner, observer: &mut dyn Observer) -> Result<(), TrainError> {
    let Learner { stages, model, .. } = learner;
    for (number, stage) in stages.iter().enumerate() {
        if stages.len() > 1 {
            observer.on(Event::Note(stages.describe(number)));
        }
        let model: DualEncoder = stage.training.of(model.clone())?;
        let groups = learner.optimizer().param_groups();
        observer.on(Event::Parts(&summarize_parts(&model, groups, stage.learning_rate)?));
    }
    Ok(())
}

fn report_dataset(config: &RunConfig, dataset: &Dataset, observer: &mut dyn Observer) {
    let (images, captions) = (counted(dataset.num_images(), "image"), counted(dataset.num_captions(), "caption"));
    dataset.notes.iter().for_each(|note| observer.on(Event::Note(note.clone())));
    let warnings = dataset.warnings.iter().cloned().chain(dataset.null_words()).chain(config.caption_warnings(dataset));
    warnings.for_each(|warning| observer.on(Event::Warning(warning)));
    observer.on(Event::Note(format!("{images} with {captions}")));
    if dataset.skipped.count > 0 {
        let (rows, causes, first) =
            (&dataset.skipped, dataset.skipped.by_cause(), dataset.skipped.first(MAX_NAMED_ROWS));
        let rows = counted(rows.count, "row");
        observer.on(Event::Warning(format!("{rows} could not be used: {causes}; such as {first}")));
    }
}
