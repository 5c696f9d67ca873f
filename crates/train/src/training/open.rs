//! Opening a run: everything it needs is checked, its directory is taken, and a checkpoint is put in place.

use std::sync::Arc;

use burn::module::Param;
use dualenc_data::Dataset;
use dualenc_model::DualEncoder;

use crate::config::{Precision, RunConfig};
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::evaluation::Evaluation;
use crate::events::{Event, Observer};
use crate::features::locked_towers::LockedFingerprints;
use crate::models::load::LoadedModel;
use crate::optim::lr_schedule::LrSchedule;
use crate::optim::part_summary::summarize_parts;
use crate::run_dir::atomic_file::write_whole;
use crate::run_dir::best::BestTracker;
use crate::run_dir::checkpoint::{self, Checkpoint, retention};
use crate::run_dir::layout::RunDir;
use crate::run_dir::metrics_log::MetricsLog;
use crate::stop_flag::StopFlag;
use crate::training::health::{HealthMonitor, STEPS_READ_AT_RESUME};
use crate::training::learner::Learner;
use crate::training::locked_inputs::LockedInputs;
use crate::training::position::Position;
use crate::training::records::Records;
use crate::training::resume_checks::{refuse_changed_config, refuse_changed_inputs, refuse_changed_rates};
use crate::training::run::Run;
use crate::training::stages::Stages;
use crate::training::training_data::TrainingData;
use crate::training::whitening::whitened;

/// Features whitened at once: 12 MB at a width of 768.
const WHITENED_AT_ONCE: usize = 4096;

impl Run {
    /// Checks everything a run needs, takes its directory, and goes to where it left off.
    ///
    /// # Errors
    /// [`TrainError`], before the first step. Until config, data and weights are accepted, nothing of an earlier run is
    /// changed.
    pub fn open(
        config: &RunConfig,
        resume: bool,
        stop: &StopFlag,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        config.warnings().into_iter().for_each(|warning| observer.on(Event::Warning(warning)));
        let compute = open_device(config, observer)?;
        let dir = RunDir::open(&config.run.dir, resume)?;
        let checkpoint = find_checkpoint(&dir, observer)?;
        if let Some(checkpoint) = &checkpoint {
            refuse_changed_config(checkpoint, config, observer)?;
        }

        let workers = config.data.workers.unwrap_or(compute.threads).max(1);
        let dataset = Arc::new(config.data.train.read()?);
        report_dataset(&dataset, observer);
        let LoadedModel { model, tokenizer, processor, .. } = LoadedModel::from_config(config, &compute, observer)?;
        let evaluations = Evaluation::open_all(config)?;
        let data = TrainingData::new(config, dataset, tokenizer, processor, workers)?;
        report_cut_captions(&data, observer);

        let steps_per_epoch = data.steps_per_epoch();
        let total_steps = config.total_steps(steps_per_epoch);
        let lr_schedule = LrSchedule::new(&config.train, total_steps)?;
        let locked_fingerprints = LockedFingerprints::of(&model)?;
        if let Some(checkpoint) = &checkpoint {
            refuse_changed_inputs(checkpoint, &data.fingerprint, &locked_fingerprints.all)?;
            refuse_changed_rates(checkpoint, &lr_schedule)?;
        }
        let stages = Stages::new(config, &model, steps_per_epoch, total_steps)?;
        let warmup_steps = lr_schedule.warmup_steps;
        let learner = Learner::new(config, model, stages, lr_schedule, compute.on_host)?;
        report_stages(&learner, observer)?;

        // Nothing of an earlier run is changed before this line.
        let records = open_records(config, dir, checkpoint.as_ref(), warmup_steps)?;
        let mut run = Self {
            config: config.clone(),
            position: Position::start(steps_per_epoch, total_steps),
            learner,
            data,
            locked: LockedInputs::none(),
            records,
            evaluations,
            locked_fingerprints,
            compute,
            stop: stop.clone(),
        };
        let is_fresh = checkpoint.is_none();
        if let Some(checkpoint) = checkpoint {
            run.resume_from(checkpoint, observer)?;
        }
        run.enter_stage()?;
        if is_fresh {
            run.whiten_projection(observer)?;
        }
        run.learner.begin_averages()?;
        let Position { step, total_steps, steps_per_epoch, .. } = run.position;
        observer.on(Event::Start { step, total_steps, steps_per_epoch });
        if let Some(best) = run.records.best.best() {
            observer.on(Event::Best(&best));
        }
        Ok(run)
    }

    /// Puts the state of a checkpoint in place.
    fn resume_from(&mut self, checkpoint: Checkpoint, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let saved = &checkpoint.progress;
        if saved.threads != self.compute.threads {
            observer.on(Event::Warning(format!(
                "the run was started with {} threads and continues with {}: sums round differently, so its bits will \
                 not be those of an uninterrupted run",
                saved.threads, self.compute.threads
            )));
        }
        self.position.step = saved.step;
        self.position.samples_seen = saved.samples_seen;
        let records = &mut self.records;
        records.saved_step = Some(saved.step);
        records.best = BestTracker::of_run(&self.config.checkpoint, records.dir.root(), saved.step)?;
        records.health.resume_from(records.metrics.lines(STEPS_READ_AT_RESUME)?);
        let step = saved.step;
        self.learner.restore(checkpoint)?;
        self.records.prune(step)
    }

    /// Starts the image projection from whitened features, where `model.image_projection.whitening` asks for it. It
    /// needs the features of every training image, so all are computed before the first step.
    fn whiten_projection(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let strength = self.config.model.image_projection.whitening;
        let locked = self.locked.towers.images.as_ref().zip(self.locked.images.as_ref());
        let Some((features, set)) = locked.filter(|_| strength > 0.0) else { return Ok(()) };
        let (_, bad) = features.fill(set, |done| {
            observer.on(Event::Work { name: "features of the locked image tower", done, total: set.len() });
        })?;
        for skipped in bad {
            observer.on(Event::Skipped(&skipped));
            self.data.unreadable_images.record(skipped);
        }
        self.data.unreadable_images.check(&self.data.dataset, self.data.unreadable_policy)?;
        let usable = set.usable();
        let blocks = usable.chunks(WHITENED_AT_ONCE).map(|images| features.select(set, images, 0));
        let weight = &mut self.learner.model.image_projection.weight;
        let white = whitened(weight.val().without_autodiff(), usable.len(), blocks, strength)?;
        *weight = Param::from_tensor(white.autodiff().require_grad());
        Ok(())
    }
}

fn open_device(config: &RunConfig, observer: &mut dyn Observer) -> Result<Compute, TrainError> {
    let compute = Compute::select(&config.run.device, config.run.threads)?.computing_as(&config.run)?;
    if compute.on_host && [compute.precision, compute.locked_precision] != [Precision::F32; 2] {
        observer.on(Event::Warning("the CPU is slower below single precision: it converts to f32".to_owned()));
    }
    Ok(compute)
}

/// The newest valid checkpoint of the run, after what a killed process left behind is removed.
fn find_checkpoint(dir: &RunDir, observer: &mut dyn Observer) -> Result<Option<Checkpoint>, TrainError> {
    retention::clean(&dir.checkpoints())?;
    checkpoint::newest_valid(&dir.checkpoints(), |error| {
        observer.on(Event::Warning(format!("{error}; an older one is used")));
    })
}

/// Opens the records of the run and writes its resolved config.
fn open_records(
    config: &RunConfig,
    dir: RunDir,
    checkpoint: Option<&Checkpoint>,
    warmup_steps: u64,
) -> Result<Records, TrainError> {
    let step = checkpoint.map_or(0, |checkpoint| checkpoint.progress.step);
    let records = Records {
        metrics: MetricsLog::open(&dir.metrics(), step)?,
        best: BestTracker::new(&config.checkpoint),
        health: HealthMonitor::new(config.train.loss, warmup_steps, config.train.logit_scale_max),
        config_toml: config.to_toml()?,
        checkpoint: config.checkpoint.clone(),
        saved_step: None,
        dir,
    };
    write_whole(&records.dir.config(), |file| file.write_all(records.config_toml.as_bytes()))?;
    Ok(records)
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

fn report_dataset(dataset: &Dataset, observer: &mut dyn Observer) {
    observer.on(Event::Note(format!("{} images with {} captions", dataset.images.len(), dataset.captions.len())));
    if dataset.skipped.count > 0 {
        let first = dataset.skipped.first.join("; ");
        observer.on(Event::Warning(format!("{} rows could not be used: {first}", dataset.skipped.count)));
    }
}

fn report_cut_captions(data: &TrainingData, observer: &mut dyn Observer) {
    let (all, limit) = (data.dataset.captions.len(), data.tokenizer.max_tokens());
    if let Some(cut) = data.num_cut_captions().filter(|&cut| cut > 0) {
        observer.on(Event::Note(format!("{cut} of {all} captions are longer than {limit} tokens and are cut")));
    }
}
