//! Runs and checkpoints: how far, which checkpoints are whole, and the towers that it began with.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use dualenc_model::{HostTensor, TowerLock};
use serde_json::Value;

use super::report::{BestReport, HeadReport, Inspection, Kind, RunReport};
use super::{Settings, chain, inspect, inspect_model, is_model_dir};
use crate::config::{RunConfig, Towers};
use crate::error::TrainError;
use crate::models::hub::Hub;
use crate::run_dir::best::best_of_run;
use crate::run_dir::checkpoint::{self, Checkpoint, Progress};

/// A run with these checkpoints, or one checkpoint.
pub(super) fn inspect_run(dir: &Path, kind: Kind, checkpoints: Vec<PathBuf>, device: &Device) -> Inspection {
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
            found.problems.push(chain(&error));
            None
        }
    };
    if let Some(config) = &config {
        found.towers_of(config, device);
    }
    found.problems.extend(damaged.iter().cloned());
    let values = |tensor: &HostTensor| tensor.values.len();
    let progress = newest.as_ref().map(|checkpoint| &checkpoint.progress);
    let best = newest.as_ref().filter(|_| kind == Kind::Run).map(|newest| best_of_run(dir, newest)).transpose();
    let best = best.unwrap_or_else(|error| {
        found.problems.push(chain(&error));
        None
    });
    let best = best.flatten();
    if let Some(best) = best.as_ref().filter(|best| !valid_steps.contains(&best.step)) {
        found.problems.push(format!("the best checkpoint, of step {}, is not there or damaged", best.step));
    }
    found.run = Some(RunReport {
        best: best.map(|best| BestReport { step: best.step, metric: best.goal.to_string(), value: best.value }),
        averaged: newest.as_ref().is_some_and(|checkpoint| checkpoint.ema.is_some()),
        lock: config.as_ref().map(|config| config.model.lock.to_string()),
        checkpoint: newest.as_ref().map(|checkpoint| checkpoint.path.clone()),
        step: progress.map(|progress| progress.step),
        total_steps: progress.map(|progress| progress.total_steps),
        epoch: newest.as_ref().and_then(|checkpoint| epoch_of(&checkpoint.path, &checkpoint.progress)),
        samples_seen: progress.map(|progress| progress.samples_seen),
        trainable: newest.as_ref().map_or(0, |checkpoint| checkpoint.model.values().map(values).sum()),
        valid_steps,
        damaged,
    });
    // What a run began with is not what it has come to.
    let began = found.head.take().unwrap_or_default();
    found.head = newest.as_ref().map(|checkpoint| trained_head(began, checkpoint));
    found.parameters = found.count();
    found
}

impl Inspection {
    /// The towers that a run began with.
    fn towers_of(&mut self, config: &RunConfig, device: &Device) {
        let settings = Settings {
            image_pool: config.model.image_pool,
            text_pool: config.model.text_pool,
            image_size: config.model.image_size,
            max_tokens: config.data.max_tokens,
            pretrained: true,
        };
        match config.towers() {
            Towers::Pair { image, text } => {
                let lock = config.model.lock;
                let part = |reference, lock| {
                    let settings = Settings { pretrained: lock != TowerLock::Scratch, ..settings };
                    inspect_model(&in_cache(reference)?, &settings, device)
                };
                if let Some(found) = self.sound(part(image, lock.image)) {
                    (self.image_tower, self.image_processing) = (found.image_tower, found.image_processing);
                }
                if let Some(found) = self.sound(part(text, lock.text)) {
                    (self.text_tower, self.tokenizer) = (found.text_tower, found.tokenizer);
                }
            }
            Towers::Init(init) => {
                let found = in_cache(init).and_then(|dir| match is_model_dir(&dir) {
                    true => inspect_model(&dir, &settings, device),
                    false => inspect(&dir, device),
                });
                if let Some(found) = self.sound(found) {
                    (self.image_tower, self.image_processing) = (found.image_tower, found.image_processing);
                    (self.text_tower, self.tokenizer) = (found.text_tower, found.tokenizer);
                    self.head = found.head;
                }
            }
        }
    }

    /// A part of a run; its error or problems become the run's.
    fn sound(&mut self, part: Result<Inspection, TrainError>) -> Option<Inspection> {
        match part {
            Ok(mut found) => {
                self.problems.append(&mut found.problems);
                Some(found)
            }
            Err(error) => {
                self.problems.push(chain(&error));
                None
            }
        }
    }
}

/// The directory of a tower, if it is on this machine.
fn in_cache(reference: &str) -> Result<PathBuf, TrainError> {
    if Path::new(reference).is_dir() {
        return Ok(PathBuf::from(reference));
    }
    Ok(Hub { offline: true, ..Hub::from_env()? }.resolve(reference, &mut |_| {})?)
}

/// The head with what a checkpoint holds of it; what is locked stays as it was.
fn trained_head(head: HeadReport, checkpoint: &Checkpoint) -> HeadReport {
    let weights = checkpoint.weights();
    let matrix = |name: &str| match weights.get(name)?.shape.as_slice() {
        &[input, dim] => Some([input, dim]),
        _ => None,
    };
    let scalar = |name: &str| weights.get(name)?.values.first().copied();
    HeadReport {
        image_projection: matrix("image_projection.weight").or(head.image_projection),
        text_projection: matrix("text_projection.weight").or(head.text_projection),
        logit_bias: scalar("logit_bias").or(head.logit_bias),
        unused: Vec::new(),
        ..HeadReport::default()
    }
    .with_scale(scalar("logit_scale").or(head.logit_scale))
}

/// The passes over the data at a checkpoint, from its run's `metrics.jsonl`.
fn epoch_of(checkpoint: &Path, progress: &Progress) -> Option<f64> {
    let text = fs::read_to_string(checkpoint.parent()?.parent()?.join("metrics.jsonl")).ok()?;
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["kind"] == "train" && line["step"] == progress.step)
        .find_map(|line| line["epoch"].as_f64())
}
