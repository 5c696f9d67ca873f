//! Zero-shot classification: class names in prompt templates become a linear classifier (CLIP, arXiv:2103.00020,
//! sec. 3.1.4).
//!
//! Metrics have the names and definitions of CLIP_benchmark (`metrics/zeroshot_classification.py`):
//!
//! - `acc1`, `acc5`: fraction of images whose class is among the 1 or 5 highest scores; `acc5` is null with fewer than
//!   five classes.
//! - `mean_per_class_recall`: mean over the classes of the fraction of their images that are classified correctly.
//!
//! `num_classes` is a count.

use dualenc_data::CLASS_PLACEHOLDER;
use serde_json::{Map, Value, json};

use crate::eval::scores::normalize_rows;

/// Every class name in every template, class by class.
pub(crate) fn prompts(classes: &[String], templates: &[String]) -> Vec<String> {
    let fill = |class: &str, template: &String| template.replace(CLASS_PLACEHOLDER, class);
    classes.iter().flat_map(|class| templates.iter().map(move |template| fill(class, template))).collect()
}

/// The classifier, shape `[classes, dim]`, flat: the mean of each class's prompt embeddings, normalised again.
///
/// `prompt_embeds`: normalised, shape `[classes * templates, dim]`, flat.
pub(crate) fn classifier(prompt_embeds: &[f32], num_templates: usize, dim: usize) -> Vec<f32> {
    let mut weights: Vec<f32> = prompt_embeds
        .chunks_exact(num_templates * dim)
        .flat_map(|prompts| {
            (0..dim).map(move |column| prompts.iter().skip(column).step_by(dim).sum::<f32>() / num_templates as f32)
        })
        .collect();
    normalize_rows(&mut weights, dim);
    weights
}

/// Metrics of a classification. `ranks`: of each image's class among all classes. `labels`: the class of each image.
pub(crate) fn metrics(ranks: &[usize], labels: &[usize], num_classes: usize) -> Map<String, Value> {
    let (mut top1, mut top5) = (0, 0);
    let mut per_class = vec![ClassHits::default(); num_classes];
    for (&rank, &label) in ranks.iter().zip(labels) {
        top1 += usize::from(rank < 1);
        top5 += usize::from(rank < 5);
        per_class[label].hits += usize::from(rank < 1);
        per_class[label].images += 1;
    }
    let fraction = |hits: usize| hits as f64 / labels.len().max(1) as f64;
    let classes_with_images = per_class.iter().filter(|class| class.images > 0);
    let recalls: Vec<f64> = classes_with_images.map(|class| class.hits as f64 / class.images as f64).collect();
    let mean_recall = recalls.iter().sum::<f64>() / recalls.len().max(1) as f64;
    let acc5 = if num_classes >= 5 { json!(fraction(top5)) } else { Value::Null };
    let mut metrics = Map::new();
    metrics.insert("num_classes".to_owned(), json!(num_classes));
    metrics.insert("acc1".to_owned(), json!(fraction(top1)));
    metrics.insert("acc5".to_owned(), acc5);
    metrics.insert("mean_per_class_recall".to_owned(), json!(mean_recall));
    metrics
}

#[derive(Clone, Default)]
struct ClassHits {
    hits: usize,
    images: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::scores::NO_PLACE;

    #[test]
    fn classifier_averages_templates() {
        let embeds = [1.0, 0.0, 0.0, 1.0, 0.6, 0.8, 0.6, 0.8];
        let weights = classifier(&embeds, 2, 2);
        let half = std::f32::consts::FRAC_1_SQRT_2;
        let expected = [half, half, 0.6, 0.8];
        assert!(weights.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{weights:?}");
        let classes = ["red fox".to_owned(), "owl".to_owned()];
        let templates = ["{c}".to_owned(), "a photo of a {c}.".to_owned()];
        assert_eq!(prompts(&classes, &templates), ["red fox", "a photo of a red fox.", "owl", "a photo of a owl."]);
    }

    #[test]
    fn metrics_of_a_small_example() {
        // Class 0 has three images, class 1 one: accuracy 3/4, mean recall (2/3 + 1) / 2.
        let metrics = metrics(&[0, 0, 1, 0], &[0, 0, 0, 1], 2);
        assert_eq!(metrics["acc1"], json!(0.75));
        assert_eq!(metrics["mean_per_class_recall"], json!((2.0 / 3.0 + 1.0) / 2.0));
        assert_eq!((&metrics["acc5"], &metrics["num_classes"]), (&Value::Null, &json!(2)));
    }

    #[test]
    fn score_without_number_is_no_hit() {
        let metrics = metrics(&[NO_PLACE, 0], &[0, 1], 5);
        assert_eq!((&metrics["acc1"], &metrics["acc5"]), (&json!(0.5), &json!(0.5)));
    }
}
