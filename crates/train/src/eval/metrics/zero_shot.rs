//! Zero-shot classification: class names in prompt templates become a linear classifier (CLIP, arXiv:2103.00020,
//! sec. 3.1.4).
//!
//! Metrics have the names and definitions of CLIP_benchmark (`metrics/zeroshot_classification.py`):
//!
//! - `acc1`, `acc5`: fraction of images with their class among the 1 or 5 highest scores; `acc5` is null with fewer
//!   than five classes.
//! - `mean_per_class_recall`: mean over the classes with images of the fraction of their images that are classified
//!   correctly.
//!
//! and beside them:
//!
//! - `ece`: the expected calibration error (see `calibration`) of the softmax over the classes, at the model's
//!   temperature.
//! - `NAME_ci95`: a 95 % interval of the metric NAME but `ece` (see `bootstrap`), over the images.
//!
//! `num_classes` is a count.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use dualenc_data::CLASS_PLACEHOLDER;
use serde_json::{Map, Value, json};

use crate::eval::metrics::bootstrap;
use crate::eval::metrics::calibration::{self, CalibrationBin};
use crate::eval::metrics::details::{ClassDetails, ClassResult, Confusion, DetailEmbeds, Prediction};
use crate::eval::metrics::scores::normalize_rows;
use crate::eval::metrics::top::Top;

/// Every name in every template, name by name.
pub(crate) fn prompts(names: &[String], templates: &[String]) -> Vec<String> {
    let fill = |name: &String, template: &String| template.replace(CLASS_PLACEHOLDER, name);
    names.iter().flat_map(|name| templates.iter().map(move |template| fill(name, template))).collect()
}

/// The classifier, shape `[classes, dim]`, flat: the mean of each class's prompt embeddings, normalised again.
///
/// `prompt_embeds`: normalised, shape `[prompts, dim]`, flat, class by class. `num_prompts`: of each class.
pub(crate) fn classifier(prompt_embeds: &[f32], num_prompts: &[usize], dim: usize) -> Vec<f32> {
    let mut weights = Vec::with_capacity(num_prompts.len() * dim);
    let mut rest = prompt_embeds;
    for &count in num_prompts {
        let (prompts, after) = rest.split_at(count * dim);
        rest = after;
        weights.extend((0..dim).map(|column| prompts.iter().skip(column).step_by(dim).sum::<f32>() / count as f32));
    }
    normalize_rows(&mut weights, dim);
    weights
}

/// Images with one class each, and what a model answers.
pub(crate) struct Classified<'a> {
    pub classes: &'a [String],
    /// The numbers of the images.
    pub images: &'a [usize],
    /// The class of each image.
    pub labels: &'a [usize],
    /// Of each image, the number of classes before its own.
    pub ranks: &'a [usize],
    /// Of each image, the best classes: at least [`ANSWERS`], if there are as many.
    pub top: &'a Top,
}

/// Answers to an image.
pub(crate) const ANSWERS: usize = 5;

impl Classified<'_> {
    /// Metrics by name.
    pub fn metrics(&self) -> Map<String, Value> {
        let mut metrics = Map::new();
        metrics.insert("num_classes".to_owned(), json!(self.classes.len()));
        metrics.extend(accuracy(self.ranks, self.labels, self.classes.len(), ""));
        metrics.insert("ece".to_owned(), json!(calibration::expected_error(&self.calibration())));
        metrics
    }

    fn calibration(&self) -> Vec<CalibrationBin> {
        let answer = |image: usize| {
            let first = self.top.row(image).first();
            (first.map_or(0.0, |first| self.top.probability(image, first.score)), self.ranks[image] < 1)
        };
        calibration::bins((0..self.labels.len()).map(answer))
    }

    /// The answers, image by image and class by class.
    pub fn details(&self, image_embeds: DetailEmbeds, class_embeds: DetailEmbeds) -> ClassDetails {
        let new = |name: &String| ClassResult { name: name.clone(), ..ClassResult::default() };
        let mut classes: Vec<ClassResult> = self.classes.iter().map(new).collect();
        let mut wrong = BTreeMap::new();
        let mut predictions = Vec::with_capacity(self.images.len());
        for (row, (&image, &label)) in self.images.iter().zip(self.labels).enumerate() {
            let answers = answers(self.top, row);
            classes[label].images += 1;
            classes[label].hits += usize::from(self.ranks[row] < 1);
            if let Some(&(predicted, _)) = answers.first() {
                classes[predicted].predicted += 1;
                if predicted != label {
                    *wrong.entry((label, predicted)).or_insert(0) += 1;
                }
            }
            predictions.push(Prediction { image, labels: vec![label], answers });
        }
        let confusion = |((label, predicted), count)| Confusion { label, predicted, count };
        let mut confusions: Vec<Confusion> = wrong.into_iter().map(confusion).collect();
        confusions.sort_by_key(|confusion| Reverse(confusion.count));
        let calibration = self.calibration();
        ClassDetails { classes, confusions, calibration, predictions, image_embeds, class_embeds }
    }
}

/// `acc1`, `acc5` and `mean_per_class_recall` with their intervals, and `suffix` after each name. `ranks`: of each
/// image, the number of classes before its own.
pub(crate) fn accuracy(ranks: &[usize], labels: &[usize], num_classes: usize, suffix: &str) -> Map<String, Value> {
    let all: Vec<usize> = (0..labels.len()).collect();
    let mut sizes = vec![0; num_classes];
    labels.iter().for_each(|&label| sizes[label] += 1);
    let of = |images: &[usize]| accuracy_of(images, ranks, labels, &sizes);
    let (values, ends) = (of(&all), bootstrap::intervals(labels.len(), of));
    let num_images = labels.len() as f64;
    let units = [num_images, num_images, effective_images(&sizes)];
    let names = ["acc1", "acc5", "mean_per_class_recall"];
    let mut metrics = Map::new();
    for ((name, value), (ends, units)) in names.into_iter().zip(values).zip(ends.into_iter().zip(units)) {
        let full_name = format!("{name}{suffix}");
        if name == "acc5" && num_classes < 5 {
            metrics.insert(full_name, Value::Null);
            continue;
        }
        metrics.insert(full_name.clone(), json!(value));
        bootstrap::insert(&mut metrics, &full_name, bootstrap::of_fraction(value, ends, units));
    }
    metrics
}

/// How many images of one class say as much as images that are weighted by 1 / the size of their class: the effective
/// sample size (Kish, Survey Sampling, 1965, sec. 11.7).
fn effective_images(sizes: &[usize]) -> f64 {
    let sizes: Vec<f64> = sizes.iter().filter(|&&size| size > 0).map(|&size| size as f64).collect();
    (sizes.len() as f64).powi(2) / sizes.iter().map(|size| 1.0 / size).sum::<f64>()
}

/// `acc1`, `acc5` and `mean_per_class_recall` of some images, each of which may appear several times. `sizes`: of the
/// classes.
///
/// In the mean recall, an image has the weight 1 / the size of its class, however often the class was drawn. With every
/// image once, this is the mean over the classes. The mean over the classes that were drawn would vary too little. In
/// simulations with a recall of 0.67 in 104, 104, 40 and 20 classes of 1, 2, 5 and 50 images, its 95 % interval held
/// the true value in 84, 91, 95 and 95 % of the samples, and that of weighted images in 94, 94, 95 and 94 %; with
/// recalls that differ between classes (beta distribution, deviation 0.27), in 93 to 96 % and 97 to 99 %.
fn accuracy_of(images: &[usize], ranks: &[usize], labels: &[usize], sizes: &[usize]) -> [f64; 3] {
    let (mut top1, mut top5) = (0, 0);
    let mut per_class = vec![(0_usize, 0_usize); sizes.len()];
    for &image in images {
        let hit = usize::from(ranks[image] < 1);
        top1 += hit;
        top5 += usize::from(ranks[image] < 5);
        let class = &mut per_class[labels[image]];
        *class = (class.0 + hit, class.1 + 1);
    }
    let fraction = |hits: usize| hits as f64 / images.len().max(1) as f64;
    let (mut recalls, mut drawn) = (0.0, 0.0);
    for (&(hits, images), &size) in per_class.iter().zip(sizes).filter(|((_, images), _)| *images > 0) {
        let share = images as f64 / size as f64;
        recalls += share * (hits as f64 / images as f64);
        drawn += share;
    }
    [fraction(top1), fraction(top5), if drawn > 0.0 { recalls / drawn } else { 0.0 }]
}

/// The best classes of a row with their probabilities.
pub(crate) fn answers(top: &Top, row: usize) -> Vec<(usize, f64)> {
    let answers = top.row(row).iter().take(ANSWERS);
    answers.map(|answer| (answer.column, top.probability(row, answer.score))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Compute;
    use crate::eval::metrics::scores::{NO_PLACE, Scores};
    use crate::stop_flag::StopFlag;

    #[test]
    fn classifier_averages_templates() {
        let embeds = [1.0, 0.0, 0.0, 1.0, 0.6, 0.8, 0.6, 0.8];
        let weights = classifier(&embeds, &[2, 2], 2);
        let half = std::f32::consts::FRAC_1_SQRT_2;
        let expected = [half, half, 0.6, 0.8];
        assert!(weights.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{weights:?}");
        assert_eq!(classifier(&embeds, &[1, 3], 2)[..2], [1.0, 0.0]);
    }

    /// Metrics of images with the labels and the ranks of their classes; class 0 has every first answer.
    fn metrics(ranks: &[usize], labels: &[usize], num_classes: usize) -> Map<String, Value> {
        let classes: Vec<String> = (0..num_classes).map(|class| class.to_string()).collect();
        let images: Vec<usize> = (0..labels.len()).collect();
        let compute = Compute::select("cpu", None).unwrap();
        let (rows, columns) = (vec![1.0; labels.len()], vec![1.0; num_classes]);
        let stop = StopFlag::default();
        let scores =
            Scores { rows: &rows, columns: &columns, dim: 1, device: &compute.device, stop: &stop, tile: 1000 };
        let top = Top::of(&scores, ANSWERS, 1.0).unwrap();
        Classified { classes: &classes, images: &images, labels, ranks, top: &top }.metrics()
    }

    #[test]
    fn metrics_of_a_small_example() {
        // Class 0 has three images, class 1 one: accuracy 3/4, mean recall (2/3 + 1) / 2.
        let metrics = metrics(&[0, 0, 1, 0], &[0, 0, 0, 1], 2);
        // Every answer has the probability 1/2; 3 of 4 are right.
        assert!((metrics["ece"].as_f64().unwrap() - 0.25).abs() < 1e-12);
        let ends = &metrics["acc1_ci95"];
        assert!(ends[0].as_f64().unwrap() < 0.75 && ends[1].as_f64().unwrap() > 0.75, "{ends}");
        assert_eq!(metrics.get("acc5_ci95"), None);
        assert_eq!(metrics["acc1"], json!(0.75));
        assert_eq!(metrics["mean_per_class_recall"], json!((2.0 / 3.0 + 1.0) / 2.0));
        assert_eq!((&metrics["acc5"], &metrics["num_classes"]), (&Value::Null, &json!(2)));
    }

    #[test]
    fn rare_classes_widen_the_interval() {
        // One image a class: the mean recall is the accuracy, and so is its interval.
        let ranks: Vec<usize> = (0..60).map(|image| usize::from(image % 3 == 0)).collect();
        let labels: Vec<usize> = (0..60).collect();
        let metrics = accuracy(&ranks, &labels, 60, "");
        let ends = |name: &str| [0, 1].map(|end| metrics[&format!("{name}_ci95")][end].as_f64().unwrap());
        let (recall, acc1) = (ends("mean_per_class_recall"), ends("acc1"));
        assert!(recall.iter().zip(acc1).all(|(one, other)| (one - other).abs() < 1e-9), "{recall:?}, {acc1:?}");
        assert!(acc1[1] - acc1[0] > 0.2, "{acc1:?}");
    }

    #[test]
    fn all_hits_have_an_interval() {
        // Class 0 has one image, class 1 nine: as 2^2 / (1 + 1/9) = 3.6 images of one class.
        let metrics = accuracy(&[0; 10], &[0, 1, 1, 1, 1, 1, 1, 1, 1, 1], 2, "");
        let low = |name: &str| metrics[&format!("{name}_ci95")][0].as_f64().unwrap();
        let z2 = 3.841_459;
        assert!((low("acc1") - 10.0 / (10.0 + z2)).abs() < 1e-6, "{metrics:?}");
        assert!((low("mean_per_class_recall") - 3.6 / (3.6 + z2)).abs() < 1e-6, "{metrics:?}");
    }

    #[test]
    fn score_without_number_is_no_hit() {
        let metrics = metrics(&[NO_PLACE, 0], &[0, 1], 5);
        assert_eq!((&metrics["acc1"], &metrics["acc5"]), (&json!(0.5), &json!(0.5)));
    }

    #[test]
    fn details_count_every_answer() {
        let classes = ["red".to_owned(), "blue".to_owned(), "grey".to_owned()];
        let compute = Compute::select("cpu", None).unwrap();
        let stop = StopFlag::default();
        let columns = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]].concat();
        let rows = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.8, 0.2]].concat();
        let scores = Scores { rows: &rows, columns: &columns, dim: 2, device: &compute.device, stop: &stop, tile: 4 };
        let labels = [0, 0, 2, 0];
        let ranks = scores.ranks(|row| std::slice::from_ref(&labels[row])).unwrap();
        let ranks: Vec<usize> = ranks.into_iter().flatten().collect();
        let top = Top::of(&scores, ANSWERS, 10.0).unwrap();
        let found = Classified { classes: &classes, images: &[4, 5, 7, 9], labels: &labels, ranks: &ranks, top: &top };
        let details = found.details(DetailEmbeds::default(), DetailEmbeds::default());
        let counts = |class: &ClassResult| (class.images, class.hits, class.predicted);
        assert_eq!(details.classes.iter().map(counts).collect::<Vec<_>>(), [(3, 2, 2), (0, 0, 2), (1, 0, 0)]);
        let confusions: Vec<_> = details.confusions.iter().map(|it| (it.label, it.predicted, it.count)).collect();
        assert_eq!(confusions, [(0, 1, 1), (2, 1, 1)]);
        let first = &details.predictions[0];
        assert_eq!((first.image, &first.labels, first.answers.len()), (4, &vec![0], 3));
        let sum: f64 = first.answers.iter().map(|(_, probability)| probability).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        assert_eq!(details.calibration.iter().map(|bin| bin.count).sum::<usize>(), 4);
    }
}
