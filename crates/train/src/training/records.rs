//! What a run leaves in its directory: metrics, checkpoints, and which checkpoint is the best.

use std::path::Path;
use std::time::Instant;

use dualenc_data::{Batch, Dataset};

use crate::config::CheckpointSection;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::run_dir::atomic_file::write_whole;
use crate::run_dir::best::BestTracker;
use crate::run_dir::checkpoint::retention::{self, Retention};
use crate::run_dir::checkpoint::{self, Progress, Tensors};
use crate::run_dir::layout::RunDir;
use crate::run_dir::metrics_log::{EvalRecord, MetricsLog, TrainRecord};
use crate::training::health::HealthMonitor;
use crate::training::position::Position;

/// The open run directory with everything that is recorded in it.
pub(crate) struct Records {
    pub dir: RunDir,
    pub metrics: MetricsLog,
    pub best: BestTracker,
    pub health: HealthMonitor,
    /// The resolved config, as written into every checkpoint.
    pub config_toml: String,
    pub checkpoint: CheckpointSection,
    /// The step of the newest checkpoint of this process.
    pub saved_step: Option<u64>,
}

impl Records {
    /// Logs and reports a step, with what its numbers warn of.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the log cannot be written.
    pub fn log_step(&mut self, record: &TrainRecord, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.metrics.train(record)?;
        observer.on(Event::Step(record));
        for warning in self.health.check(record) {
            self.metrics.warning(&warning)?;
            observer.on(Event::Warning(format!("step {}: {}", warning.step, warning.message)));
        }
        Ok(())
    }

    /// Logs and reports an evaluation, and whether it is the best so far.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the log cannot be written.
    pub fn log_eval(&mut self, record: &EvalRecord, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.metrics.eval(record)?;
        observer.on(Event::Eval(record));
        if self.best.record(record)
            && let Some(best) = self.best.best()
        {
            observer.on(Event::Best(&best));
        }
        Ok(())
    }

    /// Whether the run ends before its last step, since `checkpoint.patience` is exhausted.
    pub fn stops_early(&self, position: &Position) -> bool {
        self.best.is_exhausted() && !position.is_at_end()
    }

    /// Reports why the run [stops early](Self::stops_early).
    pub fn report_early_stop(&self, position: &Position, observer: &mut dyn Observer) {
        if let Some(best) = self.best.best() {
            observer.on(Event::Note(format!(
                "training ends early, after step {} of {}: `{}` has not improved in {} evaluations \
                 (`checkpoint.patience`)",
                position.step,
                position.total_steps,
                best.metric,
                self.best.stale()
            )));
        }
    }

    /// Whether the state is saved after this step.
    pub fn checkpoint_is_due(&self, position: &Position) -> bool {
        position.step == position.total_steps
            || position.step.is_multiple_of(self.checkpoint.every_steps.max(1))
            || self.best.best_step() == Some(position.step)
            || self.stops_early(position)
    }

    /// Deletes the checkpoints up to `step` that a killed process wrote and did not get to delete.
    ///
    /// # Errors
    /// [`TrainError::Write`] when one cannot be deleted.
    pub fn prune(&self, step: u64) -> Result<(), TrainError> {
        retention::prune(&self.dir.checkpoints(), step, self.retention())
    }

    fn retention(&self) -> Retention {
        Retention { keep: self.checkpoint.keep, best: self.best.best_step() }
    }

    /// Writes a checkpoint. `started`: when saving began, the copy of the tensors from the device included.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the disk fails; older checkpoints are left alone then.
    pub fn save(
        &mut self,
        progress: &Progress,
        tensors: Tensors<'_>,
        started: Instant,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        self.metrics.sync()?;
        let path = checkpoint::save(&self.dir.checkpoints(), progress, &self.config_toml, tensors, self.retention())?;
        self.saved_step = Some(progress.step);
        observer.on(Event::Saved { path: &path, took: started.elapsed() });
        Ok(())
    }
}

/// The numbers of a step that an update must not be made with unless they are finite.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepNumbers {
    pub loss: f64,
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// A logarithm.
    pub logit_scale: f64,
}

impl StepNumbers {
    /// Stops before an update that would spoil the weights, and writes what the batch held to
    /// `not-finite-step-NNNNNN.json` in `dir`.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] when loss or gradient norm are NaN or infinite.
    pub fn guard_finite(self, batch: &Batch, dataset: &Dataset, dir: &Path) -> Result<(), TrainError> {
        let Self { loss, grad_norm, learning_rate, logit_scale } = self;
        let what = [("the loss", loss), ("the gradient's norm", grad_norm)];
        let Some((what, value)) = what.into_iter().find(|(_, value)| !value.is_finite()) else { return Ok(()) };
        let samples: Vec<serde_json::Value> = batch
            .pairs
            .iter()
            .map(|pair| {
                let image = dataset.images[pair.image].key();
                serde_json::json!({"image": image, "caption": dataset.captions[pair.caption].text})
            })
            .collect();
        let step = batch.step + 1;
        let dump = dir.join(format!("not-finite-step-{step:06}.json"));
        let content = serde_json::json!({
            "step": step, "loss": loss.to_string(), "grad_norm": grad_norm.to_string(),
            "learning_rate": learning_rate, "logit_scale": logit_scale, "samples": samples,
        });
        write_whole(&dump, |file| serde_json::to_writer_pretty(file, &content).map_err(Into::into))?;
        Err(TrainError::NotFinite { what, value, step, learning_rate, logit_scale, dump })
    }
}
