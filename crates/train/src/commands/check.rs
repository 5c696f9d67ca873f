//! `dualenc check`: everything that training checks before its first step, without training.

use dualenc_data::{Dataset, ImageRef};
use dualenc_model::{DualEncoder, TowerOptions, image_tower_from, text_tower_from};

use crate::config::{InitialWeights, RunConfig};
use crate::counted::counted;
use crate::device::Compute;
use crate::error::{ErrorKind, TrainError};
use crate::eval::evaluation::Evaluation;
use crate::events::{Event, Observer};
use crate::loss::contrastive::Objective;
use crate::models::hub::resolve::resolve;
use crate::models::load::LoadedModel;
use crate::optim::lr_schedule::LrSchedule;
use crate::optim::param_groups::ParamGroups;
use crate::optim::part_summary::summarize_parts;
use crate::pairs::Pairs;
use crate::training::stages::Stages;
use crate::training::training_data::too_few_pairs;

/// Missing files that are listed by name.
const MAX_LISTED: usize = 10;

/// The result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Facts about data and models, for people.
    pub facts: Vec<String>,
    /// Problems that would stop a run or spoil its result.
    pub problems: Vec<String>,
}

/// Opens everything that `config` names. Each broken data set, tower and evaluation is a problem, named by the key that
/// led there, and all missing image files are counted.
///
/// # Errors
/// [`TrainError::Device`]; and errors that may pass, as when the hub does not answer.
pub fn check(config: &RunConfig, observer: &mut dyn Observer) -> Result<Findings, TrainError> {
    let mut findings = Findings::default();
    let compute = Compute::select(&config.run.device, config.run.threads)?.computing_as(&config.run)?;
    let pairs = findings.keep("data.train", Pairs::read(config))?;
    let dataset = pairs.as_ref().map(|pairs| &*pairs.train);
    if let Some(dataset) = dataset {
        count_data(config, dataset, &mut findings)?;
    }
    match LoadedModel::from_config(config, &compute, observer) {
        Ok(loaded) => check_model(config, &loaded, dataset, &mut findings, observer)?,
        Err(error) => check_towers(config, &compute, error, &mut findings)?,
    }
    if let Some(augment) = &config.data.augment {
        findings.facts.push(format!("training images are augmented: {}", augment.describe()));
    }
    let objective = Objective::from(config);
    for (name, section) in &config.eval {
        let opened = Evaluation::open(name, section, pairs.as_ref().and_then(|pairs| pairs.validation.as_ref()))
            .map(|evaluation| evaluation.with_objective(objective));
        let Some(evaluation) = findings.keep(&format!("eval.{name}"), opened)? else { continue };
        findings.facts.extend(evaluation.warnings());
        let images = evaluation.images();
        let is_missing = |image: &ImageRef| matches!(image, ImageRef::File(path) if !path.is_file());
        let total = images.num_images();
        let missing: Vec<String> =
            (0..total).map(|image| images.image(image)).filter(is_missing).map(|image| image.key()).collect();
        if missing.is_empty() {
            findings.facts.push(format!("evaluation `{name}` is ready"));
        } else {
            let all = format!("`eval.{name}`: {} of {total} image files", missing.len());
            findings.problems.push(missing_files(&all, missing.len(), missing.into_iter().take(MAX_LISTED)));
        }
    }
    Ok(findings)
}

impl Findings {
    /// The value of `result`. An error that the user can mend becomes a problem of the config key `key`.
    fn keep<T>(&mut self, key: &str, result: Result<T, TrainError>) -> Result<Option<T>, TrainError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::Input => {
                self.problems.push(format!("`{key}`: {}", with_causes(&error)));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The message of an error and those of its causes, each once.
fn with_causes(error: &TrainError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

fn check_model(
    config: &RunConfig,
    loaded: &LoadedModel,
    dataset: Option<&Dataset>,
    findings: &mut Findings,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    if let Some(groups) = findings.keep("train", ParamGroups::resolve(&config.train, &loaded.model))? {
        observer.on(Event::Parts(&summarize_parts(&loaded.model, &groups, config.train.learning_rate)?));
    }
    if let Some(dataset) = dataset {
        check_schedules(config, dataset, &loaded.model, findings);
    }
    findings.facts.push(format!("images: {}", loaded.processor.describe()));
    Ok(())
}

/// Reports which towers cannot be loaded, after loading both failed with `error`.
fn check_towers(
    config: &RunConfig,
    compute: &Compute,
    error: TrainError,
    findings: &mut Findings,
) -> Result<(), TrainError> {
    let (image, text) = match config.initial_weights() {
        InitialWeights::Init(_) => return findings.keep("model.init", Err(error)).map(drop::<Option<()>>),
        InitialWeights::Pair { image, text } => (image, text),
    };
    let (section, before) = (&config.model, findings.problems.len());
    let load_image = || {
        let options = TowerOptions { pool: section.image_pool, dropout: None };
        image_tower_from(&resolve(image)?, section.lock.image, options, &compute.device)?;
        Ok(())
    };
    let load_text = || {
        let options = TowerOptions { pool: section.text_pool, dropout: None };
        text_tower_from(&resolve(text)?, section.lock.text, options, &compute.device)?;
        Ok(())
    };
    findings.keep("model.image_tower", load_image())?;
    findings.keep("model.text_tower", load_text())?;
    // Each loads alone: they do not fit together, or to the tokenizer or the images.
    if findings.problems.len() == before {
        findings.keep::<()>("model", Err(error))?;
    }
    Ok(())
}

/// Checks the learning-rate schedule and reports the stages: both depend on the number of pairs.
fn check_schedules(config: &RunConfig, dataset: &Dataset, model: &DualEncoder, findings: &mut Findings) {
    let steps_per_epoch = config.plan(dataset).batches_per_epoch() as u64;
    if steps_per_epoch == 0 {
        return;
    }
    let total_steps = config.total_steps(steps_per_epoch);
    findings.problems.extend(LrSchedule::new(&config.train, total_steps).err().map(|error| error.to_string()));
    match Stages::new(config, model, steps_per_epoch, total_steps) {
        Ok(stages) if stages.len() > 1 => {
            findings.facts.extend((0..stages.len()).map(|number| stages.describe(number)));
        }
        Ok(_) => {}
        Err(error) => findings.problems.push(error.to_string()),
    }
}

fn count_data(config: &RunConfig, dataset: &Dataset, findings: &mut Findings) -> Result<(), TrainError> {
    let pairs = dataset.num_pairs(config.data.captions);
    let (images, captions) = (dataset.num_images(), dataset.num_captions());
    findings.facts.push(format!(
        "{}, {}, {} per epoch",
        counted(images, "image"),
        counted(captions, "caption"),
        counted(pairs, "pair")
    ));
    findings.facts.extend(dataset.notes.iter().cloned());
    findings.facts.extend(dataset.warnings.iter().map(|warning| format!("warning: {warning}")));
    if dataset.skipped.count > 0 {
        let first = dataset.skipped.first(MAX_LISTED);
        findings.facts.push(format!("rows that cannot be used: {}, such as {first}", dataset.skipped.count));
    }
    if config.plan(dataset).batches_per_epoch() == 0 {
        findings.problems.push(too_few_pairs(pairs, config.train.batch_size));
    }
    let missing = dataset.missing_files(MAX_LISTED)?;
    if missing.count > 0 {
        let all = format!("{} of {images} image files", missing.count);
        let first = missing.first.iter().map(|path| path.display().to_string());
        findings.problems.push(missing_files(&all, missing.count, first));
    }
    Ok(())
}

/// `all`: how many files of how many; `first`: the first of the `count` missing ones.
fn missing_files(all: &str, count: usize, first: impl Iterator<Item = String>) -> String {
    let mut lines: Vec<String> = first.map(|path| format!("  {path}")).collect();
    if count > lines.len() {
        lines.push(format!("  ... and {} more", count - lines.len()));
    }
    format!("{all} are missing:\n{}", lines.join("\n"))
}
