//! How a run is opened: everything it needs is checked, its directory taken, and a stopped one put back where it was.

use std::sync::Arc;

use burn::module::Param;
use dualenc_data::{BadImages, Dataset, Tokenizer, Tokens};
use dualenc_model::{DualEncoder, parameters};
use parameters::Which;

use crate::assemble::{Assembly, param_groups};
use crate::checkpoint::{self, Checkpoint, Progress};
use crate::config::{Precision, RunConfig, changed_keys};
use crate::device::Compute;
use crate::ema::Ema;
use crate::error::TrainError;
use crate::evaluate::Evaluation;
use crate::features::{LockedFingerprints, LockedTowers};
use crate::files::write_whole;
use crate::metrics::MetricsLog;
use crate::monitor::{MEMORY, Monitor};
use crate::observer::{Event, Observer};
use crate::optim::Optimizer;
use crate::run_dir::RunDir;
use crate::schedule::RateCurve;
use crate::selection::Selection;
use crate::stages::Stages;
use crate::stop::StopFlag;
use crate::whitening::whitened;

use super::Run;

/// Features that are whitened at once: 12 MB of width 768.
const WHITENED_AT_ONCE: usize = 4096;

impl Run {
    /// Checks everything a run needs, takes its directory, and goes to where it left off.
    pub fn open(
        config: &RunConfig,
        resume: bool,
        stop: &StopFlag,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        for warning in config.warnings() {
            observer.on(Event::Warning(warning));
        }
        let compute = Compute::select(&config.run.device, config.run.threads)?.computing_as(&config.run)?;
        if compute.on_host && [compute.precision, compute.locked_precision] != [Precision::F32; 2] {
            observer.on(Event::Warning("the CPU is slower in less than single precision: it converts".to_owned()));
        }
        let dir = RunDir::open(&config.run.dir, resume)?;
        checkpoint::clean(&dir.checkpoints())?;
        let found = checkpoint::newest_valid(&dir.checkpoints(), |error| {
            observer.on(Event::Warning(format!("{error}; an older one is used")));
        })?;
        refuse_changes(config, found.as_ref(), observer)?;

        let workers = config.data.workers.unwrap_or(compute.threads).max(1);
        let dataset = Arc::new(config.data.train.read()?);
        tell_dataset(&dataset, observer);
        let assembly = Assembly::from_config(config, &compute, observer)?;
        let evaluations = Evaluation::open_all(config)?;
        let tokens = Tokens::prepare(Arc::clone(&assembly.tokenizer), &dataset, config.data.word_dropout, workers)?;
        tell_cut(&tokens, &assembly.tokenizer, &dataset, observer);

        let pairs = dataset.num_pairs(config.data.captions);
        let plan = config.plan(&dataset);
        let steps_per_epoch = plan.batches_per_epoch() as u64;
        if steps_per_epoch == 0 {
            return Err(TrainError::Usage(format!(
                "{pairs} pairs do not fill one batch of {}; lower `train.batch_size` or add data",
                plan.batch_size
            )));
        }
        let total_steps = config.total_steps(steps_per_epoch);
        let rate_curve = RateCurve::new(&config.train, total_steps)?;
        let data_fingerprint = blake3::Hash::from(dataset.fingerprint()).to_hex().to_string();
        let locked_fingerprints = LockedFingerprints::of(&assembly.model)?;
        if let Some(checkpoint) = &found {
            refuse_other_inputs(checkpoint, &data_fingerprint, &locked_fingerprints.all)?;
            refuse_other_rates(checkpoint, &rate_curve)?;
        }
        let stages = Stages::new(config, &assembly.model, steps_per_epoch, total_steps)?;
        let optimizer = Optimizer::new(&config.train, &assembly.model, compute.on_host)?;
        tell_stages(&stages, &assembly.model, &optimizer, observer)?;
        // Nothing of an earlier run is touched before this line.
        let mut run = Self {
            optimizer,
            ema: config.train.ema_decay.map(|decay| Ema::new(decay, compute.on_host)),
            selection: Selection::new(&config.checkpoint),
            metrics: MetricsLog::open(&dir.metrics(), found.as_ref().map_or(0, |checkpoint| checkpoint.progress.step))?,
            step: 0,
            samples_seen: 0,
            total_steps,
            steps_per_epoch,
            monitor: Monitor::new(config.train.loss, rate_curve.warmup_steps, config.train.logit_scale_max),
            rate_curve,
            seed: config.run.seed,
            objective: config.into(),
            image_size: assembly.processor.output_size(),
            image_set: None,
            locked: LockedTowers::none(),
            stages,
            caption_ids: dataset.caption_ids(),
            data_fingerprint,
            locked_fingerprints,
            config_toml: config.to_toml()?,
            config: config.clone(),
            hollow: parameters::hollow(&assembly.model),
            model: assembly.model,
            tokenizer: assembly.tokenizer,
            processor: assembly.processor,
            tokens,
            dataset,
            compute,
            dir,
            plan,
            workers,
            evaluations,
            bad_images: BadImages::default(),
            saved_step: None,
            stop: stop.clone(),
        };
        write_whole(&run.dir.config(), |file| file.write_all(run.config_toml.as_bytes()))?;
        let fresh = found.is_none();
        if let Some(checkpoint) = found {
            run.go_on_from(checkpoint, observer)?;
        }
        run.enter_stage()?;
        if fresh {
            run.whiten_projection(observer)?;
        }
        run.begin_averages()?;
        observer.on(Event::Start {
            step: run.step,
            total_steps: run.total_steps,
            steps_per_epoch: run.steps_per_epoch,
        });
        if let Some(best) = run.selection.best() {
            observer.on(Event::Best(&best));
        }
        Ok(run)
    }

    /// Puts the state of a checkpoint in place.
    fn go_on_from(&mut self, checkpoint: Checkpoint, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let saved = &checkpoint.progress;
        if saved.threads != self.compute.threads {
            observer.on(Event::Warning(format!(
                "the run was started with {} threads and goes on with {}: sums round differently, so the bits will not be \
                 those of an uninterrupted run",
                saved.threads, self.compute.threads
            )));
        }
        (self.step, self.samples_seen, self.saved_step) = (saved.step, saved.samples_seen, Some(saved.step));
        self.selection = Selection::of_run(&self.config.checkpoint, self.dir.root(), self.step)?;
        let optimizer = checkpoint.optimizer()?;
        if let Some((ema, saved)) = self.ema.as_mut().zip(checkpoint.ema) {
            ema.restore(saved, &self.model);
        }
        self.monitor.go_on_after(self.metrics.lines(MEMORY)?);
        self.model = parameters::restore(self.model.clone(), Which::Trainable, checkpoint.model)?;
        if let Some(trained) = self.stages.trained_before(self.step) {
            self.optimizer.restore(&trained.of(self.model.clone())?, optimizer)?;
        }
        Ok(())
    }

    /// Lets the image projection start from white features, where the configuration asks for it: of every training image, so
    /// all are computed before the first step.
    fn whiten_projection(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let strength = self.config.model.image_projection.whitening;
        let locked = self.locked.images.as_ref().zip(self.image_set.as_ref());
        let Some((features, set)) = locked.filter(|_| strength > 0.0) else { return Ok(()) };
        let (_, bad) = features.fill(set, |done| {
            observer.on(Event::Work { name: "features of the locked image tower", done, total: set.len() });
        })?;
        for skipped in bad {
            observer.on(Event::Skipped(&skipped));
            self.bad_images.record(skipped);
        }
        self.bad_images.check(&self.dataset, self.bad_policy())?;
        let usable = set.usable();
        let blocks = usable.chunks(WHITENED_AT_ONCE).map(|images| features.select(set, images, 0));
        let weight = &mut self.model.image_projection.weight;
        let white = whitened(weight.val().without_autodiff(), usable.len(), blocks, strength)?;
        *weight = Param::from_tensor(white.autodiff().require_grad());
        Ok(())
    }
}

/// A run goes on only under a configuration that learns the same.
fn refuse_changes(
    config: &RunConfig,
    found: Option<&Checkpoint>,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let Some(checkpoint) = found else { return Ok(()) };
    let old = RunConfig::load(&checkpoint.path.join("config.toml"), &[])?;
    let (safe, refused): (Vec<_>, Vec<_>) = changed_keys(&old, config).into_iter().partition(|change| change.safe);
    for change in safe {
        let shown = |value: Option<String>| value.unwrap_or_else(|| "(not given)".to_owned());
        let (key, why) = (change.key, change.why);
        observer.on(Event::Note(format!(
            "`{key}` has changed: {} -> {} ({why})",
            shown(change.old),
            shown(change.new)
        )));
    }
    match refused.is_empty() {
        true => Ok(()),
        false => Err(TrainError::ConfigChanged(refused)),
    }
}

/// A run goes on only with the data and the locked weights that it was started with.
fn refuse_other_inputs(checkpoint: &Checkpoint, data: &str, locked: &str) -> Result<(), TrainError> {
    let saved = &checkpoint.progress;
    if saved.data != data {
        return Err(TrainError::DataChanged { found: data.to_owned(), expected: saved.data.clone() });
    }
    match saved.locked == locked {
        true => Ok(()),
        false => Err(TrainError::LockedChanged { checkpoint: checkpoint.path.clone() }),
    }
}

/// A run goes on only along the curve of the steps it has done.
fn refuse_other_rates(checkpoint: &Checkpoint, curve: &RateCurve) -> Result<(), TrainError> {
    let Progress { step, total_steps, .. } = checkpoint.progress;
    let old = RunConfig::load(&checkpoint.path.join("config.toml"), &[])?;
    let old = RateCurve::new(&old.train, total_steps)?;
    match (0..step).find(|&step| old.at(step) != curve.at(step)) {
        None => Ok(()),
        Some(other) => Err(TrainError::Usage(format!(
            "the run has done {step} steps, and with this length and cooldown the learning rate of step {} would have been \
             another; let the cooldown begin at step {step} or later: lengthen the run, or shorten the cooldown",
            other + 1
        ))),
    }
}

/// What trains in each stage, before the first step.
fn tell_stages(
    stages: &Stages,
    model: &DualEncoder,
    optimizer: &Optimizer,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    for (number, stage) in stages.iter().enumerate() {
        if stages.len() > 1 {
            observer.on(Event::Note(stages.described(number)));
        }
        let model = stage.training.of(model.clone())?;
        observer.on(Event::Groups(&param_groups(&model, optimizer.params(), stage.learning_rate)));
    }
    Ok(())
}

fn tell_dataset(dataset: &Dataset, observer: &mut dyn Observer) {
    observer.on(Event::Note(format!("{} images with {} captions", dataset.images.len(), dataset.captions.len())));
    if dataset.skipped.count > 0 {
        let first = dataset.skipped.first.join("; ");
        observer.on(Event::Warning(format!("{} rows could not be used: {first}", dataset.skipped.count)));
    }
}

fn tell_cut(tokens: &Tokens, tokenizer: &Tokenizer, dataset: &Dataset, observer: &mut dyn Observer) {
    if let Tokens::Table(table) = tokens {
        let (cut, limit) = (table.num_cut(), tokenizer.max_tokens());
        if cut > 0 {
            let all = dataset.captions.len();
            observer.on(Event::Note(format!("{cut} of {all} captions are longer than {limit} tokens and are cut")));
        }
    }
}
