//! What is done with the numbers of a step, once they are known.

use std::time::Instant;

use crate::error::TrainError;
use crate::events::Observer;
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
        batch.pixels = Vec::new();
        let (clip, numbers) = self.learner.clip(scalars)?;
        self.learner.update(batch.step, gradients, clip, rate)?;
        let before = self.unfinished.replace(Unfinished { batch, rate, numbers, seconds: 0.0 });
        before.map_or(Ok(()), |before| self.finish(before, observer))?;
        if let Some(step) = &mut self.unfinished {
            step.seconds = self.last_step.elapsed().as_secs_f64();
            self.last_step = Instant::now();
        }
        Ok(())
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
        let Some(mut last) = self.unfinished.take() else { return Ok(()) };
        last.numbers = Numbers::Known(Box::new(last.numbers.wait()?));
        last.seconds += self.last_step.elapsed().as_secs_f64();
        self.finish(last, observer)
    }

    /// Forgets the step after this one, and any that was queued after it: they changed nothing.
    pub fn forget_unfinished(&mut self) {
        self.unfinished = None;
        self.learner.forget_after(self.position.step);
    }

    /// Waits for the numbers of a step, counts it and logs it.
    ///
    /// # Errors
    /// Those of [`Run::guard_finite`] and [`Run::log_step`]; [`TrainError::Model`] when the device fails.
    fn finish(&mut self, step: Unfinished, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let Unfinished { batch, rate, numbers, seconds } = step;
        let outcome = numbers.wait()?.of_all_ranks(batch.step, &*self.ranks, self.compute.on_host)?;
        self.guard_finite(StepNumbers::of(&outcome, rate), &batch, observer)?;
        self.position.advance(self.data.batch_len(batch.step));
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
