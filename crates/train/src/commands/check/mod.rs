//! `dualenc check`: everything that training finds out before its first step and, of the data, what it would find out
//! during the run.
//!
//! This file has [`check`]. The others:
//! - `findings`: facts, warnings and problems
//! - `data`: counts of pairs, sources and skipped rows
//! - `captions`: odd, repeated and rare captions
//! - `tokens`: lengths of captions in tokens
//! - `images`: reads and decodes every image
//! - `look`: what an image looks like, in a few bytes
//! - `copies`: images that occur twice
//! - `models`: the towers

mod captions;
mod copies;
mod data;
pub(crate) mod findings;
pub(crate) mod images;
mod look;
mod models;
mod tokens;

use std::sync::Arc;

use dualenc_data::{Dataset, SourceTable, counted};

use crate::commands::check::captions::{report_captions, report_classes};
use crate::commands::check::copies::{Usable, report_copies, report_equal_captions, report_overlap};
use crate::commands::check::data::{report_data, report_skipped};
use crate::commands::check::findings::{Findings, Level};
use crate::commands::check::images::{CheckOptions, Images, Seen, report_bad, report_sizes};
use crate::commands::check::models::check_models;
use crate::commands::check::tokens::report_tokens;
use crate::config::{Draft, RunConfig};
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::evaluation::Evaluation;
use crate::events::Observer;
use crate::features::image_index::ImageList;
use crate::loss::contrastive::Objective;
use crate::pairs::Pairs;

/// Opens everything that a config names, and decodes every image unless `options` say otherwise. Each broken data set,
/// tower and evaluation is a problem, named by the key that led there; bad images are problems if there are more than a
/// run tolerates. The data come first: an error does not take away what was found before it. Problems of the config are
/// findings with the code [`CONFIG_PROBLEM`], and what they leave readable is checked.
///
/// # Errors
/// Those that may pass, as when the hub does not answer.
pub fn check(draft: &Draft, options: CheckOptions, observer: &mut dyn Observer) -> (Findings, Result<(), TrainError>) {
    let mut findings = Findings::default();
    for problem in &draft.problems {
        let help = problem.help.as_ref().map_or(String::new(), |help| format!("; {help}"));
        let message = format!("{}: {}{help}", problem.place, problem.message);
        findings.problem(CONFIG_PROBLEM, &problem.key, message);
    }
    let done = check_all(draft, options, &mut findings, observer);
    // What follows from a value that stands in for a wrong one says nothing.
    findings.all.retain(|finding| {
        let is_stand_in = !finding.key.is_empty() && draft.problems.iter().any(|problem| problem.key == finding.key);
        finding.code == CONFIG_PROBLEM || !is_stand_in
    });
    (findings, done)
}

/// The code of findings that are problems of the config itself.
pub const CONFIG_PROBLEM: &str = "config";

fn check_all(
    draft: &Draft,
    options: CheckOptions,
    findings: &mut Findings,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let config = &draft.config;
    for warning in config.warnings() {
        findings.warn("config_warning", "", warning);
    }
    for note in config.notes() {
        findings.fact("config_note", "", note);
    }
    let device_keys = ["run.device", "run.threads", "run.precision", "run.locked_precision"];
    let compute = match device_keys.iter().any(|key| draft.is_wrong(key)) {
        true => None,
        false => {
            let compute = Compute::select(config.run.device.first(), config.run.threads);
            let compute = compute.and_then(|compute| compute.computing_as(&config.run));
            findings.keep("device", "run.device", compute)?
        }
    };
    let threads = compute.as_ref().map_or_else(rayon::current_num_threads, |compute| compute.threads);
    let workers = config.data.workers.unwrap_or(threads).max(1);
    let is_readable = !draft.is_wrong("data.train") && !draft.is_wrong("data.validation_fraction");
    let pairs = if is_readable { read_pairs(config, findings)? } else { None };
    if let Some(pairs) = &pairs {
        report_data(config, pairs, findings);
        report_captions(&pairs.train, config.train.batch_size, config.train.duplicates, findings);
    }
    if let Some(augment) = &config.data.augment {
        findings.fact("augment", "data.augment", format!("training images are augmented: {}", augment.describe()));
    }
    if options.fast {
        let message = "images are not decoded (`--fast`): damage and copies are not looked for";
        findings.fact("fast", "", message);
    }
    let mut checker = Checker { config, images: Images::new(options, config.image_limits(), workers), train: None };
    if let Some(pairs) = &pairs {
        checker.training_images(&pairs.train, findings, observer)?;
    }
    let objective = Objective::from(config);
    for (name, section) in &config.eval {
        // Without the training data, there is no validation split to speak of.
        let needs_pairs = pairs.is_none() && section.uses_split();
        if needs_pairs || draft.is_wrong(&format!("eval.{name}")) {
            continue;
        }
        let opened = Evaluation::open(name, section, pairs.as_ref().and_then(|pairs| pairs.validation.as_ref()))
            .map(|evaluation| evaluation.with_objective(objective));
        if let Some(evaluation) = findings.keep("evaluation", &format!("eval.{name}"), opened)? {
            checker.evaluation(name, &evaluation, findings, observer)?;
        }
    }
    let dataset = pairs.as_ref().map(|pairs| &*pairs.train);
    let text = match &compute {
        Some(compute) => check_models(draft, compute, dataset, findings, observer)?,
        None => None,
    };
    if let (Some(dataset), Some(text)) = (dataset, &text)
        && dataset.text_feature_width().is_none()
    {
        report_tokens(config, text, dataset, findings);
    }
    Ok(())
}

/// Reads the training pairs. Every source that cannot be read is a problem.
fn read_pairs(config: &RunConfig, findings: &mut Findings) -> Result<Option<Pairs>, TrainError> {
    let error = match Pairs::read(config) {
        Ok(pairs) => return Ok(Some(pairs)),
        Err(error) => error,
    };
    let tables = config.data.train.tables();
    let key_of = |(key, table): &(String, &SourceTable)| match &table.sources()[..] {
        [(format, _)] => format!("{key}.{format}"),
        _ => key.clone(),
    };
    let before = findings.count(Level::Problem);
    if tables.len() > 1 {
        for table in &tables {
            let read = table.1.read().map_err(|error| error.in_table(&table.0));
            findings.keep("data", &key_of(table), read.map(drop).map_err(Into::into))?;
        }
    }
    if findings.count(Level::Problem) == before {
        let key = if tables.len() == 1 { key_of(&tables[0]) } else { "data.train".to_owned() };
        findings.keep::<()>("data", &key, Err(error))?;
    }
    Ok(None)
}

/// Looks at images, and remembers those of the training data.
struct Checker<'a> {
    config: &'a RunConfig,
    images: Images,
    train: Option<Training>,
}

/// What the evaluations are compared with.
struct Training {
    list: Arc<dyn ImageList>,
    usable: Usable,
    /// Ids of the captions, sorted.
    captions: Vec<u64>,
    /// The warning about captions such as `NaN`.
    null_words: Option<String>,
}

impl Checker<'_> {
    fn training_images(
        &mut self,
        dataset: &Arc<Dataset>,
        findings: &mut Findings,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let list: Arc<dyn ImageList> = Arc::clone(dataset) as Arc<dyn ImageList>;
        let numbers = self.images.of("training images", &list, observer)?;
        let (key, max_bad_fraction) = ("data.train", self.config.data.max_bad_fraction);
        report_bad(key, "", (list.as_ref(), &numbers, &self.images), max_bad_fraction, findings);
        let are_features = dataset.image_feature_width().is_some();
        if !are_features {
            report_sizes(key, &numbers, &self.images, findings);
        }
        let usable = Usable::of(&numbers, &self.images);
        report_copies(list.as_ref(), &usable, (&self.images, are_features), findings);
        let mut captions = dataset.caption_ids();
        captions.sort_unstable();
        self.train = Some(Training { list, usable, captions, null_words: dataset.null_words() });
        Ok(())
    }

    fn evaluation(
        &mut self,
        name: &str,
        evaluation: &Evaluation,
        findings: &mut Findings,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let (key, what) = (format!("eval.{name}"), format!("evaluation `{name}`: "));
        let list = evaluation.images();
        let work = format!("{name}: images");
        let numbers = self.images.of(&work, &list, observer)?;
        let problems = findings.count(Level::Problem);
        let bad_of = format!("`{key}`: ");
        let max_bad_fraction = self.config.data.max_bad_fraction;
        report_bad(&key, &bad_of, (list.as_ref(), &numbers, &self.images), max_bad_fraction, findings);
        let is_sound = findings.count(Level::Problem) == problems;
        let is_usable = |image: usize| matches!(self.images.seen(numbers[image]), Seen::Good { .. });
        if is_sound && let Err(error) = evaluation.check_usable(is_usable) {
            findings.keep::<()>("no_usable_images", &key, Err(error))?;
        }
        if let Some(dataset) = evaluation.dataset() {
            report_skipped(&key, &what, &dataset.skipped, findings);
        }
        let told: Vec<String> = findings.all.iter().map(|finding| finding.message.clone()).collect();
        for warning in evaluation.data_warnings() {
            // Those of the training data are odd captions.
            let is_null_words = self.train.as_ref().is_some_and(|train| train.null_words.as_ref() == Some(&warning));
            if !is_null_words && !told.iter().any(|message| message.ends_with(&warning)) {
                findings.warn("data_warning", &key, format!("{what}{warning}"));
            }
        }
        if let Some(sizes) = evaluation.class_sizes() {
            report_classes(&key, &what, &sizes, findings);
        }
        if let Some(train) = &self.train {
            let usable = Usable::of(&numbers, &self.images);
            let train_images = (train.list.as_ref(), &train.usable);
            report_overlap(name, train_images, (list.as_ref(), &usable), &self.images, findings);
            if let Some(dataset) = evaluation.dataset() {
                report_equal_captions(name, &train.captions, dataset, findings);
            }
        }
        if findings.count(Level::Problem) == problems {
            let message = format!("evaluation `{name}` is ready: {}", counted(list.num_images(), "image"));
            findings.fact("evaluation_ready", &key, message).value("images", list.num_images());
        }
        Ok(())
    }
}
