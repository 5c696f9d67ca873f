//! What a run leaves in its directory: metrics, checkpoints, and which checkpoint is the best.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use dualenc_data::{Batch, Dataset, Skipped, UnreadableImages, counted};

use crate::config::CheckpointSection;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::optim::param_groups::LearningRate;
use crate::run_dir::atomic_file::write_whole;
use crate::run_dir::bad_samples::BadSamples;
use crate::run_dir::best::BestTracker;
use crate::run_dir::checkpoint::manifest::Progress;
use crate::run_dir::checkpoint::retention::{self, Retention};
use crate::run_dir::checkpoint::{self, Tensors};
use crate::run_dir::layout::RunDir;
use crate::run_dir::metrics_log::{Entry, EvalRecord, FitRecord, Line, MetricsLog, TrainRecord, WarningRecord};
use crate::run_dir::tensorboard::event_file::EventFile;
use crate::training::health::HealthMonitor;
use crate::training::position::Position;
use crate::training::step::StepOutcome;

/// The open run directory with everything that is recorded in it.
pub(crate) struct Records {
    pub dir: RunDir,
    pub metrics: MetricsLog,
    /// The same for TensorBoard, with `run.tensorboard`.
    pub events: Option<EventFile>,
    pub bad_samples: BadSamples,
    pub best: BestTracker,
    pub health: HealthMonitor,
    /// The resolved config, as written into every checkpoint.
    pub config_toml: String,
    pub checkpoint: CheckpointSection,
    /// The step of the newest checkpoint of this process.
    pub saved_step: Option<u64>,
    /// Checkpoints in a row that could not be written.
    pub failed_saves: u32,
}

/// Checkpoints in a row that may fail before the run ends: enough to outlast a full disk that someone is clearing, and
/// little enough that at most three intervals of work are lost.
pub(crate) const MAX_FAILED_SAVES: u32 = 3;

impl Records {
    /// Logs and reports a step, with what its numbers warn of.
    ///
    /// # Errors
    /// [`TrainError::Internal`] when a number cannot be written as JSON.
    pub fn log_step(&mut self, record: &TrainRecord, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.write_log(Entry::Train(record), observer)?;
        observer.on(Event::Step(record));
        for warning in self.health.check(record) {
            self.log_warning(&warning, observer)?;
        }
        Ok(())
    }

    /// Logs heads that were fitted.
    ///
    /// # Errors
    /// As for [`Records::log_step`].
    pub fn log_fit(&mut self, record: &FitRecord, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.write_log(Entry::Fit(record), observer)
    }

    /// Logs and reports a warning.
    ///
    /// # Errors
    /// As for [`Records::log_step`].
    pub fn log_warning(&mut self, warning: &WarningRecord, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.write_log(Entry::Warning(warning), observer)?;
        observer.on(Event::Warning(format!("step {}: {}", warning.step, warning.message)));
        Ok(())
    }

    /// Appends to the log and to the event file. What cannot be written is reported once; it waits until it can be.
    fn write_log(&mut self, entry: Entry<'_>, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let line = Line::now(entry);
        let was_waiting = self.metrics.is_waiting();
        report_waiting(self.metrics.append(&line), "the line", was_waiting, observer)?;
        let Some(events) = &mut self.events else { return Ok(()) };
        let line = serde_json::to_value(&line).map_err(|error| TrainError::Internal(format!("an event: {error}")))?;
        let was_waiting = events.is_waiting();
        report_waiting(events.append(&line), "the event", was_waiting, observer)
    }

    /// Lists and reports images that cannot be used. A list that cannot be written is reported once and written anew at
    /// the end.
    pub fn log_skipped(&mut self, skipped: &[Skipped], dataset: &Dataset, observer: &mut dyn Observer) {
        if skipped.is_empty() {
            return;
        }
        let was_torn = self.bad_samples.is_torn();
        if let (Err(error), false) = (self.bad_samples.add(dataset, skipped), was_torn) {
            observer.on(Event::Warning(format!("{error}; the list is written anew when training ends")));
        }
        report_skipped(skipped, dataset, self.bad_samples.path(), observer);
    }

    /// Writes the list of what cannot be used anew, with `images`.
    pub fn list_bad_samples(&mut self, images: &[Skipped], dataset: &Dataset, observer: &mut dyn Observer) {
        if let Err(error) = self.bad_samples.rewrite(dataset, images) {
            observer.on(Event::Warning(error.to_string()));
        }
    }

    /// Reports what the run did without, by cause, when training ends after `step` steps.
    pub fn report_bad_samples(
        &mut self,
        step: u64,
        dataset: &Dataset,
        unreadable: &UnreadableImages,
        observer: &mut dyn Observer,
    ) {
        let (images, rows) = (unreadable.found(step), &dataset.skipped);
        if self.bad_samples.is_torn() {
            self.list_bad_samples(&images, dataset, observer);
        }
        let mut counts = Vec::new();
        if !images.is_empty() {
            let causes = Skipped::by_cause(&images);
            counts.push(format!("{} could not be used: {causes}", counted(images.len(), "image")));
        }
        if rows.count > 0 {
            counts.push(format!("{} could not be used: {}", counted(rows.count, "row"), rows.by_cause()));
        }
        if !counts.is_empty() {
            let path = self.dir.bad_samples();
            observer.on(Event::Note(format!("{}; see `{}`", counts.join("; "), path.display())));
        }
    }

    /// Logs and reports an evaluation, and whether it is the best so far.
    ///
    /// # Errors
    /// As for [`Records::log_step`].
    pub fn log_eval(&mut self, record: &EvalRecord, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.write_log(Entry::Eval(record), observer)?;
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
    pub fn prune(&self, step: u64, observer: &mut dyn Observer) {
        if let Err(error) = retention::prune(&self.dir.checkpoints(), step, self.retention()) {
            report_not_pruned(&error, observer);
        }
    }

    fn retention(&self) -> Retention {
        Retention { keep: self.checkpoint.keep, best: self.best.kept_step() }
    }

    /// Writes a checkpoint. `started`: when saving began, the copy of the tensors from the device included.
    ///
    /// # Errors
    /// [`TrainError::SpoiledWeights`] when a value is not finite; [`TrainError::Write`] when the disk fails. Older
    /// checkpoints are left alone then.
    pub fn save(
        &mut self,
        progress: &Progress,
        tensors: Tensors<'_>,
        started: Instant,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        self.dir.check_present()?;
        self.metrics.sync()?;
        self.sync_events(observer);
        let saved = checkpoint::save(&self.dir.checkpoints(), progress, &self.config_toml, tensors, self.retention())?;
        self.saved_step = Some(progress.step);
        self.dir.note_saved();
        observer.on(Event::Saved { path: &saved.path, took: started.elapsed() });
        if let Some(error) = saved.not_pruned {
            report_not_pruned(&error, observer);
        }
        Ok(())
    }

    /// Syncs the event file. No run ends for it: its content follows from the log.
    fn sync_events(&mut self, observer: &mut dyn Observer) {
        let Some(events) = &mut self.events else { return };
        match events.sync() {
            Ok(()) => {}
            Err(TrainError::LostFile { path }) => {
                self.events = None;
                observer.on(Event::Warning(format!(
                    "`{}` was deleted, moved or changed by another program: TensorBoard shows no further step until \
                     the run is resumed, which writes the file anew from `metrics.jsonl`",
                    path.display()
                )));
            }
            Err(error) => observer.on(Event::Warning(format!("{error}; the next checkpoint tries again"))),
        }
    }

    /// Reports that the state after `step` is saved since `error` ends the run, if the launcher may end this process
    /// before a large state is saved: it does so when another process is lost.
    pub fn report_rescue(&self, error: &TrainError, step: u64, observer: &mut dyn Observer) {
        if let TrainError::OfRank { rank, device, source } = error
            && matches!(**source, TrainError::RankIsGone)
            && self.saved_step != Some(step)
        {
            observer.on(Event::Note(format!(
                "rank {rank} ({device}) has lost its process; the state after step {step} is being saved. If that is \
                 cut short, `--resume` continues from the checkpoint before"
            )));
        }
    }

    /// Counts failures to write a checkpoint at an interval. A failing disk ends the run only after
    /// [`MAX_FAILED_SAVES`] in a row: the next one is due at the next interval.
    ///
    /// # Errors
    /// The error of `saved`, if it is not [`TrainError::Write`] or the last of the row.
    pub fn count_save(&mut self, saved: Result<(), TrainError>, observer: &mut dyn Observer) -> Result<(), TrainError> {
        match saved {
            Err(error @ TrainError::Write { .. }) if self.failed_saves + 1 < MAX_FAILED_SAVES => {
                self.failed_saves += 1;
                let (failed, steps) = (self.failed_saves, self.checkpoint.every_steps);
                observer.on(Event::Warning(format!(
                    "the checkpoint was not saved: {error}; older checkpoints are intact, and the next try is in at \
                     most {steps} steps (failure {failed}; the run ends after {MAX_FAILED_SAVES} in a row)"
                )));
                Ok(())
            }
            Err(TrainError::Write { path, source }) => {
                let source = io::Error::new(
                    source.kind(),
                    format!("{source}; this is failure {MAX_FAILED_SAVES} in a row, older checkpoints are intact"),
                );
                Err(TrainError::Write { path, source })
            }
            Err(error) => Err(error),
            Ok(()) => {
                self.failed_saves = 0;
                Ok(())
            }
        }
    }
}

/// Reports that `what` could not be written, unless another one was waiting before.
fn report_waiting(
    written: Result<(), TrainError>,
    what: &str,
    was_waiting: bool,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    match written {
        Err(error @ TrainError::Write { .. }) => {
            if !was_waiting {
                observer.on(Event::Warning(format!("{error}; {what} is written as soon as that is possible")));
            }
            Ok(())
        }
        written => written,
    }
}

/// Reports images that the file `list` lists, by their sources.
pub(crate) fn report_skipped(skipped: &[Skipped], dataset: &Dataset, list: &Path, observer: &mut dyn Observer) {
    for image in skipped {
        let of = dataset
            .root_of(image.image)
            .map_or_else(|| "the training data".to_owned(), |root| format!("`{}`", root.display()));
        observer.on(Event::Skipped { image, of: &of, listed_in: Some(list) });
    }
}

fn report_not_pruned(error: &TrainError, observer: &mut dyn Observer) {
    observer.on(Event::Warning(format!(
        "an old checkpoint could not be deleted: {error}; the next checkpoint tries again"
    )));
}

/// The numbers of a step that an update must not be made with unless they are finite.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepNumbers {
    pub loss: f64,
    /// What the terms add to the contrastive loss, without their weights; 0 without any.
    pub loss_of_terms: f64,
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// A logarithm.
    pub logit_scale: f64,
    /// Whether the update changes anything.
    pub changes: bool,
}

impl StepNumbers {
    /// Those of a step with this learning rate.
    pub fn of(outcome: &StepOutcome, rate: LearningRate) -> Self {
        let StepOutcome { loss, logit_scale, changes, .. } = *outcome;
        let (loss_of_terms, grad_norm) = (outcome.loss_of_terms(), outcome.norms.all);
        Self { loss, loss_of_terms, grad_norm, learning_rate: rate.base, logit_scale, changes }
    }

    /// The first number that is NaN or infinite, with its name. If a device takes none of them for finite that are, it
    /// is the gradient's norm: the device squares it in single precision.
    pub fn not_finite(self) -> Option<(&'static str, f64)> {
        let norm = ("the gradient's norm", self.grad_norm);
        [("the loss", self.loss), ("a term of the loss", self.loss_of_terms), norm]
            .into_iter()
            .find(|(_, value)| !value.is_finite())
            .or_else(|| (!self.changes).then_some(norm))
    }

    /// Writes what the batch held to `not-finite-step-NNNNNN.json` in `dir`; returns the path.
    ///
    /// # Errors
    /// [`TrainError::Write`] when it cannot be written.
    pub fn dump(self, batch: &Batch, dataset: &Dataset, dir: &Path) -> Result<PathBuf, TrainError> {
        let samples: Vec<serde_json::Value> = batch
            .pairs
            .iter()
            .zip(batch.captions.chunks(batch.slots()))
            .map(|(pair, captions)| {
                let image = dataset.image(pair.image).key();
                let text = |caption: usize| dataset.caption(caption).text;
                match captions {
                    [caption] => serde_json::json!({"image": image, "caption": text(*caption)}),
                    several => {
                        let texts: Vec<&str> = several.iter().map(|&caption| text(caption)).collect();
                        serde_json::json!({"image": image, "captions": texts})
                    }
                }
            })
            .collect();
        let step = batch.step + 1;
        let dump = dir.join(format!("not-finite-step-{step:06}.json"));
        let content = serde_json::json!({
            "step": step, "loss": self.loss.to_string(), "grad_norm": self.grad_norm.to_string(),
            "learning_rate": self.learning_rate, "logit_scale": self.logit_scale, "samples": samples,
        });
        write_whole(&dump, |file| serde_json::to_writer_pretty(file, &content).map_err(Into::into))?;
        Ok(dump)
    }
}
