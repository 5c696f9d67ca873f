//! What only the model can say: classes, examples, embeddings, training pairs, parameters.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dualenc_data::{Dataset, counted};
use dualenc_model::{DualEncoder, parameters};
use dualenc_report::{Entry, EvalPoint, ParameterGroup, Report, Warning};
use tempfile::TempDir;

use crate::commands::report::details::{classification, examples};
use crate::commands::report::embedded::Embedded;
use crate::commands::report::make_results::warn_of_unreadable;
use crate::commands::report::page_file::{ReportRequest, answers_of, embedded_parts, leave_out, model_parts};
use crate::commands::report::run_files::with_causes;
use crate::commands::report::thumbnails::Thumbnails;
use crate::commands::report::training_pairs::{ScoredPairs, score};
use crate::config::{RunConfig, Task};
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::encoder::Encoder;
use crate::eval::evaluation::Evaluation;
use crate::eval::metrics::details::Details;
use crate::events::{Event, Observer};
use crate::features::cut_texts::CutTexts;
use crate::features::locked_towers::{LockedFingerprints, LockedTowers, feature_cache_of};
use crate::models::load::LoadedModel;
use crate::pairs::Pairs;
use crate::run_dir::checkpoint::retention;
use crate::run_dir::layout::checkpoints_of;
use crate::stop_flag::StopFlag;

/// Images or texts per forward pass.
const BATCH_SIZE: usize = 64;

/// A feature cache in the run directory is copied up to this size, in bytes: longer ones take longer to copy than a
/// sample takes to compute.
const MOST_COPIED: u64 = 2 << 30;

/// Times that a model is loaded while its run deletes checkpoints. A run that deletes one within the time of each load
/// writes them too often to be read.
const MOST_LOADS: usize = 4;

/// Fills the parts of `report` that the model is needed for. A part that fails is left out, and the page and a warning
/// say why.
///
/// # Errors
/// [`TrainError::Stopped`] when `stop` is set; [`TrainError::Device`] when there is no such device;
/// [`TrainError::Usage`] when the best checkpoint is asked for and there is none.
pub(super) fn add_model_parts(
    report: &mut Report,
    config: &RunConfig,
    request: &ReportRequest<'_>,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let loaded = match load(config, request, observer) {
        Err(error) if is_wrong_request(&error, request) => return Err(error),
        loaded => loaded,
    };
    let parts = model_parts(report);
    let Some((loaded, compute)) = made(loaded, report, &parts, observer)? else { return Ok(()) };
    report.shown_step = loaded.step.filter(|_| request.best);
    report.parameters = parameter_groups(&loaded.model);
    let mut thumbnails = Thumbnails::new(*loaded.processor.limits());
    let model = loaded.model.valid();
    let cached = locked_towers(config, request.run, (&loaded, &model), &compute, stop, observer);
    let parts = embedded_parts(report);
    let Some((locked, _copy)) = made(cached, report, &parts, observer)? else { return Ok(()) };
    let workers = compute.threads;
    let tokenizer = &loaded.tokenizer;
    let encoder = Encoder {
        model: &model,
        tokenizer,
        locked: &locked,
        compute: &compute,
        workers,
        stop,
        batch_size: BATCH_SIZE,
        others: None,
        cut: CutTexts::default(),
    };
    let (step, seed) = (loaded.step.unwrap_or(0), config.run.seed);
    let mut shown: Option<(Embedded, String, bool)> = None;
    for (name, section) in &config.eval {
        let Some(at) = report.evaluations.iter().position(|it| it.name == *name) else { continue };
        let is_known = report.evaluations[at].points.iter().any(|it| it.step == step);
        if is_known && !matches!(section.task, Task::ZeroShot | Task::Retrieval) {
            // It has no answers to show, and may take long.
            continue;
        }
        let part = answers_of(name);
        let evaluated = open(config, name).and_then(|evaluation| {
            let encoder = encoder.with_batch_size(evaluation.batch_size);
            let found = evaluation.record_in_detail(step, &encoder, &loaded.processor, observer)?;
            Ok((evaluation, found))
        });
        let Some((evaluation, (record, found))) = made(evaluated, report, &[&part], observer)? else { continue };
        let target = &mut report.evaluations[at];
        let measured = &target.fingerprint;
        let has_changed = !target.points.is_empty() && !measured.is_empty() && *measured != record.fingerprint;
        if !is_known && !has_changed {
            target.points.push(EvalPoint::from_metrics(step, &record.metrics));
            target.points.sort_by_key(|it| it.step);
        }
        let dataset = Arc::clone(evaluation.task.data());
        match found {
            Details::Classes(found) => {
                let ece = record.metrics.get("ece").and_then(serde_json::Value::as_f64);
                target.classification = Some(classification(&found, step, ece));
                if shown.is_none() {
                    let of = format!("Images and classes of evaluation `{name}`");
                    shown = Some((Embedded::of_classes(&found, &dataset, seed), of, false));
                }
            }
            Details::Retrieval(found) => {
                target.retrieval = Some(examples(&found, &dataset, (step, seed), &mut thumbnails));
                // Pairs of images and captions say more than classes.
                if shown.as_ref().is_none_or(|(.., is_retrieval)| !is_retrieval) {
                    let of = format!("Pairs of evaluation `{name}`");
                    shown = Some((Embedded::of_retrieval(&found, &dataset, seed), of, true));
                }
            }
            Details::None => {}
        }
        if has_changed {
            let message = format!(
                "what evaluation `{name}` measures has changed since the run: classes, examples and embeddings are of \
                 its data as it is now, the figures of its data as it was"
            );
            observer.on(Event::Warning(message.clone()));
            leave_out(report, &[part], &format!("Note that {message}."));
            report.warnings.push(Warning { step: None, name: "evaluation-changed".to_owned(), message });
        }
    }
    let scored = training_pairs(config, &encoder, &loaded, observer);
    if let Some((dataset, scored)) = made(scored, report, &["pairs", "data"], observer)? {
        report.data = data_entries(&dataset);
        report.pairs = Some(scored.extremes(&dataset, &mut thumbnails));
        shown = shown.or_else(|| Some((scored.embedded.sampled(seed), "Training pairs".to_owned(), false)));
    }
    match shown {
        Some((embedded, of, _)) => embedded.add_to(report, seed, &format!("{of}, at step {step}")),
        None => leave_out(report, &["embeddings"], "No evaluation and no training pair could be embedded."),
    }
    warn_of_unreadable(&thumbnails, observer);
    Ok(())
}

/// Whether the request itself cannot be met: a page without the model would replace a better one.
fn is_wrong_request(error: &TrainError, request: &ReportRequest<'_>) -> bool {
    matches!(error, TrainError::Device { .. }) || request.best && matches!(error, TrainError::Usage(_))
}

/// What was made. A failure is noted on the page for each of `parts`, and becomes a warning.
///
/// # Errors
/// [`TrainError::Stopped`].
fn made<T, S: AsRef<str>>(
    result: Result<T, TrainError>,
    report: &mut Report,
    parts: &[S],
    observer: &mut dyn Observer,
) -> Result<Option<T>, TrainError> {
    match result {
        Ok(made) => Ok(Some(made)),
        Err(error @ TrainError::Stopped { .. }) => Err(error),
        Err(error) => {
            let why = with_causes(&error);
            let names = parts.iter().map(|part| format!("`{}`", part.as_ref())).collect::<Vec<_>>().join(", ");
            observer.on(Event::Warning(format!("the page is without {names}: {why}")));
            leave_out(report, parts, &format!("It could not be made: {why}."));
            Ok(None)
        }
    }
}

fn load(
    config: &RunConfig,
    request: &ReportRequest<'_>,
    observer: &mut dyn Observer,
) -> Result<(LoadedModel, Compute), TrainError> {
    if !checkpoints_of(request.run).is_dir() {
        return Err(TrainError::Usage(format!("the run `{}` has no checkpoint yet", request.run.display())));
    }
    let compute = Compute::select(request.device.unwrap_or(config.run.device.first()), config.run.threads)?;
    let checkpoints = || Ok(retention::list(&checkpoints_of(request.run))?.into_iter().map(|(step, _)| step).collect());
    let mut loaded = settled(checkpoints, || match request.best {
        true => LoadedModel::best_of(request.run, &compute, observer),
        false => LoadedModel::from_dir(request.run, &compute, observer),
    })?;
    loaded.limit_pixels(config.data.max_pixels);
    Ok((loaded, compute))
}

/// What `load` returns. It is tried again when a run that trains deleted a checkpoint meanwhile, which it does only
/// after it has written a newer one. `checkpoints`: the steps of those on the disk.
fn settled<T>(
    checkpoints: impl Fn() -> Result<Vec<u64>, TrainError>,
    mut load: impl FnMut() -> Result<T, TrainError>,
) -> Result<T, TrainError> {
    for _ in 1..MOST_LOADS {
        let before = checkpoints()?;
        match load() {
            Err(TrainError::Checkpoint { .. } | TrainError::NoValidCheckpoint { .. }) if checkpoints()? != before => {}
            done => return done,
        }
    }
    load()
}

/// The locked towers with the feature cache of the run, if there is one. A cache in the run directory is copied first:
/// features that it lacks would be added to it, and nothing in the run may change.
fn locked_towers(
    config: &RunConfig,
    run: &Path,
    (loaded, model): (&LoadedModel, &DualEncoder),
    compute: &Compute,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<(LockedTowers, Option<TempDir>), TrainError> {
    let locked = LockedTowers::new(model, &loaded.processor, compute, compute.threads, stop);
    let Some((dir, dtype)) = feature_cache_of(config).filter(|(dir, _)| dir.is_dir()) else {
        return Ok((locked, None));
    };
    let copy = if is_within(&dir, run) {
        match copy_of(&dir) {
            Ok(Some(copy)) => Some(copy),
            not_copied => {
                let why = not_copied.err().map_or("it is too large".to_owned(), |error| with_causes(&error));
                let dir = dir.display();
                observer.on(Event::Note(format!(
                    "the feature cache in `{dir}` is not copied, so features are computed: {why}"
                )));
                return Ok((locked, None));
            }
        }
    } else {
        None
    };
    let dir = copy.as_ref().map_or(dir, |copy| copy.path().to_owned());
    let restricted = locked.clone().restricted_to(&config.ever_trains());
    match restricted.with_cache(Some((dir, dtype)), &LockedFingerprints::of(model)?) {
        Err(error @ (TrainError::Write { .. } | TrainError::Read { .. })) => {
            observer.on(Event::Warning(format!("the feature cache is not used: {}", with_causes(&error))));
            Ok((locked, None))
        }
        cached => Ok((cached?, copy)),
    }
}

fn is_within(dir: &Path, run: &Path) -> bool {
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    resolved(dir).starts_with(resolved(run))
}

/// A temporary copy of a feature cache; `None` if it is too large. Indexes come first: a row that a training process
/// adds meanwhile is then without a record, never a record without its row.
fn copy_of(dir: &Path) -> Result<Option<TempDir>, TrainError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(TrainError::read(dir))?.flatten() {
        files.extend(entry.metadata().ok().filter(fs::Metadata::is_file).map(|file| (entry.path(), file.len())));
    }
    if files.iter().map(|(_, bytes)| bytes).sum::<u64>() > MOST_COPIED {
        return Ok(None);
    }
    files.sort_by_key(|(path, _)| path.extension().is_none_or(|extension| extension != "index"));
    let copy = tempfile::tempdir().map_err(TrainError::write(&std::env::temp_dir()))?;
    for (path, _) in &files {
        if let Some(name) = path.file_name() {
            fs::copy(path, copy.path().join(name)).map_err(TrainError::read(path))?;
        }
    }
    Ok(Some(copy))
}

/// Opens one evaluation, so that another one without its data does not fail with it.
fn open(config: &RunConfig, name: &str) -> Result<Evaluation, TrainError> {
    let mut alone = config.clone();
    alone.eval.retain(|other, _| other == name);
    let opened = Evaluation::open_alone(&alone)?.pop();
    opened.ok_or_else(|| TrainError::Internal(format!("evaluation `{name}` is not in its config")))
}

fn training_pairs(
    config: &RunConfig,
    encoder: &Encoder<'_>,
    loaded: &LoadedModel,
    observer: &mut dyn Observer,
) -> Result<(Arc<Dataset>, ScoredPairs), TrainError> {
    let dataset = Pairs::read(config)?.train;
    let at = (loaded.step.unwrap_or(0), config.run.seed);
    let scored = score(&dataset, at, encoder, &loaded.processor, observer)?;
    Ok((dataset, scored))
}

/// Summary of the training data.
fn data_entries(dataset: &Dataset) -> Vec<Entry> {
    let entry = |key: &str, value: String| Entry { key: key.to_owned(), value };
    let mut entries = vec![
        entry("training images", dataset.num_images().to_string()),
        entry("training captions", dataset.num_captions().to_string()),
    ];
    if dataset.skipped.count > 0 {
        entries.push(entry("rows left out", counted(dataset.skipped.count, "row")));
    }
    entries.extend(dataset.notes.iter().map(|note| entry("note", note.clone())));
    entries
}

/// The parts of the model, in its order.
fn parameter_groups(model: &DualEncoder) -> Vec<ParameterGroup> {
    let mut groups: Vec<ParameterGroup> = Vec::new();
    for info in parameters::list(model) {
        let part = info.path.split('.').next().unwrap_or(&info.path).to_owned();
        if groups.last().is_none_or(|group| group.part != part) {
            groups.push(ParameterGroup { part, ..ParameterGroup::default() });
        }
        if let Some(group) = groups.last_mut() {
            let count = info.shape.iter().product::<usize>() as u64;
            group.tensors += 1;
            group.parameters += count;
            group.trained += if info.trains { count } else { 0 };
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn deleted_checkpoint_gives_way_to_a_newer_one() {
        let newest = Cell::new(3);
        let gone = || TrainError::NoValidCheckpoint { dir: PathBuf::from("run"), problems: Vec::new() };
        // While it is loaded, the run writes the next one and deletes it; twice.
        let load = || {
            if newest.get() == 5 {
                return Ok(newest.get());
            }
            newest.set(newest.get() + 1);
            Err(gone())
        };
        assert_eq!(settled(|| Ok(vec![newest.get()]), load).unwrap(), 5);
        let mut loads = 0;
        let damaged = settled(
            || Ok(vec![3]),
            || {
                loads += 1;
                Err::<(), _>(gone())
            },
        );
        assert!(damaged.is_err() && loads == 1, "a damaged checkpoint stays damaged");
    }
}
