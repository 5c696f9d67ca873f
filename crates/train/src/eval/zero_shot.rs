//! Zero-shot classification: class names through prompt templates become a classifier (CLIP, arXiv:2103.00020,
//! sec. 3.1.4); figures as CLIP_benchmark names them.

use serde_json::{Map, Value, json};

/// Rows of `embeds` `[rows, dim]`, flat, divided by their L2 norms.
pub fn normalize_rows(embeds: &mut [f32], dim: usize) {
    for row in embeds.chunks_exact_mut(dim.max(1)) {
        let norm = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt().max(1e-12);
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    }
}

/// Every class name in every template, class by class; `{c}` stands for the name.
pub fn prompts(classes: &[String], templates: &[String]) -> Vec<String> {
    classes.iter().flat_map(|class| templates.iter().map(move |template| template.replace("{c}", class))).collect()
}

/// The classifier `[classes, dim]`: the mean of each class's normalised prompt embeddings, normalised again.
///
/// `prompt_embeds` `[classes * templates, dim]` are normalised.
pub fn classifier(prompt_embeds: &[f32], num_templates: usize, dim: usize) -> Vec<f32> {
    let mut weights: Vec<f32> = prompt_embeds
        .chunks_exact(num_templates * dim)
        .flat_map(|prompts| {
            (0..dim).map(move |column| prompts.iter().skip(column).step_by(dim).sum::<f32>() / num_templates as f32)
        })
        .collect();
    normalize_rows(&mut weights, dim);
    weights
}

/// Figures of a classification, from scores `[images, classes]` flat and the true class of each image.
pub fn figures(scores: &[f32], labels: &[usize], num_classes: usize) -> Map<String, Value> {
    let mut hits = [0usize; 2];
    let mut recalled = vec![(0usize, 0usize); num_classes];
    for (row, &label) in scores.chunks_exact(num_classes.max(1)).zip(labels) {
        let rank = rank_of(row, label);
        hits[0] += usize::from(rank < 1);
        hits[1] += usize::from(rank < 5);
        recalled[label].0 += usize::from(rank < 1);
        recalled[label].1 += 1;
    }
    let share = |hits: usize| hits as f64 / labels.len().max(1) as f64;
    let recalls: Vec<f64> =
        recalled.iter().filter(|(_, all)| *all > 0).map(|(hits, all)| *hits as f64 / *all as f64).collect();
    let mut figures = Map::new();
    figures.insert("num_images".to_owned(), json!(labels.len()));
    figures.insert("num_classes".to_owned(), json!(num_classes));
    figures.insert("acc1".to_owned(), json!(share(hits[0])));
    // As CLIP_benchmark: not a number where there are fewer than five classes; JSON's null.
    figures.insert("acc5".to_owned(), if num_classes >= 5 { json!(share(hits[1])) } else { Value::Null });
    let mean_recall = recalls.iter().sum::<f64>() / recalls.len().max(1) as f64;
    figures.insert("mean_per_class_recall".to_owned(), json!(mean_recall));
    figures
}

/// How many entries come before `index` when sorted from the largest; among equals the first comes first.
pub(crate) fn rank_of(scores: &[f32], index: usize) -> usize {
    let own = scores[index];
    let before = |(other, &score): (usize, &f32)| score > own || (score == own && other < index);
    scores.iter().enumerate().filter(|&entry| before(entry)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classifier_is_the_renormalised_mean_of_the_templates() {
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
    fn figures_count_hits_and_average_recall_over_classes() {
        // Class 0 has three images, class 1 one: accuracy 3/4, mean recall (2/3 + 1) / 2.
        let scores = [0.9, 0.1, 0.8, 0.2, 0.3, 0.7, 0.4, 0.6];
        let figures = figures(&scores, &[0, 0, 0, 1], 2);
        assert_eq!(figures["acc1"], json!(0.75));
        assert_eq!(figures["mean_per_class_recall"], json!((2.0 / 3.0 + 1.0) / 2.0));
        assert_eq!((&figures["acc5"], &figures["num_images"]), (&Value::Null, &json!(4)));
    }
}
