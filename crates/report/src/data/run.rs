//! The course of a run: its state, its training steps, and its tables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::number::{Figure, nan, number};

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunState {
    /// What the run is doing.
    pub status: Status,
    /// Updates so far.
    pub step: u64,
    /// Updates of the whole run, if known.
    pub total_steps: Option<u64>,
    /// When the run last wrote something, as text: `2026-05-04 13:37 UTC`.
    pub when: Option<String>,
    /// How long it has run, as text: `2 h 14 min`.
    pub duration: Option<String>,
    /// A sentence about the state, such as why the run ended early.
    pub note: Option<String>,
    /// Whether the heads were fitted before the first step, so that the figures of step 0 are those of an aligned
    /// model.
    pub starts_fitted: bool,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// A process holds the lock of the run.
    Running,
    /// No process holds the lock, and steps are missing or not saved.
    Killed,
    /// It was asked to stop before its last step, and saved what it had done.
    Stopped,
    /// A step was not finite, which ended it.
    Diverged,
    /// It has a config and nothing else.
    NotStarted,
    /// The run did what it was started for.
    Finished,
    /// The run fitted the heads in closed form and measured them, which is all that it was started for.
    Fitted,
    /// Not found out.
    #[default]
    Unknown,
}

/// A training step, with the names of a training line in `metrics.jsonl`. A value that is missing is NaN and is left
/// out of the curves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainStep {
    /// Updates so far, this one included.
    pub step: u64,
    /// Loss before the update, in nats.
    #[serde(default = "nan", deserialize_with = "number")]
    pub loss: f64,
    /// Loss of a model that cannot tell any two pairs of the batch apart, in nats.
    #[serde(default = "nan", deserialize_with = "number")]
    pub chance_loss: f64,
    /// Learning rate of parameters without a rate of their own.
    #[serde(default = "nan", deserialize_with = "number")]
    pub learning_rate: f64,
    /// Learning rates of parameter groups that have one of their own, by name.
    #[serde(default)]
    pub learning_rates: BTreeMap<String, f64>,
    /// Factor of the cosine similarities.
    #[serde(default = "nan", deserialize_with = "number")]
    pub logit_scale: f64,
    /// Global L2 norm of the gradients before clipping.
    #[serde(default = "nan", deserialize_with = "number")]
    pub grad_norm: f64,
    /// L2 norm of the gradients of each part, by name.
    #[serde(default)]
    pub grad_norms: BTreeMap<String, f64>,
    /// Spread of the image embeddings: 1 minus the mean cosine of two of them.
    #[serde(default = "nan", deserialize_with = "number")]
    pub image_spread: f64,
    /// Spread of the text embeddings.
    #[serde(default = "nan", deserialize_with = "number")]
    pub text_spread: f64,
    /// Pairs per second.
    #[serde(default = "nan", deserialize_with = "number")]
    pub pairs_per_sec: f64,
    /// Fraction of the step's time spent waiting for the batch, from 0 to 1.
    #[serde(default = "nan", deserialize_with = "number")]
    pub loader_wait: f64,
}

impl TrainStep {
    /// A step without values.
    #[must_use]
    pub fn new(step: u64) -> Self {
        Self {
            step,
            loss: f64::NAN,
            chance_loss: f64::NAN,
            learning_rate: f64::NAN,
            learning_rates: BTreeMap::new(),
            logit_scale: f64::NAN,
            grad_norm: f64::NAN,
            grad_norms: BTreeMap::new(),
            image_spread: f64::NAN,
            text_spread: f64::NAN,
            pairs_per_sec: f64::NAN,
            loader_wait: f64::NAN,
        }
    }
}

/// A headline figure, shown large.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Headline {
    /// The metric's name, such as `acc1`; names that the pages know are written out.
    pub metric: String,
    /// The evaluation that it is of.
    #[serde(default)]
    pub evaluation: String,
    /// The figure.
    pub figure: Figure,
    /// The same figure at step 0.
    #[serde(default)]
    pub baseline: Option<Figure>,
    /// The step at which it was measured.
    #[serde(default)]
    pub step: Option<u64>,
}

/// The checkpoint that the run holds to be the best.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BestCheckpoint {
    /// Its step.
    pub step: u64,
    /// Its path, relative to the run directory.
    pub path: String,
    /// What it is the best by, such as `vendor.acc1`.
    pub metric: String,
    /// The value of the metric.
    pub value: Option<f64>,
}

/// A row of a table of names and values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Entry {
    /// The name.
    pub key: String,
    /// The value, as it is shown.
    pub value: String,
}

/// A part of the model in the parameter table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ParameterGroup {
    /// Its name, such as `image_tower`.
    pub part: String,
    /// Number of tensors.
    pub tensors: u64,
    /// Number of parameters.
    pub parameters: u64,
    /// Parameters among them that are trained: 0 if the part is locked.
    pub trained: u64,
}

/// A warning of the run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Warning {
    /// The step at which it was given, if at one.
    pub step: Option<u64>,
    /// Kind of warning, such as `loss-at-chance`.
    pub name: String,
    /// What was observed, and what to change.
    pub message: String,
}

/// Samples that the run does without, by cause.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BadSamples {
    /// Why they cannot be used.
    pub cause: String,
    /// Number of samples.
    pub count: u64,
    /// One of them: a path or a row.
    pub example: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_line_is_a_step() {
        let line = r#"{"kind":"train","step":3,"epoch":0.3,"loss":3.5,"learning_rate":1e-4,"logit_scale":14.2,
            "grad_norm":null,"grad_norms":{"image_tower":8.1},"num_duplicates":6,"pairs_per_sec":65.1}"#;
        let step: TrainStep = serde_json::from_str(line).unwrap();
        assert_eq!((step.step, step.loss, step.grad_norms["image_tower"]), (3, 3.5, 8.1));
        assert!(step.grad_norm.is_nan() && step.loader_wait.is_nan());
    }
}
