//! Fits the evaluations of a config to the run that they evaluate: the config may be another than the run's.

use std::path::Path;

use crate::config::{Change, EvalChanges, RunConfig, eval_changes};
use crate::error::TrainError;
use crate::eval::evaluation::Evaluation;
use crate::events::{Event, Observer};
use crate::loss::contrastive::Objective;
use crate::models::load::LoadedModel;
use crate::models::text_pool::continued;
use crate::pairs::Pairs;

/// The `evaluations` of `config` for the model `loaded` from `dir`. If it is that of a run, they compute the loss of
/// the run, and `observer` is notified of keys that do not apply, because the model is what it is. Other models are
/// measured as the config says.
///
/// # Errors
/// [`TrainError::Usage`] when an evaluation uses the images that `data.validation_fraction` holds out, and `config`
/// holds out others than the run did: it may have been trained on these. As for [`Evaluation::open_alone`] when the
/// pairs cannot be read.
pub fn fit_to_run(
    evaluations: Vec<Evaluation>,
    config: &RunConfig,
    loaded: &LoadedModel,
    dir: &Path,
    observer: &mut dyn Observer,
) -> Result<Vec<Evaluation>, TrainError> {
    let Some(run) = &loaded.config else { return Ok(evaluations) };
    let changes = eval_changes(run, &continued(config, run));
    refuse_other_split(&changes, config, loaded, dir)?;
    if !changes.ignored.is_empty() {
        let listed = changes.ignored.iter().map(|change| {
            let Change { key, .. } = change;
            let [of_run, here] = shown(change);
            format!("`{key}`: {here} (the run has {of_run})")
        });
        observer.on(Event::Warning(format!(
            "keys of the config that do not apply, because the model and its loss are those of `{}`: {}",
            dir.display(),
            listed.collect::<Vec<_>>().join(", ")
        )));
    }
    let objective = Objective::from(run);
    Ok(evaluations.into_iter().map(|evaluation| evaluation.with_objective(objective)).collect())
}

/// Refuses validation images that the run did not hold out. Data that were moved, and are the same otherwise, are split
/// alike.
fn refuse_other_split(
    changes: &EvalChanges,
    config: &RunConfig,
    loaded: &LoadedModel,
    dir: &Path,
) -> Result<(), TrainError> {
    if changes.split.is_empty() || changes.keeps_fraction() && has_same_pairs(config, loaded)? {
        return Ok(());
    }
    let using = config.eval.iter().filter(|(_, section)| section.uses_split());
    let names: Vec<String> = using.map(|(name, _)| format!("`{name}`")).collect();
    let (uses, first) = match names.as_slice() {
        [name] => (format!("the evaluation {name} uses"), name.trim_matches('`')),
        names => (format!("the evaluations {} use", names.join(", ")), "NAME"),
    };
    let lines = changes.split.iter().map(|change| {
        let [of_run, here] = shown(change);
        format!("  {}: {of_run} in the run, {here} here", change.key)
    });
    Err(TrainError::Usage(format!(
        "{uses} the images that `data.validation_fraction` holds out, and this config holds out others than the run \
         `{}` did, which may have been trained on them:\n{}\nset what the run has, or name the images to measure on \
         with `data` in `[eval.{first}]`",
        dir.display(),
        lines.collect::<Vec<_>>().join("\n")
    )))
}

/// Whether `config` leaves the pairs for training that the model was trained on, wherever they are.
fn has_same_pairs(config: &RunConfig, loaded: &LoadedModel) -> Result<bool, TrainError> {
    let Some(expected) = &loaded.data else { return Ok(false) };
    let found = Pairs::read(config)?.train.survey()?;
    Ok(blake3::Hash::from(found.fingerprint).to_hex().as_str() == expected)
}

/// The values of a key in the run and in the config.
fn shown(Change { old, new, .. }: &Change) -> [String; 2] {
    [old, new].map(|value| value.clone().unwrap_or_else(|| "(not set)".to_owned()))
}
