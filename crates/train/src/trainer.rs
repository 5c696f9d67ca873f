//! THE TRAINING LOOP: [`train`]. Everything it calls is in the order in which it happens; `step.rs` is what a step computes.

use std::time::Instant;

use crate::config::RunConfig;
use crate::error::TrainError;
use crate::metrics::TrainRecord;
use crate::observer::{Event, Observer};
use crate::run::Run;
use crate::step::forward_backward;
use crate::stop::StopFlag;

/// How training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done, or there was nothing to gain by more.
    Finished {
        /// Updates done.
        step: u64,
    },
    /// A signal came; the state is saved.
    Stopped {
        /// Updates done.
        step: u64,
        /// The signal's number.
        signal: usize,
    },
}

/// Trains as `config` says, from the start or, with `resume`, from the newest valid checkpoint of `run.dir`.
///
/// A run that was killed anywhere and resumed gives the same bits as one that was not (on a CPU, with the same number of
/// threads): order, caption choice and dropout are functions of (seed, epoch, step), and nothing else is remembered.
///
/// # Errors
/// When configuration, data or towers do not fit, when loss or gradient is not finite, or when the disk fails.
pub fn train(
    config: &RunConfig,
    resume: bool,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    let mut run = Run::open(config, resume, stop, observer)?;
    run.evaluate_where_due(observer)?;
    if run.stops_early() {
        run.save(observer)?;
        run.tell_early_stop(observer);
        return Ok(Outcome::Finished { step: run.step });
    }
    let mut started = Instant::now();
    loop {
        let mut batches = run.batches()?;
        while let Some(batch) = batches.next().transpose()? {
            let learning_rate = run.learning_rate(batch.step);
            let logit_scale = run.logit_scale()?;

            let outcome = forward_backward(&run, batch, &mut batches)?;
            let batch = &outcome.batch;
            run.guard_finite(batch, outcome.loss, outcome.norms.all, learning_rate, logit_scale)?;
            run.update(outcome.gradients, outcome.norms.all, learning_rate)?;

            let seconds = started.elapsed().as_secs_f64();
            let record = TrainRecord {
                step: run.step,
                epoch: run.step as f64 / run.steps_per_epoch as f64,
                samples_seen: run.samples_seen,
                loss: outcome.loss,
                chance_loss: outcome.chance_loss,
                learning_rate,
                logit_scale: logit_scale.exp(),
                grad_norm: outcome.norms.all,
                grad_norms: outcome.norms.by_part,
                image_spread: outcome.spread[0],
                text_spread: outcome.spread[1],
                num_duplicates: outcome.num_duplicates,
                pairs_per_sec: batch.pairs.len() as f64 / seconds,
                loader_wait: batch.waited.as_secs_f64() / seconds,
            };
            run.metrics.train(&record)?;
            observer.on(Event::Step(&record));
            run.tell_what_goes_wrong(&record, observer)?;
            batch.skipped.iter().for_each(|skipped| observer.on(Event::Skipped(skipped)));

            // A signal does not wait for an evaluation: what is due then runs when the run goes on.
            match stop.signal().map_or_else(|| run.evaluate_where_due(observer), |_| Ok(())) {
                Ok(()) | Err(TrainError::Stopped { .. }) => {}
                Err(error) => return Err(error),
            }
            if run.checkpoint_is_due() || stop.signal().is_some() {
                run.save(observer)?;
            }
            if let Some(signal) = stop.signal() {
                return Ok(Outcome::Stopped { step: run.step, signal });
            }
            if run.stops_early() {
                run.tell_early_stop(observer);
                return Ok(Outcome::Finished { step: run.step });
            }
            started = Instant::now();
        }
        if !run.next_stage(observer)? {
            return Ok(Outcome::Finished { step: run.step });
        }
    }
}
