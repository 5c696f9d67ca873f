//! Inspects a directory: finds its kind, and reads runs and checkpoints.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use dualenc_model::{HeadForm, HostTensor, Tower, TowerLock, directory_hint};
use serde_json::Value;

use crate::commands::inspect::report::{BestReport, HeadReport, Inspection, Kind, RunReport};
use crate::commands::inspect::towers::{LoadSettings, inspect_model, with_causes};
use crate::config::{InitialWeights, ModelSection, RunConfig};
use crate::error::TrainError;
use crate::models::hub::settings::Hub;
use crate::run_dir::best::best_of_run;
use crate::run_dir::checkpoint::manifest::Progress;
use crate::run_dir::checkpoint::{self, Checkpoint, retention};
use crate::run_dir::layout::checkpoints_of;

/// Reports what `dir` holds, without training, writing or downloading anything.
///
/// # Errors
/// [`TrainError::Usage`] when the directory is of no known kind; [`TrainError::Read`] when it cannot be listed;
/// [`TrainError::Model`] when its `config.json` is unreadable or belongs to an unknown model.
pub fn inspect(dir: &Path, device: &Device) -> Result<Inspection, TrainError> {
    inspect_within(dir, &[], device)
}

/// As [`inspect`], for a directory that the runs of `chain` started from.
fn inspect_within(dir: &Path, chain: &[PathBuf], device: &Device) -> Result<Inspection, TrainError> {
    let resolved = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    if chain.contains(&resolved) {
        return Err(TrainError::Usage(format!(
            "`model.init` leads back to `{}`, which starts from itself",
            dir.display()
        )));
    }
    let chain = &[chain, &[resolved]].concat();
    if dir.join("manifest.json").is_file() {
        return Ok(inspect_run(dir, Kind::Checkpoint, vec![dir.to_owned()], chain, device));
    }
    if checkpoints_of(dir).is_dir() {
        let checkpoints = retention::list(&checkpoints_of(dir))?.into_iter().map(|(_, path)| path).collect();
        return Ok(inspect_run(dir, Kind::Run, checkpoints, chain, device));
    }
    if is_model_dir(dir) {
        return inspect_model(dir, &LoadSettings::of_new_run(dir), device);
    }
    Err(TrainError::Usage(format!(
        "`{}` does not hold a model: found {}; expected `config.json` and the weights of a tower or a whole model, \
         `checkpoints` of a run, or `manifest.json` of a checkpoint{}",
        dir.display(),
        list_entries(dir)?,
        directory_hint(dir)
    )))
}

/// Whether `dir` has a config of transformers or open_clip.
fn is_model_dir(dir: &Path) -> bool {
    ["config.json", "open_clip_config.json"].iter().any(|name| dir.join(name).is_file())
}

/// The names in a directory, for an error message.
fn list_entries(dir: &Path) -> Result<String, TrainError> {
    const MAX_NAMES: usize = 12;
    let entries = fs::read_dir(dir).map_err(TrainError::read(dir))?.flatten();
    let mut names: Vec<String> = entries.map(|entry| format!("`{}`", entry.file_name().to_string_lossy())).collect();
    names.sort();
    let more = names.len().saturating_sub(MAX_NAMES);
    names.truncate(MAX_NAMES);
    Ok(match (names.is_empty(), more) {
        (true, _) => "nothing".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    })
}

/// Inspects a run with these checkpoints, or a single checkpoint.
fn inspect_run(dir: &Path, kind: Kind, checkpoints: Vec<PathBuf>, chain: &[PathBuf], device: &Device) -> Inspection {
    let mut found = Inspection::new(dir, kind);
    let (mut newest, mut valid_steps, mut damaged) = (None, Vec::new(), Vec::new());
    for path in checkpoints {
        match checkpoint::load(&path) {
            Ok(checkpoint) => {
                valid_steps.push(checkpoint.progress.step);
                newest = Some(checkpoint);
            }
            Err(error) => damaged.push(error.to_string()),
        }
    }
    let config_dir = newest.as_ref().map_or(dir, |checkpoint| checkpoint.path.as_path());
    let config = match RunConfig::load(&config_dir.join("config.toml"), &[]) {
        Ok(config) => Some(config),
        Err(error) => {
            found.problems.push(with_causes(&error));
            None
        }
    };
    if let Some(config) = &config {
        found.inspect_initial_towers(config, chain, device);
    }
    found.problems.extend(damaged.iter().cloned());
    let values = |tensor: &HostTensor| tensor.values.len();
    let progress = newest.as_ref().map(|checkpoint| &checkpoint.progress);
    let best = newest.as_ref().filter(|_| kind == Kind::Run).map(|newest| best_of_run(dir, newest)).transpose();
    let best = best.unwrap_or_else(|error| {
        found.problems.push(with_causes(&error));
        None
    });
    let best = best.flatten();
    if let Some(best) = best.as_ref().filter(|best| !valid_steps.contains(&best.step)) {
        found.problems.push(format!("the best checkpoint, step {}, is missing or damaged", best.step));
    }
    found.run = Some(RunReport {
        best: best.map(|best| BestReport { step: best.step, metric: best.metric.to_string(), value: best.value }),
        averaged: newest.as_ref().is_some_and(|checkpoint| checkpoint.ema.is_some()),
        lock: config.as_ref().map(|config| config.model.lock.to_string()),
        captions_per_pair: config.as_ref().map(|config| config.caption_slots().count),
        teacher: config.as_ref().and_then(|config| Some(config.train.teacher.as_ref()?.model.clone())),
        checkpoint: newest.as_ref().map(|checkpoint| checkpoint.path.clone()),
        step: progress.map(|progress| progress.step),
        total_steps: progress.map(|progress| progress.total_steps),
        epoch: newest.as_ref().and_then(|checkpoint| epoch_of(&checkpoint.path, &checkpoint.progress)),
        samples_seen: progress.map(|progress| progress.samples_seen),
        trainable: newest.as_ref().map_or(0, |checkpoint| checkpoint.model.values().map(values).sum()),
        valid_steps,
        damaged,
    });
    let initial_head = found.head.take().unwrap_or_default();
    found.head = newest.as_ref().map(|checkpoint| trained_head(initial_head, checkpoint, config.as_ref()));
    found.parameters = found.count_parameters();
    found
}

impl Inspection {
    /// Inspects the towers that the run started with.
    fn inspect_initial_towers(&mut self, config: &RunConfig, chain: &[PathBuf], device: &Device) {
        let settings = LoadSettings {
            image: config.model.image_options(),
            text: config.model.text_options(),
            image_size: config.model.image_size,
            max_tokens: config.data.max_tokens,
            model: Some(config.model.clone()),
            pretrained: true,
            part: None,
        };
        match config.initial_weights() {
            InitialWeights::Pair { image, text } => {
                let lock = config.model.lock;
                let part = |tower, reference, lock, model: Option<&ModelSection>| {
                    let (pretrained, model) = (lock != TowerLock::Scratch, model.cloned());
                    let settings = LoadSettings { pretrained, model, part: Some(tower), ..settings.clone() };
                    inspect_model(&local_dir(reference)?, &settings, device)
                };
                match image.map(|image| self.take_problems(part(Tower::Image, image, lock.image, None))) {
                    None => self.image_processing = Some(features_of(config.model.image_width)),
                    Some(None) => {}
                    Some(Some(found)) => {
                        (self.image_tower, self.image_processing) = (found.image_tower, found.image_processing);
                    }
                }
                match text.map(|text| self.take_problems(part(Tower::Text, text, lock.text, Some(&config.model)))) {
                    None => self.tokenizer = Some(features_of(config.model.text_width)),
                    Some(None) => {}
                    Some(Some(found)) => (self.text_tower, self.tokenizer) = (found.text_tower, found.tokenizer),
                }
            }
            InitialWeights::Init(init) => {
                let found = local_dir(init).and_then(|dir| {
                    if is_model_dir(&dir) {
                        inspect_model(&dir, &settings, device)
                    } else {
                        inspect_within(&dir, chain, device)
                    }
                });
                if let Some(found) = self.take_problems(found) {
                    (self.image_tower, self.image_processing) = (found.image_tower, found.image_processing);
                    (self.text_tower, self.tokenizer) = (found.text_tower, found.tokenizer);
                    self.head = found.head;
                }
            }
        }
    }

    /// The inspection of a part of the run. Its error or its problems become the run's.
    fn take_problems(&mut self, part: Result<Inspection, TrainError>) -> Option<Inspection> {
        match part {
            Ok(mut found) => {
                std::mem::take(&mut found.problems).into_iter().for_each(|problem| self.add_problem(problem));
                Some(found)
            }
            Err(error) => {
                self.add_problem(with_causes(&error));
                None
            }
        }
    }

    /// Adds a problem, once where both towers have it: they may be read from one directory.
    fn add_problem(&mut self, problem: String) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

/// What stands in place of the processing of a side that has no tower.
fn features_of(width: Option<usize>) -> String {
    let width = width.map_or_else(String::new, |width| format!(" of {width} values"));
    format!("none, the data have features{width}")
}

/// The directory of a tower, if it is on this machine.
fn local_dir(reference: &str) -> Result<PathBuf, TrainError> {
    if Path::new(reference).is_dir() {
        return Ok(PathBuf::from(reference));
    }
    Ok(Hub { offline: true, ..Hub::from_env()? }.resolve(reference, &mut |_| {})?)
}

/// The head of a checkpoint. Locked parts are not saved in it and stay as they were.
fn trained_head(head: HeadReport, checkpoint: &Checkpoint, config: Option<&RunConfig>) -> HeadReport {
    let weights = checkpoint.weights();
    let scalar = |name: &str| weights.get(name)?.values.first().copied();
    let forms = config.map_or([None; 2], |config| [config.model.image_head.form(), config.model.text_head.form()]);
    // Those of the config, or of the model that the run started from.
    let tokens = config.and_then(|config| config.model.image_head.token_form()).or(head.image_tokens);
    let [image, text] = Tower::ALL.map(|tower| {
        let (before, form) = match tower {
            Tower::Image => ((head.image_projection, &head.image_head, head.head_parameters[0]), forms[0]),
            Tower::Text => ((head.text_projection, &head.text_head, head.head_parameters[1]), forms[1]),
        };
        let saved = weights.iter().filter(|(path, _)| Tower::of_head(path) == Some(tower));
        let count: usize = saved.map(|(_, tensor)| tensor.values.len()).sum();
        let shape = head_shape(&weights, tower.head_module()).or(before.0);
        let kind = match (form, tokens.filter(|_| tower == Tower::Image)) {
            (None, _) => before.1.clone(),
            (Some(form), None) => Some(form.to_string()),
            (Some(form), Some(tokens)) => Some(format!("{tokens}, then {form}")),
        };
        (shape, kind, if count > 0 { count } else { before.2 })
    });
    // The identity has no weights: its width is that of what it is compared with.
    let identity = |form: Option<HeadForm>| form.filter(HeadForm::is_identity).and(image.0).map(|[_, dim]| [dim; 2]);
    HeadReport {
        image_projection: image.0,
        text_projection: text.0.or(identity(forms[1])),
        image_head: image.1,
        text_head: text.1,
        image_tokens: tokens,
        head_parameters: [image.2, text.2],
        logit_bias: scalar("logit_bias").or(head.logit_bias),
        unused: Vec::new(),
        ..HeadReport::default()
    }
    .with_logit_scale(scalar("logit_scale").or(head.logit_scale))
}

/// Width and `dim` of the head `module`, by its saved matrices; `None` if it is not saved.
fn head_shape(weights: &BTreeMap<String, HostTensor>, module: &str) -> Option<[usize; 2]> {
    let shape = |names: &[&str]| {
        let found = names.iter().find_map(|name| weights.get(&format!("{module}.{name}.weight")))?;
        <[usize; 2]>::try_from(found.shape.as_slice()).ok()
    };
    let linear = weights.get(&format!("{module}.weight")).map(|weight| weight.shape.as_slice());
    match linear {
        Some(&[width, dim]) => Some([width, dim]),
        _ => Some([shape(&["output", "gate"])?[0], shape(&["output", "down"])?[1]]),
    }
}

/// Passes over the data at a checkpoint, from its run's `metrics.jsonl`.
fn epoch_of(checkpoint: &Path, progress: &Progress) -> Option<f64> {
    let text = fs::read_to_string(checkpoint.parent()?.parent()?.join("metrics.jsonl")).ok()?;
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["kind"] == "train" && line["step"] == progress.step)
        .find_map(|line| line["epoch"].as_f64())
}
