//! The state of a training run, how it is opened and resumed, and the steps that the loop is made of.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use burn::module::Param;
use burn::tensor::Tensor;
use dualenc_data::{
    BadImages, BadSamplePolicy, Batch, DataError, Dataset, ImageProcessor, LoaderOptions, PairLoader, Parts, Plan,
    Tokenizer, Tokens,
};
use dualenc_model::{DualEncoder, parameters};
use parameters::{ParamUpdate, Which};

use crate::assemble::{Assembly, param_groups};
use crate::checkpoint::{self, Checkpoint, Progress, Retention, Tensors};
use crate::config::{Duration, Precision, RunConfig, changed_keys};
use crate::device::Compute;
use crate::ema::Ema;
use crate::encode::Encoder;
use crate::error::TrainError;
use crate::evaluate::Evaluation;
use crate::features::{LockedFingerprints, LockedTowers, cache_of};
use crate::files::write_whole;
use crate::gradients::ParamGradients;
use crate::image_set::{ImageSet, views_of};
use crate::loss::{Objective, PairIds};
use crate::metrics::{MetricsLog, TrainRecord};
use crate::monitor::{MEMORY, Monitor};
use crate::observer::{Event, Observer};
use crate::optim::Optimizer;
use crate::param_rules::StepRate;
use crate::run_dir::RunDir;
use crate::schedule::RateCurve;
use crate::selection::Selection;
use crate::stages::Stages;
use crate::stop::StopFlag;
use crate::whitening::whitened;

/// Features that are whitened at once: 12 MB of width 768.
const WHITENED_AT_ONCE: usize = 4096;

/// A run in progress.
pub(crate) struct Run {
    pub model: DualEncoder,
    pub optimizer: Optimizer,
    ema: Option<Ema>,
    selection: Selection,
    pub metrics: MetricsLog,
    /// Updates done.
    pub step: u64,
    pub samples_seen: u64,
    pub total_steps: u64,
    pub steps_per_epoch: u64,
    rate_curve: RateCurve,
    stages: Stages,
    pub seed: u64,
    pub objective: Objective,
    pub compute: Compute,
    /// Height and width of the processed images.
    pub image_size: (u32, u32),
    /// The locked towers, with what is kept of them.
    pub locked: LockedTowers,
    /// The training images as the locked image tower knows them.
    pub image_set: Option<ImageSet>,
    /// Of every caption of the data; equal numbers are equal captions.
    caption_ids: Vec<u64>,
    /// The model's form without values, which stands in its place while it is updated.
    hollow: DualEncoder,
    dir: RunDir,
    config: RunConfig,
    config_toml: String,
    dataset: Arc<Dataset>,
    data_fingerprint: String,
    locked_fingerprints: LockedFingerprints,
    tokens: Tokens,
    tokenizer: Arc<Tokenizer>,
    processor: Arc<ImageProcessor>,
    plan: Plan,
    workers: usize,
    evaluations: Vec<Evaluation>,
    bad_images: BadImages,
    monitor: Monitor,
    saved_step: Option<u64>,
    stop: StopFlag,
}

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
        let plan = Plan {
            seed: config.run.seed,
            batch_size: config.train.batch_size,
            len: pairs,
            shuffle: config.data.shuffle,
        };
        let steps_per_epoch = plan.batches_per_epoch() as u64;
        if steps_per_epoch == 0 {
            return Err(TrainError::Usage(format!(
                "{pairs} pairs do not fill one batch of {}; lower `train.batch_size` or add data",
                plan.batch_size
            )));
        }
        let total_steps = match config.duration() {
            Duration::Epochs(epochs) => epochs * steps_per_epoch,
            Duration::Steps(steps) => steps,
        };
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

    /// Goes on to the stage that begins here; tells whether there is one.
    pub fn next_stage(&mut self, observer: &mut dyn Observer) -> Result<bool, TrainError> {
        if self.step >= self.total_steps {
            return Ok(false);
        }
        self.enter_stage()?;
        self.begin_averages()?;
        let number = self.stages.number(self.step);
        observer.on(Event::Note(format!("step {}  {}", self.step, described(&self.stages, number))));
        Ok(true)
    }

    /// Locks and unlocks what the stage of this step does, and opens what is kept of its locked towers.
    fn enter_stage(&mut self) -> Result<(), TrainError> {
        let training = self.stages.at(self.step).training;
        self.model = training.of(self.model.clone())?;
        self.hollow = parameters::hollow(&self.model);
        let fingerprints = match training == self.config.ever_trains() {
            true => self.locked_fingerprints.clone(),
            false => LockedFingerprints::of(&self.model)?,
        };
        self.locked = LockedTowers::new(&self.model, &self.processor, &self.compute, self.workers, &self.stop)
            .kept_in(cache_of(&self.config), &fingerprints)?;
        let views = views_of(&self.config, &training);
        self.image_set = self.locked.images.as_ref().map(|images| images.set(self.dataset.clone(), views));
        Ok(())
    }

    /// What trains in this stage is averaged, where averages are asked for.
    fn begin_averages(&mut self) -> Result<(), TrainError> {
        Ok(self.ema.as_mut().map_or(Ok(()), |ema| ema.begin(&self.model))?)
    }

    /// The rate of the 0-based `step`: of what has none of its own.
    pub fn learning_rate(&self, step: u64) -> f64 {
        self.stages.at(step).learning_rate * self.rate_share(step)
    }

    /// The share of its highest rate that a parameter has at the 0-based `step`.
    fn rate_share(&self, step: u64) -> f64 {
        self.rate_curve.at(step) * self.stages.rise(step)
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

    fn bad_policy(&self) -> BadSamplePolicy {
        BadSamplePolicy { max_bad_fraction: self.config.data.max_bad_fraction }
    }

    /// The batches from here to the end of the stage.
    pub fn batches(&self) -> Result<impl Iterator<Item = Result<Batch, DataError>> + use<>, TrainError> {
        let locked = self.locked.images.as_ref().zip(self.image_set.as_ref());
        Ok(PairLoader::new(LoaderOptions {
            dataset: Arc::clone(&self.dataset),
            mode: self.config.data.captions,
            plan: self.plan,
            start_step: self.step,
            num_steps: self.stages.end(self.step).saturating_sub(self.step),
            parts: Parts {
                size: self.micro_batch_size(),
                twice: self.micro_batch_size().is_some() && self.trains_on_pixels(),
            },
            processor: Arc::clone(&self.processor),
            augment: self.config.data.augment,
            views: self.config.views(&self.stages.at(self.step).training),
            kept: locked.and_then(|(features, set)| features.for_loader(set)),
            tokens: self.tokens.clone(),
            bad: self.bad_policy(),
            bad_images: self.bad_images.clone(),
            workers: self.workers,
        })?)
    }

    /// Pairs of a part of a step; `None`: steps are computed whole.
    fn micro_batch_size(&self) -> Option<NonZeroUsize> {
        let size = self.config.train.micro_batch_size.filter(|size| *size < self.config.train.batch_size);
        size.and_then(NonZeroUsize::new)
    }

    /// Whether the image tower trains: then a step that comes in parts needs their pixels twice.
    pub fn trains_on_pixels(&self) -> bool {
        self.locked.images.is_none()
    }

    /// What the data say about the pairs of a batch.
    pub fn pair_ids(&self, batch: &Batch) -> PairIds {
        let caption_id = |caption: usize| self.caption_ids[caption];
        let known = |image: usize| self.dataset.captions_of(image).iter().map(|&caption| caption_id(caption)).collect();
        PairIds {
            captions: batch.pairs.iter().map(|pair| caption_id(pair.caption)).collect(),
            known: batch.pairs.iter().map(|pair| known(pair.image)).collect(),
        }
    }

    /// The value of the parameter, a logarithm.
    pub fn logit_scale(&self) -> Result<f64, TrainError> {
        let values = parameters::host(self.model.logit_scale.val().without_autodiff())?.values;
        Ok(values.iter().map(|&value| f64::from(value)).sum())
    }

    /// Stops before an update that would spoil the weights, and leaves a note of what was in the batch.
    pub fn guard_finite(
        &self,
        batch: &Batch,
        loss: f64,
        grad_norm: f64,
        learning_rate: f64,
        logit_scale: f64,
    ) -> Result<(), TrainError> {
        let what = [("the loss", loss), ("the gradient's norm", grad_norm)];
        let Some((what, value)) = what.into_iter().find(|(_, value)| !value.is_finite()) else { return Ok(()) };
        let samples: Vec<serde_json::Value> = batch
            .pairs
            .iter()
            .map(|pair| {
                let image = self.dataset.images[pair.image].key();
                serde_json::json!({"image": image, "caption": self.dataset.captions[pair.caption].text})
            })
            .collect();
        let step = batch.step + 1;
        let dump = self.dir.root().join(format!("not-finite-step-{step:06}.json"));
        let content = serde_json::json!({
            "step": step, "loss": loss.to_string(), "grad_norm": grad_norm.to_string(),
            "learning_rate": learning_rate, "logit_scale": logit_scale, "samples": samples,
        });
        write_whole(&dump, |file| serde_json::to_writer_pretty(file, &content).map_err(Into::into))?;
        Err(TrainError::NotFinite { what, value, step, learning_rate, logit_scale, dump })
    }

    /// Tells, and writes down, what this step shows to go wrong without being an error.
    pub fn tell_what_goes_wrong(
        &mut self,
        record: &TrainRecord,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        for warning in self.monitor.observe(record) {
            self.metrics.warning(&warning)?;
            observer.on(Event::Warning(format!("step {}: {}", warning.step, warning.message)));
        }
        Ok(())
    }

    /// Clips, updates, and cuts the temperature to its limit.
    pub fn update(&mut self, gradients: ParamGradients, grad_norm: f64, learning_rate: f64) -> Result<(), TrainError> {
        // The optimiser works in place where nothing else shares the values.
        let model = std::mem::replace(&mut self.model, self.hollow.clone());
        let rate = StepRate { base: learning_rate, share: self.rate_share(self.step) };
        let updates = |path: &str| self.stages.updates_before(path, self.step);
        let model = self.optimizer.step(model, gradients, grad_norm, rate, &updates);
        let limit = self.config.train.logit_scale_max;
        let updates = |path: &str| self.stages.updates_before(path, self.step + 1);
        self.model = parameters::update(model, &mut Afterwards { limit, ema: self.ema.as_mut(), updates: &updates });
        let batch =
            self.plan.batch(self.step / self.steps_per_epoch, (self.step % self.steps_per_epoch) as usize).len();
        self.samples_seen += batch as u64;
        self.step += 1;
        Ok(())
    }

    /// Runs every evaluation that is due at this step and does not stand in the log yet.
    pub fn evaluate_where_due(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        if self.step == 0 {
            return Ok(());
        }
        self.evaluate_until(self.total_steps, observer)?;
        match self.stops_early() {
            // What runs when training ends, runs now.
            true => self.evaluate_until(self.step, observer),
            false => Ok(()),
        }
    }

    fn evaluate_until(&mut self, last_step: u64, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let due = |evaluation: &&Evaluation| evaluation.is_due(self.step, self.steps_per_epoch, last_step);
        if !self.evaluations.iter().any(|evaluation| due(&evaluation)) {
            return Ok(());
        }
        let done = self.metrics.evals_at(self.step)?;
        let (model, locked) = self.evaluated()?;
        for evaluation in self.evaluations.iter().filter(due).filter(|evaluation| !done.contains(&evaluation.name)) {
            let encoder = Encoder {
                model: &model,
                tokenizer: &self.tokenizer,
                locked: &locked,
                compute: &self.compute,
                workers: self.workers,
                stop: &self.stop,
                batch_size: evaluation.batch_size,
            };
            let record = evaluation.record(self.step, &encoder, &self.processor, observer)?;
            self.metrics.eval(&record)?;
            observer.on(Event::Eval(&record));
            if self.selection.hear(&record)
                && let Some(best) = self.selection.best()
            {
                observer.on(Event::Best(&best));
            }
        }
        Ok(())
    }

    /// The model as it is evaluated: averaged, where averages are asked for; and what is known of its locked towers.
    fn evaluated(&self) -> Result<(DualEncoder, LockedTowers), TrainError> {
        let (model, locked) = (self.model.valid(), self.locked.clone());
        let Some(ema) = &self.ema else { return Ok((model, locked)) };
        // A tower that trained before and is locked now gives other features by its averages.
        let trained = self.stages.trained_before(self.step);
        let locked = trained.map_or_else(|| locked.clone(), |training| locked.clone().under(&training));
        Ok((ema.averaged(model), locked))
    }

    /// Whether the run ends here, before its last step, since there is nothing to gain.
    pub fn stops_early(&self) -> bool {
        self.selection.is_exhausted() && self.step < self.total_steps
    }

    /// Tells why it [stops early](Self::stops_early).
    pub fn tell_early_stop(&self, observer: &mut dyn Observer) {
        if let Some(best) = self.selection.best() {
            observer.on(Event::Note(format!(
                "training ends early, after step {} of {}: `{}` has not improved in {} evaluations \
                 (`checkpoint.patience`)",
                self.step,
                self.total_steps,
                best.goal,
                self.selection.stale()
            )));
        }
    }

    /// Whether the state is to be saved after this step.
    pub fn checkpoint_is_due(&self) -> bool {
        self.step == self.total_steps
            || self.step.is_multiple_of(self.config.checkpoint.every_steps.max(1))
            || self.selection.best_step() == Some(self.step)
            || self.stops_early()
    }

    /// Writes a checkpoint of this step.
    pub fn save(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        if self.saved_step == Some(self.step) {
            return Ok(());
        }
        let started = Instant::now();
        let progress = Progress {
            step: self.step,
            samples_seen: self.samples_seen,
            total_steps: self.total_steps,
            data: self.data_fingerprint.clone(),
            locked: self.locked_fingerprints.all.clone(),
            threads: self.compute.threads,
        };
        // What trained in another stage is saved too.
        let model = self.config.ever_trains().of(self.model.clone())?;
        let tensors = Tensors {
            model: parameters::collect(&model, Which::Trainable)?,
            optimizer: self.optimizer.state()?,
            ema: self.ema.as_ref().map(Ema::state).transpose()?,
        };
        let retention = Retention { keep: self.config.checkpoint.keep, best: self.selection.best_step() };
        self.metrics.sync()?;
        let path = checkpoint::save(&self.dir.checkpoints(), &progress, &self.config_toml, tensors, retention)?;
        self.saved_step = Some(self.step);
        observer.on(Event::Saved { path: &path, took: started.elapsed() });
        Ok(())
    }
}

/// What follows the optimiser's update.
struct Afterwards<'a> {
    /// `logit_scale` is kept from making the softmax arbitrarily sharp (CLIP, arXiv:2103.00020, sec. 2.5).
    limit: f64,
    ema: Option<&'a mut Ema>,
    /// Of a parameter, this one among them.
    updates: &'a dyn Fn(&str) -> u64,
}

impl ParamUpdate for Afterwards<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        let value = match path {
            "logit_scale" => value.clamp_max(self.limit),
            _ => value,
        };
        match &mut self.ema {
            Some(ema) => ema.take(path, value, (self.updates)(path)),
            None => value,
        }
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
    for (number, (_, stage)) in stages.iter().enumerate() {
        if stages.len() > 1 {
            observer.on(Event::Note(described(stages, number)));
        }
        let model = stage.training.of(model.clone())?;
        observer.on(Event::Groups(&param_groups(&model, optimizer.params(), stage.learning_rate)));
    }
    Ok(())
}

/// A stage in a line.
fn described(stages: &Stages, number: usize) -> String {
    let found = stages.iter().nth(number);
    let (from, lock, rate) =
        found.map_or_else(Default::default, |(from, stage)| (from, stage.lock.to_string(), stage.learning_rate));
    format!("stage {} of {}: `{lock}` from step {from}, learning rate {rate:e}", number + 1, stages.len())
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
