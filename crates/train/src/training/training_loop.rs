//! THE TRAINING LOOP: `train_to_end`. It reads in the order in which things happen; `step.rs` is what a step computes.

use std::sync::Arc;
use std::time::Instant;

use crate::config::RunConfig;
use crate::error::TrainError;
use crate::events::Observer;
use crate::ranks::exchange::Exchange;
use crate::ranks::launched::Processes;
use crate::ranks::on_devices::{LIMITS, on_devices};
#[cfg(feature = "mpi")]
use crate::ranks::processes::on_processes::on_processes;
use crate::stop_flag::StopFlag;
use crate::training::position::Start;
use crate::training::run::Run;
use crate::training::training_data::next_batch;
use crate::training::{gradient_cache, step};

/// How training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All steps are done, or `checkpoint.patience` is exhausted.
    Finished {
        /// Updates done.
        step: u64,
    },
    /// A signal arrived; the state is saved.
    Stopped {
        /// Updates done.
        step: u64,
        /// The signal's number.
        signal: usize,
    },
}

/// Trains as `config` says, from where `start` says.
///
/// A run that is killed anywhere and resumed computes the same bits as one that was not, on a CPU with the same number
/// of threads: order, caption choice, augmentation and dropout are functions of (seed, epoch, step, index). On several
/// devices of one kind (`run.device`), each has a thread and a replica of the model; 1, 2, 4 or 8 compute the same bits
/// from the same micro-batches.
///
/// # Errors
/// [`TrainError::Config`], [`TrainError::Data`] or [`TrainError::Model`] when configuration, data and towers do not
/// fit; [`TrainError::NotFinite`] or [`TrainError::SpoiledWeights`] when loss, gradient or weights are not finite;
/// [`TrainError::Write`] when the disk fails; [`TrainError::OfRank`] around the error of one of several devices.
pub fn train(
    config: &RunConfig,
    start: Start,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    let [stop_of_others, stop_of_each] = [stop.clone(), stop.clone()];
    let open = |ranks: Arc<dyn Exchange>, observer: &mut dyn Observer| Run::open(config, start, ranks, stop, observer);
    let own = config.clone();
    let follow = move |ranks: Arc<dyn Exchange>, device: &str| Run::follow(ranks, device, &own, &stop_of_others);
    let work = move |mut run: Run, observer: &mut dyn Observer| {
        run.share_state()?;
        run.report_start_of_replica(observer);
        let outcome = train_to_end(&mut run, &stop_of_each, observer);
        match &outcome {
            Ok(_) => run.report_end(observer),
            Err(error) => run.save_after(error, observer),
        }
        outcome
    };
    #[cfg(feature = "mpi")]
    if let Some(world) = Processes::join()?.world {
        return on_processes(&world, (config, start.arguments()), observer, open, follow, work);
    }
    #[cfg(not(feature = "mpi"))]
    Processes::join()?;
    on_devices(LIMITS, config.run.device.all(), observer, open, follow, work)
}

/// Every rank runs this loop. What only the first rank does, others pass over.
fn train_to_end(run: &mut Run, stop: &StopFlag, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
    let stopped = run.evaluate_or_stop(observer)?;
    let ending = run.agree_on_end(stopped)?;
    if let Some(signal) = ending.signal {
        return Ok(Outcome::Stopped { step: run.position.step, signal });
    }
    if ending.is_early {
        run.save(observer)?;
        run.report_early_stop(observer);
        return Ok(Outcome::Finished { step: run.position.step });
    }
    run.last_step = Instant::now();
    loop {
        let mut batches = run.batches()?;
        while let Some(batch) = next_batch(&mut batches, observer)? {
            let rate = run.learner.learning_rate(batch.step);
            let context = run.step_context();
            let computed = if batch.is_last_of_pass && context.ranks.is_alone() {
                step::forward_backward(&context, batch)?
            } else {
                gradient_cache::forward_backward(&context, batch, &mut batches)?
            };
            run.update(computed, rate, observer)?;
            if run.goes_ahead() {
                continue;
            }
            run.finish_last(observer)?;

            run.evaluate_or_stop(observer)?;
            let ending = run.agree_on_end(stop.signal())?;
            run.save_if_due(ending, observer)?;
            if let Some(signal) = ending.signal {
                return Ok(Outcome::Stopped { step: run.position.step, signal });
            }
            if ending.is_early {
                run.report_early_stop(observer);
                return Ok(Outcome::Finished { step: run.position.step });
            }
            run.last_step = Instant::now();
        }
        if !run.next_stage(observer)? {
            return Ok(Outcome::Finished { step: run.position.step });
        }
    }
}

#[cfg(all(test, feature = "flex", any(feature = "wgpu-untuned", feature = "cubecl-cpu")))]
mod device_tests;
#[cfg(feature = "flex")]
#[cfg(test)]
mod feature_tests;
#[cfg(feature = "flex")]
#[cfg(test)]
mod rank_tests;
#[cfg(feature = "flex")]
#[cfg(test)]
mod tests;
