//! What a run must find unchanged to be resumed: configuration, data, locked weights, and the learning rates so far.

use dualenc_data::counted;
use dualenc_model::DualEncoder;

use crate::config::{Change, RunConfig, TrainSection, changed_keys};
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::models::text_pool::continued;
use crate::optim::lr_schedule::LrSchedule;
use crate::run_dir::checkpoint::Checkpoint;
use crate::run_dir::checkpoint::manifest::Progress;
use crate::run_dir::checkpoint::tower_forms::TowerForms;
use crate::run_dir::layout::RunDir;
use crate::teacher::loaded::LoadedTeacher;
use crate::training::stages::Stages;
use crate::training::training_data::TrainingData;

/// The keys that differ between the `old` config of a run and the `new` one, all of which are safe to change.
///
/// # Errors
/// [`TrainError::ConfigChanged`] with every key that changes what is learned.
pub(super) fn safe_changes(old: &RunConfig, new: &RunConfig) -> Result<Vec<Change>, TrainError> {
    let (safe, refused): (Vec<_>, Vec<_>) = changed_keys(old, new).into_iter().partition(|change| change.safe);
    if refused.is_empty() { Ok(safe) } else { Err(TrainError::ConfigChanged(refused)) }
}

/// Reports changed keys of a run that goes on, with their effects; or of one that starts over, which they have none on.
pub(super) fn report_changes(changes: Vec<Change>, starts_over: bool, observer: &mut dyn Observer) {
    for change in changes {
        let why = if starts_over { String::new() } else { format!(" ({})", change.why) };
        observer.on(Event::Note(format!("{}{why}", shown(change))));
    }
}

/// Keys that a run reads only when it begins: a checkpoint has what follows from them, and a run that starts over
/// follows the new value.
const READ_AT_START: [&str; 3] = ["model.head_init", "fit", "train.logit_bias_init"];

/// Compares the config of a run that has logged steps, and has no checkpoint, with that of the run that starts over in
/// its place. Returns the keys that differ, all of which are safe to change.
///
/// # Errors
/// [`TrainError::ConfigChanged`]: another run would replace the metrics of this one.
pub(super) fn refuse_other_run(dir: &RunDir, config: &RunConfig, ranks: usize) -> Result<Vec<Change>, TrainError> {
    // Without a config that can be read, nothing tells one run from the other.
    let Ok(old) = RunConfig::load(&dir.config(), &[]) else { return Ok(Vec::new()) };
    let changes = safe_changes(&old, &continued(config, &old).with_parts(ranks))?;
    let (other, same): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| is_read_at_start(&change.key));
    if !other.is_empty() {
        return Err(TrainError::ConfigChanged(other));
    }
    Ok(same)
}

fn is_read_at_start(key: &str) -> bool {
    READ_AT_START
        .iter()
        .any(|start| key.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// A changed key with both values.
fn shown(Change { key, old, new, .. }: Change) -> String {
    let [old, new] = [old, new].map(|value| value.unwrap_or_else(|| "(not set)".to_owned()));
    format!("`{key}` has changed: {old} -> {new}")
}

/// Compares the fingerprints of training data, towers, locked weights and the teacher.
///
/// # Errors
/// [`TrainError::DataChanged`], [`TrainError::TowersChanged`], [`TrainError::LockedChanged`] or
/// [`TrainError::TeacherChanged`].
pub(super) fn refuse_changed_inputs(
    checkpoint: &Checkpoint,
    data: &TrainingData,
    towers: &TowerForms,
    locked: &str,
    teacher: Option<&LoadedTeacher>,
) -> Result<(), TrainError> {
    let saved = &checkpoint.progress;
    if saved.data != data.fingerprint {
        return Err(TrainError::DataChanged { found: data.pair_counts(), expected: saved.pairs });
    }
    checkpoint.refuse_other_towers(towers)?;
    if saved.locked != locked {
        return Err(TrainError::LockedChanged { checkpoint: checkpoint.path.clone() });
    }
    // A teacher that is new or gone is a change of the config.
    if let Some(teacher) = teacher
        && saved.teacher.as_ref() != Some(&teacher.fingerprint)
    {
        let checkpoint = checkpoint.path.clone();
        return Err(TrainError::TeacherChanged { teacher: teacher.name.clone(), checkpoint });
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
    if step == 0 {
        // The warm-up of a fit may be longer than its run.
        return Ok(());
    }
    let old = checkpoint.run_config()?.train;
    let new =
        TrainSection { warmup_steps: old.warmup_steps, warmup_fraction: old.warmup_fraction, ..config.train.clone() };
    let (old, new) = (LrSchedule::new(&old, old_total_steps)?, LrSchedule::new(&new, total_steps)?);
    match (0..step).find(|&step| old.at(step) != new.at(step)) {
        None => Ok(()),
        Some(changed) => Err(TrainError::Usage(format!(
            "the run has done {}, and with this length and cooldown the learning rate of step {} would have \
             been another; start the cooldown at step {step} or later: lengthen the run, or shorten the cooldown",
            counted(step as usize, "step"),
            changed + 1
        ))),
    }
}

/// Warns of rates that a longer warm-up raises: the curve after it begins later, and so falls later.
///
/// # Errors
/// [`TrainError::Config`] when the config of the checkpoint cannot be read.
pub(super) fn warn_of_higher_rates(
    checkpoint: &Checkpoint,
    model: &DualEncoder,
    (stages, schedule): (&Stages, &LrSchedule),
    steps_per_epoch: u64,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    /// Below it, the message would round it to 1.
    const NOTABLE: f64 = 1.05;
    let Progress { step, total_steps, .. } = checkpoint.progress;
    if step == 0 {
        // No update was made with the old rates, and the warm-up of a fit may be longer than its run.
        return Ok(());
    }
    let old = checkpoint.run_config()?;
    let old_schedule = LrSchedule::new(&old.train, total_steps)?;
    if old_schedule.warmup_steps >= schedule.warmup_steps {
        return Ok(());
    }
    let old_stages = Stages::new(&old, model, steps_per_epoch, total_steps)?;
    let rate = |stages: &Stages, schedule, step| stages.learning_rate(step, schedule).base;
    let ratios = (step..total_steps)
        .map(|step| (step + 1, rate(stages, schedule, step) / rate(&old_stages, &old_schedule, step)));
    let higher: Vec<(u64, f64)> = ratios.filter(|(_, ratio)| *ratio > NOTABLE).collect();
    let highest = higher.iter().map(|(_, ratio)| *ratio).fold(1.0, f64::max);
    if let (Some((first, _)), Some((last, _))) = (higher.first(), higher.last()) {
        observer.on(Event::Warning(format!(
            "with the longer warm-up, the learning rate of steps {first} to {last} is up to {highest:.1} times that of \
             the old config, since it falls later; lower `train.learning_rate` too if that is not meant"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_start_are_known_with_their_tables() {
        for key in ["model.head_init", "fit", "fit.ridge", "train.logit_bias_init"] {
            assert!(is_read_at_start(key), "{key}");
        }
        for key in ["run.log_every_steps", "fitting.x", "train.logit_bias_init_x", "eval.fit"] {
            assert!(!is_read_at_start(key), "{key}");
        }
    }
}
