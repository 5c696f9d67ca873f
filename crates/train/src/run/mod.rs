//! The state of a training run, and the steps that the loop is made of. How it is opened and resumed is in `open.rs`, what it
//! leaves in `results.rs`.

mod open;
mod results;

use std::num::NonZeroUsize;
use std::sync::Arc;

use burn::tensor::Tensor;
use dualenc_data::{
    BadImages, BadSamplePolicy, Batch, DataError, Dataset, ImageProcessor, LoaderOptions, PairLoader, Parts, Plan,
    Tokenizer, Tokens,
};
use dualenc_model::{DualEncoder, parameters};
use parameters::ParamUpdate;

use crate::config::RunConfig;
use crate::device::Compute;
use crate::ema::Ema;
use crate::error::TrainError;
use crate::evaluate::Evaluation;
use crate::features::{LockedFingerprints, LockedTowers, cache_of};
use crate::files::write_whole;
use crate::gradients::ParamGradients;
use crate::image_set::{ImageSet, views_of};
use crate::loss::{Objective, PairIds};
use crate::metrics::{MetricsLog, TrainRecord};
use crate::monitor::Monitor;
use crate::observer::{Event, Observer};
use crate::optim::Optimizer;
use crate::param_rules::StepRate;
use crate::run_dir::RunDir;
use crate::schedule::RateCurve;
use crate::selection::Selection;
use crate::stages::Stages;
use crate::stop::StopFlag;

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
    /// Goes on to the stage that begins here; tells whether there is one.
    pub fn next_stage(&mut self, observer: &mut dyn Observer) -> Result<bool, TrainError> {
        if self.step >= self.total_steps {
            return Ok(false);
        }
        self.enter_stage()?;
        self.begin_averages()?;
        let number = self.stages.number(self.step);
        observer.on(Event::Note(format!("step {}  {}", self.step, self.stages.described(number))));
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
        let pairs = batch.pairs.iter().map(|pair| (pair.image, pair.caption));
        PairIds::of(&self.dataset, &self.caption_ids, pairs)
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
