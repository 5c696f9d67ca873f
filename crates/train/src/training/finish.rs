//! What is done with the numbers of a step, once they are known, and with its state if something fails.

use std::time::Instant;

use dualenc_data::ProcessedImages;

use crate::error::{ErrorKind, TrainError};
use crate::events::{Event, Observer};
use crate::optim::param_groups::LearningRate;
use crate::run_dir::metrics_log::TrainRecord;
use crate::training::position::Position;
use crate::training::records::StepNumbers;
use crate::training::run::Run;
use crate::training::step::Computed;
use crate::training::unfinished::{Numbers, Unfinished};

impl Run {
    /// Makes or queues the update of a step, and finishes the step before. Numbers that are not finite change nothing.
    ///
    /// # Errors
    /// Those of [`Learner::update`](crate::training::learner::Learner::update) and of [`Run::finish`].
    pub fn update(
        &mut self,
        computed: Computed,
        rate: LearningRate,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let Computed { mut batch, gradients, scalars } = computed;
        batch.pixels = ProcessedImages::default();
        let (clip, mut numbers) = self.learner.clip(scalars)?;
        if !self.ranks.is_alone() {
            let outcome = numbers.wait()?.of_all_ranks(batch.step, &*self.ranks, self.compute.on_host)?;
            numbers = Numbers::Known(Box::new(outcome));
        }
        if let Some(clip) = clip {
            self.learner.update(batch.step, gradients, clip, rate)?;
        }
        let before = self.unfinished.replace(Unfinished { batch, rate, numbers });
        before.map_or(Ok(()), |before| self.finish(before, observer))
    }

    /// Whether the next step may be queued before this one is finished: nothing else is due in between.
    pub fn goes_ahead(&self) -> bool {
        let Some(Unfinished { batch, .. }) = &self.unfinished else { return false };
        let mut after = self.position;
        after.advance(self.data.batch_len(batch.step));
        let Position { step, steps_per_epoch, total_steps, .. } = after;
        let is_alone = self.ranks.is_alone() && !self.compute.on_host;
        is_alone
            && self.stop.signal().is_none()
            && step < self.learner.stages.end(batch.step)
            && !self.evaluations.iter().any(|evaluation| evaluation.is_due(step, steps_per_epoch, total_steps))
            && !self.records.as_ref().is_some_and(|records| records.checkpoint_is_due(&after))
    }

    /// Finishes the step that is not, if there is one.
    ///
    /// # Errors
    /// Those of [`Run::finish`].
    pub fn finish_last(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.unfinished.take().map_or(Ok(()), |last| self.finish(last, observer))
    }

    /// Forgets the step after this one, and any that was queued after it: they changed nothing.
    pub fn forget_unfinished(&mut self) {
        self.unfinished = None;
        self.learner.forget_after(self.position.step);
    }

    /// Saves the state before the step or evaluation that failed with `error`, unless that state is wrong, is saved, or
    /// the disk that it is saved to is what failed.
    pub fn save_after(&mut self, error: &TrainError, observer: &mut dyn Observer) {
        let Some(records) = &mut self.records else { return };
        let (whole, error) = (error, error.of_one_rank());
        let found = error.bad_images();
        if !found.is_empty() {
            // Those found since the last step are why the run stops. Of several ranks, one has found them.
            let images = &self.data.unreadable_images;
            let new = found.iter().filter(|skipped| !images.contains(skipped.image)).cloned();
            let all: Vec<_> = images.list().into_iter().chain(new).collect();
            records.list_bad_samples(&all, &self.data.dataset, observer);
        }
        let is_saved_or_wrong = matches!(
            error,
            TrainError::NotFinite { .. }
                | TrainError::SpoiledWeights { .. }
                | TrainError::OfProcess { kind: ErrorKind::NotFinite | ErrorKind::Internal, .. }
                | TrainError::Internal(_)
                | TrainError::LostFile { .. }
        );
        let is_run_dir = matches!(error, TrainError::Write { path, .. } if path.starts_with(records.dir.root()));
        if is_saved_or_wrong || is_run_dir || !self.learner.is_whole() || self.is_uncounted {
            return;
        }
        // The state is that after the step that is not finished yet.
        if let Err(error) = self.finish_last(observer) {
            let step = self.position.step + 1;
            observer.on(Event::Warning(format!("the state after step {step} is not saved: {error}")));
            return;
        }
        if self.position.step == 0 {
            return;
        }
        if let Some(records) = &mut self.records {
            records.report_rescue(whole, self.position.step, observer);
        }
        if let Err(error) = self.save_rescue(observer) {
            observer.on(Event::Warning(format!("the state after step {} is not saved: {error}", self.position.step)));
        }
    }

    /// Waits for the numbers of a step, counts it and logs it.
    ///
    /// # Errors
    /// Those of [`Run::guard_finite`] and [`Run::log_step`]; [`TrainError::Model`] when the device fails.
    fn finish(&mut self, step: Unfinished, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let Unfinished { batch, rate, numbers } = step;
        self.is_uncounted = true;
        let outcome = numbers.wait()?;
        // With a step queued ahead, this is the time from one finished step to the next.
        let seconds = self.last_step.elapsed().as_secs_f64();
        self.last_step = Instant::now();
        self.guard_finite(StepNumbers::of(&outcome, rate), &batch, observer)?;
        self.position.advance(self.data.batch_len(batch.step));
        self.is_uncounted = false;
        let record = TrainRecord {
            step: self.position.step,
            epoch: self.position.epoch(),
            samples_seen: self.position.samples_seen,
            loss: outcome.loss,
            loss_structure: outcome.structure,
            loss_teacher: outcome.teacher,
            chance_loss: outcome.chance_loss,
            learning_rate: rate.base,
            logit_scale: outcome.logit_scale.exp(),
            grad_norm: outcome.norms.all,
            grad_norms: outcome.norms.by_part,
            image_spread: outcome.spread[0],
            text_spread: outcome.spread[1],
            num_duplicates: outcome.num_duplicates,
            pairs_per_sec: batch.pairs.len() as f64 / seconds,
            loader_wait: (batch.waited.as_secs_f64() / seconds).min(1.0),
        };
        self.log_step(&record, &batch, observer)
    }
}
