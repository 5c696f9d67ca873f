//! What a run leaves: evaluations, checkpoints, and whether it is worth going on.

use std::time::Instant;

use dualenc_model::{DualEncoder, parameters};
use parameters::Which;

use crate::checkpoint::{self, Progress, Retention, Tensors};
use crate::ema::Ema;
use crate::encode::Encoder;
use crate::error::TrainError;
use crate::evaluate::Evaluation;
use crate::features::LockedTowers;
use crate::observer::{Event, Observer};

use super::Run;

impl Run {
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
