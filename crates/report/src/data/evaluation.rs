//! Evaluations and what is known about the embeddings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::data::number::Figure;
use crate::data::picture::RetrievalExamples;

/// A named evaluation over the course of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// Its name in the config.
    pub name: String,
    /// Its task: `zero-shot`, `retrieval` or another.
    pub task: String,
    /// What its points measured, as a hash: figures of equal hashes can be compared. Empty if unknown.
    pub fingerprint: String,
    /// Its results, by ascending step. Step 0 is the baseline.
    pub points: Vec<EvalPoint>,
    /// Answers by class, at the last or the best step.
    pub classification: Option<Classification>,
    /// Retrieval examples, at the last or the best step.
    pub retrieval: Option<RetrievalExamples>,
}

impl Evaluation {
    /// The result at `step`; without one, the last.
    pub(crate) fn point_at(&self, step: Option<u64>) -> Option<&EvalPoint> {
        match step {
            Some(step) => self.points.iter().find(|point| point.step == step),
            None => self.points.last(),
        }
    }
}

/// The metrics of an evaluation at one step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalPoint {
    /// Updates so far.
    pub step: u64,
    /// Metrics by their names.
    pub metrics: BTreeMap<String, Figure>,
}

impl EvalPoint {
    /// The numbers of `metrics`, each with the interval that stands under its name and `_ci95`. What is neither a
    /// number nor `null` is left out; `null` is NaN. The accuracy among more answers than there are classes has no
    /// value, and is left out.
    #[must_use]
    pub fn from_metrics(step: u64, metrics: &Map<String, Value>) -> Self {
        let classes = metrics.get("num_classes").and_then(Value::as_u64);
        let is_undefined =
            |name: &str| classes.zip(answers_of(name)).is_some_and(|(classes, answers)| classes < answers);
        let figure = |(name, value): (&String, &Value)| {
            if value.is_null() && is_undefined(name) {
                return None;
            }
            let number = if value.is_null() { Some(f64::NAN) } else { value.as_f64() }?;
            let ends = metrics.get(&format!("{name}_ci95")).and_then(Value::as_array);
            let interval = ends.and_then(|ends| match ends.as_slice() {
                [low, high] => Some([low.as_f64()?, high.as_f64()?]),
                _ => None,
            });
            Some((name.clone(), Figure { value: number, interval }))
        };
        Self { step, metrics: metrics.iter().filter_map(figure).collect() }
    }
}

/// How many answers of an image may be right for the accuracy of this name: 5 for `acc5` and `acc5_embeds`.
fn answers_of(name: &str) -> Option<u64> {
    name.strip_prefix("acc")?.split('_').next()?.parse().ok()
}

/// Answers of a classification.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Classification {
    /// The step at which they were given.
    pub step: Option<u64>,
    /// The classes in their order.
    pub classes: Vec<ClassResult>,
    /// Wrong answers by class, in any order.
    pub confusions: Vec<Confusion>,
    /// Bins over the confidence of the first answer.
    pub calibration: Vec<CalibrationBin>,
    /// The expected calibration error, from 0 to 1.
    pub ece: Option<f64>,
}

/// The result of one class.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassResult {
    /// Its name.
    pub name: String,
    /// Images of the class.
    pub images: u64,
    /// Those among them that have it as their first answer.
    pub hits: u64,
    /// Images that have it as their first answer, rightly or not.
    pub predicted: u64,
    /// Average precision from 0 to 1, with several labels an image.
    pub average_precision: Option<f64>,
}

impl ClassResult {
    /// The fraction of its images that have it as their first answer, if it has images.
    pub(crate) fn recall(&self) -> Option<f64> {
        (self.images > 0).then(|| self.hits as f64 / self.images as f64)
    }

    /// The fraction of right answers among those that name it, if there are any.
    pub(crate) fn precision(&self) -> Option<f64> {
        (self.predicted > 0).then(|| self.hits as f64 / self.predicted as f64)
    }
}

/// Images of one class that were taken for another. Classes are given by their place in
/// [`Classification::classes`]; what names no class is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Confusion {
    /// Their class.
    pub label: usize,
    /// The class that was answered.
    pub predicted: usize,
    /// Number of images.
    pub count: u64,
}

/// Answers of similar confidence.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CalibrationBin {
    /// Number of answers.
    pub count: u64,
    /// Their mean confidence, from 0 to 1.
    pub confidence: f64,
    /// The fraction of right answers, from 0 to 1.
    pub accuracy: f64,
}

/// Image and text embeddings in two dimensions, as [`crate::pca_2d`] makes them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbeddingMap {
    /// Image embeddings; the page shows up to 2,000.
    pub images: Vec<MapPoint>,
    /// Text embeddings; the page shows up to 2,000.
    pub texts: Vec<MapPoint>,
    /// Matching pairs: the place of an image and of a text. They are joined by lines.
    pub pairs: Vec<[usize; 2]>,
    /// The fraction of the variance along the two axes, from 0 to 1.
    pub explained: Option<[f64; 2]>,
    /// Which embeddings these are, as a sentence.
    pub note: Option<String>,
}

/// A point of the map.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MapPoint {
    /// First coordinate.
    pub x: f64,
    /// Second coordinate.
    pub y: f64,
    /// Caption, class or path, shown as a tooltip.
    pub title: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_take_their_intervals() {
        let metrics = serde_json::json!({"acc1": 0.5, "acc1_ci95": [0.4, 0.6], "acc5": null, "task": "zero-shot"});
        let point = EvalPoint::from_metrics(7, metrics.as_object().unwrap());
        assert_eq!(point.metrics.keys().collect::<Vec<_>>(), ["acc1", "acc5"]);
        assert_eq!(point.metrics["acc1"], Figure::with_interval(0.5, 0.4, 0.6));
        assert!(point.metrics["acc5"].value.is_nan());
    }

    #[test]
    fn accuracy_without_enough_classes_is_left_out() {
        let names = |classes: u64| {
            let mut metrics = serde_json::json!({"acc1": null, "acc5": null, "acc5_embeds": null, "ece": null});
            metrics["num_classes"] = classes.into();
            EvalPoint::from_metrics(7, metrics.as_object().unwrap()).metrics.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(names(4), ["acc1", "ece", "num_classes"]);
        assert_eq!(names(5).len(), 5, "what is not a number shows as such");
    }

    #[test]
    fn empty_class_has_no_recall() {
        let class = ClassResult { images: 0, predicted: 0, ..ClassResult::default() };
        assert_eq!((class.recall(), class.precision()), (None, None));
    }
}
