//! What a run must find unchanged to be resumed: configuration, data, locked weights, and the learning rates so far.

use crate::config::{RunConfig, TrainSection, changed_keys};
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::optim::lr_schedule::LrSchedule;
use crate::run_dir::checkpoint::Checkpoint;
use crate::run_dir::checkpoint::manifest::Progress;

/// Reports changed keys that are safe to change.
///
/// # Errors
/// [`TrainError::ConfigChanged`] with every key that changes what is learned.
pub(super) fn refuse_changed_config(
    checkpoint: &Checkpoint,
    config: &RunConfig,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let old = checkpoint.run_config()?;
    let (safe, refused): (Vec<_>, Vec<_>) = changed_keys(&old, config).into_iter().partition(|change| change.safe);
    for change in safe {
        let shown = |value: Option<String>| value.unwrap_or_else(|| "(not set)".to_owned());
        let (key, why) = (change.key, change.why);
        observer.on(Event::Note(format!(
            "`{key}` has changed: {} -> {} ({why})",
            shown(change.old),
            shown(change.new)
        )));
    }
    if refused.is_empty() { Ok(()) } else { Err(TrainError::ConfigChanged(refused)) }
}

/// Compares the fingerprints of training data and locked weights.
///
/// # Errors
/// [`TrainError::DataChanged`] or [`TrainError::LockedChanged`].
pub(super) fn refuse_changed_inputs(checkpoint: &Checkpoint, data: &str, locked: &str) -> Result<(), TrainError> {
    let saved = &checkpoint.progress;
    if saved.data != data {
        return Err(TrainError::DataChanged { found: data.to_owned(), expected: saved.data.clone() });
    }
    if saved.locked != locked {
        return Err(TrainError::LockedChanged { checkpoint: checkpoint.path.clone() });
    }
    Ok(())
}

/// Checks that a run at `step` has steps left after it skips `count`.
///
/// # Errors
/// [`TrainError::Usage`].
pub(super) fn refuse_skipping_all(step: u64, count: u64, total_steps: u64) -> Result<(), TrainError> {
    if count == 0 || step.saturating_add(count) < total_steps {
        return Ok(());
    }
    Err(TrainError::Usage(format!(
        "`--skip-steps {count}` leaves nothing to train: the run is at step {step} of {total_steps}; skip at most {}",
        total_steps.saturating_sub(step + 1)
    )))
}

/// Compares the learning rates of the steps already done: a new length or cooldown must not change them. A longer
/// warm-up is left out, since it is asked for from here on.
///
/// # Errors
/// [`TrainError::Usage`] with the first step that would have had another rate.
pub(super) fn refuse_changed_rates(
    checkpoint: &Checkpoint,
    config: &RunConfig,
    total_steps: u64,
) -> Result<(), TrainError> {
    let Progress { step, total_steps: old_total_steps, .. } = checkpoint.progress;
    let old = checkpoint.run_config()?.train;
    let new =
        TrainSection { warmup_steps: old.warmup_steps, warmup_fraction: old.warmup_fraction, ..config.train.clone() };
    let (old, new) = (LrSchedule::new(&old, old_total_steps)?, LrSchedule::new(&new, total_steps)?);
    match (0..step).find(|&step| old.at(step) != new.at(step)) {
        None => Ok(()),
        Some(changed) => Err(TrainError::Usage(format!(
            "the run has done {step} steps, and with this length and cooldown the learning rate of step {} would have \
             been another; start the cooldown at step {step} or later: lengthen the run, or shorten the cooldown",
            changed + 1
        ))),
    }
}
