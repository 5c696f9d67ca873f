//! Whole steps, as the training loop makes them, but without logs, evaluations and checkpoints.

use std::ops::Range;

use dualenc_data::Batch;

use crate::commands::plan::budget::{Budget, Laps, median};
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::training::records::StepNumbers;
use crate::training::run::Run;
use crate::training::step::Computed;
use crate::training::training_data::next_batch;
use crate::training::{gradient_cache, step};

/// Steps before the measured ones: the loader gets as far ahead as it stays.
const WARM_UP: u64 = 2;

/// Share of the time left after which the warm-up is cut short.
const LONG: f64 = 0.25;

/// A measured step, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timed {
    pub whole: f64,
    /// Waiting for images.
    pub waited: f64,
    /// Loss and gradients, without waiting.
    pub computed: f64,
    pub updated: f64,
    /// Images that came as pixels. In a step in parts: all.
    pub loaded: usize,
    pub pairs: usize,
}

/// Measured steps, at least one.
pub(super) struct Measured {
    pub steps: Vec<Timed>,
    /// The last batch, where it has no pixels.
    pub last: Option<Batch>,
    /// Steps that were made, those of the warm-up included.
    pub made: u64,
}

impl Measured {
    /// Time of a step: the median of its work, which other processes disturb, and the mean of its waiting. A loader
    /// that is too slow delivers several batches at a time, so that most steps may wait for none.
    pub fn seconds(&self) -> f64 {
        median(self.steps.iter().map(|step| step.whole - step.waited).collect()) + self.mean(|step| step.waited)
    }

    /// Mean of a number of each step.
    pub fn mean(&self, number: impl Fn(&Timed) -> f64) -> f64 {
        self.steps.iter().map(number).sum::<f64>() / self.steps.len().max(1) as f64
    }
}

/// Makes up to `wanted` steps from the position of `run` on, after a warm-up; all before the step `end`. The position
/// stays. `ahead`: the step before which the loader stops. `name`: for progress reports.
///
/// # Errors
/// Those of a training step; [`TrainError::NotFinite`] where training would stop.
pub(super) fn measure(
    run: &mut Run,
    end: u64,
    ahead: u64,
    wanted: u64,
    name: &str,
    budget: &Budget,
    observer: &mut dyn Observer,
) -> Result<Measured, TrainError> {
    let Range { start, end } = run.position.step..end.max(run.position.step + 1);
    let mut warm_up = WARM_UP.min((end - start) / 2);
    let total = warm_up + wanted.min(end - start - warm_up);
    let left = budget.left();
    let mut measured = Measured { steps: Vec::new(), last: None, made: 0 };
    let training = run.learner.stages.at(start).training;
    let mut batches = run.data.batches(&run.config, &training, &run.locked, start..ahead.max(end))?;
    let mut laps = Laps::start();
    for done in 0..total {
        budget.check_stop()?;
        observer.on(Event::Work { name, done: done as usize, total: total as usize });
        let Some(batch) = next_batch(&mut batches, observer)? else { break };
        let mut step = Timed { waited: batch.waited.as_secs_f64(), loaded: batch.loaded.len(), ..Timed::default() };
        let mut spent = laps.lap();
        measured.last = batch.pixels.is_empty().then(|| batch.clone());
        let number = batch.step;
        let rate = run.learner.learning_rate(number);

        let before = computed_by_teacher(run);
        let context = run.step_context();
        let Computed { batch, gradients, scalars } = if batch.is_last_of_pass {
            step::forward_backward(&context, batch)?
        } else {
            step.loaded = usize::MAX;
            gradient_cache::forward_backward(&context, batch, &mut batches)?
        };
        let (clip, numbers) = run.learner.clip(scalars)?;
        let outcome = numbers.wait()?;
        step.pairs = batch.pairs.len();
        step.loaded = step.loaded.min(step.pairs);
        let waited_inside = batch.waited.as_secs_f64() - step.waited;
        step.waited += waited_inside;
        // What fills the teacher's cache counts elsewhere.
        let computed = laps.lap() - (computed_by_teacher(run) - before);
        (step.computed, spent) = (computed - waited_inside, spent + computed);
        refuse_not_finite(StepNumbers::of(&outcome, rate), number)?;
        if let Some(clip) = clip {
            run.learner.update(number, gradients, clip, rate)?;
        }
        // Waits for the device: it updates `logit_scale` last.
        run.learner.logit_scale()?;
        step.updated = laps.lap();
        step.whole = spent + step.updated;
        batch.skipped.iter().for_each(|image| {
            observer.on(Event::Skipped { image, of: "the training data", listed_in: None });
        });
        drop(batch);
        measured.made += 1;
        if done >= warm_up {
            measured.steps.push(step);
        } else if step.whole > LONG * left {
            warm_up = done + 1;
        }
        if !measured.steps.is_empty() && budget.left() < step.whole {
            break;
        }
        laps = Laps::start();
    }
    observer.on(Event::Work { name, done: total as usize, total: total as usize });
    if measured.steps.is_empty() {
        return Err(TrainError::Internal("the loader ended before the first measured step".to_owned()));
    }
    Ok(measured)
}

/// Seconds in which steps have computed features of the teacher so far.
fn computed_by_teacher(run: &Run) -> f64 {
    run.teacher.as_ref().map_or(0.0, |teacher| teacher.computed().seconds.iter().sum())
}

/// The error with which training would stop.
fn refuse_not_finite(numbers: StepNumbers, step: u64) -> Result<(), TrainError> {
    let Some((what, value)) = numbers.not_finite() else { return Ok(()) };
    let StepNumbers { learning_rate, logit_scale, .. } = numbers;
    let saved = "`plan` saves nothing".to_owned();
    let samples = "are listed when training stops there".to_owned();
    Err(TrainError::NotFinite { what, value, step: step + 1, learning_rate, logit_scale, saved, samples })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_counts_by_its_mean() {
        let step =
            |computed: f64, waited: f64| Timed { whole: computed + waited, computed, waited, ..Timed::default() };
        let steps =
            vec![step(1.0, 0.0), step(1.0, 0.0), step(1.0, 6.0), step(5.0, 0.0), step(1.0, 0.0), step(1.0, 0.0)];
        assert_eq!(Measured { steps, last: None, made: 8 }.seconds(), 2.0);
    }
}
