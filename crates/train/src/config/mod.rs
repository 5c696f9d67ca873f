//! The configuration of a run: from the TOML file and the `--set` arguments to a checked [`RunConfig`].
//!
//! Reading goes in this order: the file's text becomes a tree whose values know where they stand (`document.rs`); the
//! `--set` arguments change the tree; the tree is read as [`RunConfig`] (`schema`), and an entry at fault is reported
//! and taken out until the rest can be read (`explain.rs`); the rules between keys are checked (`validate`); paths
//! become absolute (`paths.rs`). So one call reports every problem. Whether the files and towers exist is not asked here.

pub(crate) mod error;
pub(crate) mod metric_name;
mod resolve_paths;
pub(crate) mod resume_diff;
pub(crate) mod schema;
mod serde_errors;
pub(crate) mod stage_plan;
#[cfg(test)]
mod tests;
pub(crate) mod toml_tree;
mod validate;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dualenc_data::{Dataset, Plan};
use dualenc_model::LOGIT_SCALE_INIT;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use toml_tree::Document;

pub use error::{ConfigError, Place, Problem};
pub use metric_name::Goal;
pub use resume_diff::{Change, changed_keys};
pub(crate) use schema::default;
pub use schema::{
    CacheDtype, CacheSection, CheckpointSection, DataSection, Duplicates, EvalSection, GroupSection,
    ImageProjectionSection, LoraSection, Loss, ModelSection, OptimizerKind, Precision, ProjectionSection, RunConfig,
    RunSection, Schedule, StageSection, Task, TrainSection,
};
pub use stage_plan::{Stage, StageStart};

/// The keys a run cannot do without, and what to write.
const REQUIRED: [(&[&str], &str); 4] = [
    (&["run", "dir"], "where the run writes, such as `dir = \"runs/first\"`"),
    (&["data", "train"], "where the pairs are, such as a table `[data.train.csv]` with `path`"),
    (&["train", "batch_size"], "such as `batch_size = 256`"),
    (&["train", "learning_rate"], "such as `learning_rate = 1e-3`"),
];

/// How long a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duration {
    /// Passes over the data.
    Epochs(u64),
    /// Optimiser updates.
    Steps(u64),
}

/// Where the weights of a new run come from. Each is an absolute path or a hub id, for [`crate::models::hub::resolve::resolve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Towers<'a> {
    /// Two towers that have not met.
    Pair {
        /// The image tower.
        image: &'a str,
        /// The text tower.
        text: &'a str,
    },
    /// A dual encoder that was trained before.
    Init(&'a str),
}

/// When an evaluation runs, besides at the end of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvalInterval {
    /// After each so many epochs.
    Epochs(u64),
    /// After each so many steps.
    Steps(u64),
    /// Only at the end.
    End,
}

impl RunConfig {
    /// Reads `path` with the `KEY=VALUE` arguments of `--set` laid over it. Relative paths, those of `--set` too, count
    /// from the directory of the file.
    ///
    /// A `--set` value is read as TOML and, where it is none, as a bare string; an empty one takes the key out.
    ///
    /// # Errors
    /// The file cannot be read, or the configuration is wrong; then every problem is listed with its place.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(read)?;
        let directory = std::path::absolute(path).map_err(read)?.parent().map(PathBuf::from).unwrap_or_default();
        let directory = directory.canonicalize().map_err(read)?;
        Self::from_bytes(&bytes, path, &directory, overrides)
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// The configuration as TOML, every default written out and every path absolute. [`RunConfig::load`] reads it back
    /// to an equal value.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        Ok(toml::to_string(self)?)
    }

    /// How long the run trains.
    pub fn duration(&self) -> Duration {
        match (self.train.steps, self.train.epochs) {
            (Some(steps), _) => Duration::Steps(steps),
            // A loaded configuration has one of the two.
            (None, epochs) => Duration::Epochs(epochs.unwrap_or(0)),
        }
    }

    /// How an epoch over `dataset` is cut.
    pub(crate) fn plan(&self, dataset: &Dataset) -> Plan {
        Plan {
            seed: self.run.seed,
            batch_size: self.train.batch_size,
            len: dataset.num_pairs(self.data.captions),
            shuffle: self.data.shuffle,
        }
    }

    /// Updates of the whole run.
    pub fn total_steps(&self, steps_per_epoch: u64) -> u64 {
        match self.duration() {
            Duration::Epochs(epochs) => epochs * steps_per_epoch,
            Duration::Steps(steps) => steps,
        }
    }

    /// Where the weights of a new run come from.
    pub fn towers(&self) -> Towers<'_> {
        let model = &self.model;
        match &model.init {
            Some(init) => Towers::Init(init),
            None => Towers::Pair {
                image: model.image_tower.as_deref().unwrap_or_default(),
                text: model.text_tower.as_deref().unwrap_or_default(),
            },
        }
    }

    /// The directory of the feature cache.
    pub fn cache_dir(&self) -> PathBuf {
        self.cache.dir.clone().unwrap_or_else(|| self.run.dir.join("cache"))
    }

    /// Settings that are valid and have no effect, each as a sentence.
    pub fn warnings(&self) -> Vec<String> {
        let (model, stages, ever) = (&self.model, self.stages(), self.ever_trains());
        let mut warnings = Vec::new();
        for (name, dropout, tower) in
            [("image", model.image_dropout, ever.image), ("text", model.text_dropout, ever.text)]
        {
            if dropout.is_some() && !tower.any() {
                warnings.push(format!(
                    "`model.{name}_dropout` has no effect: the {name} tower is locked and drops nothing"
                ));
            }
        }
        for (name, decay, tower) in
            [("image", self.train.image_layer_decay, ever.image), ("text", self.train.text_layer_decay, ever.text)]
        {
            if decay != 1.0 && !tower.any() {
                warnings.push(format!("`train.{name}_layer_decay` has no effect: the {name} tower is locked"));
            }
        }
        let image_locked = stages.iter().any(|stage| !stage.training.image.any());
        let text_locked = stages.iter().any(|stage| !stage.training.text.any());
        if self.cache.views.is_some() && (self.data.augment.is_none() || !image_locked) {
            let why = if self.data.augment.is_none() { "images are not augmented" } else { "the image tower trains" };
            warnings.push(format!("`cache.views` has no effect: {why}"));
        }
        if let (Some(goal), Some(_)) = (self.checkpoint.goal(), self.checkpoint.patience)
            && self.eval.get(&goal.evaluation).is_some_and(|eval| eval.interval() == EvalInterval::End)
        {
            let name = goal.evaluation;
            warnings.push(format!("`checkpoint.patience` has no effect: `eval.{name}` only runs when training ends"));
        }
        if self.cache.dir.is_some() && (!self.cache.enabled || !(image_locked || text_locked)) {
            let why = if self.cache.enabled { "no tower is locked" } else { "`cache.enabled` is false" };
            warnings.push(format!("`cache.dir` has no effect: {why}"));
        }
        warnings
    }

    /// `path` is only shown; `directory` is what relative paths count from.
    fn from_bytes(bytes: &[u8], path: &Path, directory: &Path, overrides: &[String]) -> Result<Self, Vec<Problem>> {
        if directory.to_str().is_none() {
            // `to_toml` could not write it, and `changed_keys` could not compare it.
            return Err(vec![not_utf8(
                b"",
                0,
                path,
                "the path of the config is not UTF-8",
                "move it to a directory that is",
            )]);
        }
        let text = str::from_utf8(bytes).map_err(|error| {
            vec![not_utf8(
                bytes,
                error.valid_up_to(),
                path,
                "the file is not UTF-8",
                "save it as UTF-8; TOML knows no other encoding",
            )]
        })?;
        let mut document = Document::parse(path, text)?;
        let mut problems = Vec::new();
        for argument in overrides {
            problems.extend(document.set(argument).err().map(|problem| *problem));
        }
        let (config, reported) = read(&mut document, &mut problems);
        let Some(mut config) = config else {
            return Err(sorted(problems, overrides));
        };
        resolve_paths::resolve(&mut config, directory);
        for violation in validate::violations(&config) {
            let mut concerned = std::iter::once(&violation.key).chain(&violation.others);
            if concerned.all(|key| !covers(&reported, key)) {
                let place = document.place_of(&violation.key);
                problems.push(Problem { key: violation.key, message: violation.message, help: violation.help, place });
            }
        }
        if !problems.is_empty() {
            return Err(sorted(problems, overrides));
        }
        config.fill_defaults();
        Ok(config)
    }

    /// Writes out the defaults that depend on other keys, so that a default and the same value given are equal.
    fn fill_defaults(&mut self) {
        if self.model.init.is_none() {
            self.model.embed_dim.get_or_insert(default::EMBED_DIM);
            self.model.logit_scale_init.get_or_insert(match self.train.loss {
                Loss::Softmax => LOGIT_SCALE_INIT,
                Loss::Sigmoid => default::SIGMOID_LOGIT_SCALE_INIT,
            });
        }
        if self.train.loss == Loss::Sigmoid {
            self.train.logit_bias_init.get_or_insert(default::LOGIT_BIAS_INIT);
        }
        let optimizer = self.train.optimizer;
        let [_, eps, momentum] = optimizer.reads();
        self.train.betas = self.train.betas.or(default::betas(optimizer));
        self.train.eps = self.train.eps.or(eps.then_some(default::EPS));
        self.train.momentum = self.train.momentum.or(momentum.then_some(default::MOMENTUM));
        if self.train.warmup_fraction.is_none() {
            self.train.warmup_steps.get_or_insert(0);
        }
        if self.train.schedule == Schedule::Rsqrt {
            self.train.rsqrt_timescale.get_or_insert(default::RSQRT_TIMESCALE);
        }
        for lora in [&mut self.model.image_lora, &mut self.model.text_lora].into_iter().flatten() {
            lora.alpha.get_or_insert(lora.rank as f64);
        }
        for eval in self.eval.values_mut().filter(|eval| eval.task == Task::Loss) {
            eval.pool_size.get_or_insert(default::POOL_SIZE);
        }
        for eval in self.eval.values_mut().filter(|eval| eval.every_steps.is_none()) {
            eval.every_epochs.get_or_insert(default::EVAL_EVERY_EPOCHS);
        }
    }
}

impl EvalSection {
    /// Pairs in a pool of a loss evaluation.
    pub fn pool_size(&self) -> usize {
        self.pool_size.unwrap_or(default::POOL_SIZE)
    }

    /// When the evaluation runs, besides at the end of training.
    pub fn interval(&self) -> EvalInterval {
        match (self.every_steps, self.every_epochs) {
            (Some(steps), _) => EvalInterval::Steps(steps),
            (None, Some(0)) => EvalInterval::End,
            (None, epochs) => EvalInterval::Epochs(epochs.unwrap_or(default::EVAL_EVERY_EPOCHS)),
        }
    }
}

/// Reads the tree, reporting each entry at fault and taking it out until the rest can be read. The second value holds the
/// keys that were reported, whose values in the configuration are stand-ins.
fn read(document: &mut Document<'_>, problems: &mut Vec<Problem>) -> (Option<RunConfig>, BTreeSet<String>) {
    let mut reported: BTreeSet<String> = problems.iter().map(|problem| problem.key.clone()).collect();
    let mut missing = Vec::new();
    let mut taken_out = BTreeSet::new();
    let config = loop {
        complete(document, &mut missing);
        let error = match document.read::<RunConfig>() {
            Ok(config) => break Some(config),
            Err(error) => error,
        };
        let explained = serde_errors::explain(document, &error);
        let key = &explained.problem.key;
        // A table that is incomplete because an entry of it was taken out is no second problem.
        let follows =
            reported.iter().any(|reported| reported.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')));
        if problems.is_empty() || !(follows || covers(&reported, key)) {
            reported.insert(key.clone());
            problems.push(explained.problem);
        }
        let path: Vec<&str> = explained.at_fault.iter().map(String::as_str).collect();
        let can_go_on = document.get(&path).is_some() && taken_out.insert(explained.at_fault.clone());
        document.remove(&path);
        reported.insert(path.join("."));
        // A required key that was misspelt is reported once, by the name it has.
        reported.extend(explained.meant);
        if !can_go_on {
            // Nothing was taken out, or the same again: reading once more would meet the same error.
            break None;
        }
    };
    for Missing { key, help, place } in missing {
        if !covers(&reported, &key) {
            let message = format!("missing key `{key}`");
            problems.push(Problem { message, help: Some(help.to_owned()), place, key: key.clone() });
        }
        reported.insert(key);
    }
    (config, reported)
}

/// A required key that was not found.
struct Missing {
    key: String,
    help: &'static str,
    place: Place,
}

/// Puts a stand-in where a required key is missing.
fn complete(document: &mut Document<'_>, missing: &mut Vec<Missing>) {
    let mut put = |document: &mut Document<'_>, path: &[&str], help, value| {
        let key = path.join(".");
        missing.push(Missing { place: document.place_of(&key), key, help });
        document.put(path, value);
    };
    if document.get(&["model"]).is_none() {
        // Its rules will name the missing towers.
        document.put(&["model"], DeValue::Table(DeTable::new()));
    }
    for (path, help) in REQUIRED {
        let in_scalar = path
            .first()
            .is_some_and(|section| document.get(&[section]).is_some_and(|value| !value.get_ref().is_table()));
        if !in_scalar && document.get(path).is_none() {
            put(document, path, help, stand_in(path));
        }
    }
    let without_task: Vec<String> = match document.get(&["eval"]).map(Spanned::get_ref) {
        Some(DeValue::Table(evals)) => evals
            .iter()
            .filter(|(_, eval)| eval.get_ref().as_table().is_some_and(|eval| !eval.contains_key("task")))
            .map(|(name, _)| name.get_ref().to_string())
            .collect(),
        _ => Vec::new(),
    };
    for name in without_task {
        let value = DeValue::String(Cow::Borrowed("zero-shot"));
        put(document, &["eval", &name, "task"], "`zero-shot`, `retrieval` or `loss`", value);
    }
}

/// A value of the right type for a required key; it never leaves this module, since its absence is a problem.
fn stand_in(path: &[&str]) -> DeValue<'static> {
    let text = |text: &'static str| DeValue::String(Cow::Borrowed(text));
    let table = |key: &'static str, value: DeValue<'static>| {
        let entry = (Spanned::new(0..0, DeString::Borrowed(key)), Spanned::new(0..0, value));
        DeValue::Table(DeTable::from_iter([entry]))
    };
    match path {
        ["run", "dir"] => text("."),
        ["data", "train"] => table("csv", table("path", text("."))),
        _ => number(),
    }
}

/// The number 2, valid for every required number.
fn number() -> DeValue<'static> {
    DeValue::parse("2").map(Spanned::into_inner).unwrap_or(DeValue::Boolean(true))
}

/// Whether a key, or a table it stands in, is among the reported ones.
fn covers(reported: &BTreeSet<String>, key: &str) -> bool {
    let stops = key.match_indices('.').map(|(at, _)| at).chain([key.len()]);
    stops.into_iter().any(|stop| key.get(..stop).is_some_and(|prefix| reported.contains(prefix)))
}

/// The file first, top to bottom, then the arguments in their order.
fn sorted(mut problems: Vec<Problem>, overrides: &[String]) -> Vec<Problem> {
    let origins: Vec<String> = overrides.iter().map(|argument| toml_tree::origin_of(argument)).collect();
    problems.sort_by_key(|problem| {
        let argument = origins.iter().position(|origin| *origin == problem.place.origin);
        let start = problem.place.span.as_ref().map_or(usize::MAX, |span| span.start);
        (argument, start)
    });
    problems
}

fn not_utf8(bytes: &[u8], at: usize, path: &Path, message: &str, help: &str) -> Problem {
    let mut map = toml_tree::SourceMap::default();
    map.add(path.display().to_string(), &String::from_utf8_lossy(bytes));
    Problem {
        key: String::new(),
        message: message.to_owned(),
        help: Some(help.to_owned()),
        // Up to there the text is UTF-8, so the lossy copy has the same bytes.
        place: map.place(Some(at..at + 1)),
    }
}
