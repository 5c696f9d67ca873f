//! Metrics against CLIP_benchmark and scikit-learn: `scripts/metric_goldens.py` wrote the fixture.

use std::path::Path;

use serde_json::{Map, Value};

use crate::device::Compute;
use crate::eval::metrics::details::DetailEmbeds;
use crate::eval::metrics::multi_label::MultiLabel;
use crate::eval::metrics::retrieval::Retrieved;
use crate::eval::metrics::scores::{Scores, TILE_SCORES, normalize_rows};
use crate::eval::metrics::top::Top;
use crate::eval::metrics::zero_shot::{ANSWERS, Classified, accuracy, classifier};
use crate::eval::probes::knn;
use crate::eval::probes::ridge::{Labelled, RidgeClassifier};
use crate::stop_flag::StopFlag;

fn cases(task: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/metrics/metrics.json");
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    fixture[task].as_array().unwrap().clone()
}

fn unit(case: &Value, name: &str) -> Vec<f32> {
    let values = case[name].as_array().unwrap().iter();
    let mut values: Vec<f32> = values.map(|value| value.as_f64().unwrap() as f32).collect();
    normalize_rows(&mut values, case["dim"].as_u64().unwrap() as usize);
    values
}

fn numbers(values: &Value) -> Vec<usize> {
    values.as_array().unwrap().iter().map(|value| value.as_u64().unwrap() as usize).collect()
}

/// Runs `check` with the scores of `rows` and `columns`, in tiles of several sizes.
fn with_scores(case: &Value, rows: &[f32], columns: &[f32], check: impl Fn(&Scores<'_>)) {
    let compute = Compute::select("cpu", None).unwrap();
    let stop = StopFlag::default();
    let dim = case["dim"].as_u64().unwrap() as usize;
    for tile in [7, 200, TILE_SCORES] {
        check(&Scores { rows, columns, dim, device: &compute.device, stop: &stop, tile });
    }
}

fn assert_equal(found: &Map<String, Value>, case: &Value) {
    assert_metrics(found, &case["metrics"]);
}

fn assert_metrics(found: &Map<String, Value>, expected: &Value) {
    for (name, expected) in expected.as_object().unwrap() {
        match (found[name].as_f64(), expected.as_f64()) {
            (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-6, "{name}: {found}, {expected}"),
            (found, expected) => assert_eq!((found, expected), (None, None), "{name}"),
        }
    }
}

#[test]
fn classification_equals_clip_benchmark() {
    for case in cases("classification") {
        let templates = case["templates"].as_u64().unwrap() as usize;
        let (images, labels) = (unit(&case, "images"), numbers(&case["labels"]));
        let (prompts, dim) = (unit(&case, "prompts"), case["dim"].as_u64().unwrap() as usize);
        let num_prompts = vec![templates; prompts.len() / dim / templates];
        let weights = classifier(&prompts, &num_prompts, dim);
        with_scores(&case, &images, &weights, |scores| {
            let classes: Vec<String> = (0..scores.num_columns()).map(|class| class.to_string()).collect();
            let numbers: Vec<usize> = (0..labels.len()).collect();
            let ranks = scores.ranks(|image| std::slice::from_ref(&labels[image])).unwrap();
            let ranks: Vec<usize> = ranks.into_iter().map(Option::unwrap).collect();
            let top = Top::of(scores, ANSWERS, case["scale"].as_f64().unwrap()).unwrap();
            let found = Classified { classes: &classes, images: &numbers, labels: &labels, ranks: &ranks, top: &top };
            assert_equal(&found.metrics(), &case);
        });
    }
}

#[test]
fn average_precision_equals_scikit_learn() {
    for case in cases("multi_label") {
        let labels: Vec<Vec<usize>> = case["labels"].as_array().unwrap().iter().map(numbers).collect();
        let labels: Vec<&[usize]> = labels.iter().map(Vec::as_slice).collect();
        with_scores(&case, &unit(&case, "images"), &unit(&case, "prompts"), |scores| {
            let classes: Vec<String> = (0..scores.num_columns()).map(|class| class.to_string()).collect();
            let images: Vec<usize> = (0..labels.len()).collect();
            let top = Top::of(scores, ANSWERS, 20.0).unwrap();
            let found = MultiLabel::of(scores, &classes, (&images, &labels), &top).unwrap();
            assert_equal(&found.metrics(), &case);
            let details = found.details(DetailEmbeds::default(), DetailEmbeds::default());
            let expected = case["average_precision"].as_array().unwrap();
            for (class, expected) in details.classes.iter().zip(expected) {
                let found = class.average_precision.unwrap();
                assert!((found - expected.as_f64().unwrap()).abs() < 1e-6, "{found}, {expected}");
            }
        });
    }
}

#[test]
fn retrieval_equals_clip_benchmark() {
    for case in cases("retrieval") {
        with_scores(&case, &unit(&case, "texts"), &unit(&case, "images"), |scores| {
            let image_of_text = numbers(&case["image_of_text"]);
            let distinct: Vec<u64> = (0..image_of_text.len() as u64).collect();
            let found = Retrieved::of(scores, image_of_text, &distinct).unwrap();
            assert_equal(&found.metrics(), &case);
        });
    }
}

fn floats(values: &Value) -> Vec<f32> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

#[test]
fn linear_probe_equals_scikit_learn() {
    for case in cases("probe") {
        let dim = case["dim"].as_u64().unwrap() as usize;
        let (train, test) = (floats(&case["train"]), floats(&case["test"]));
        let (train_labels, test_labels) = (numbers(&case["train_labels"]), numbers(&case["test_labels"]));
        let classes = case["classes"].as_u64().unwrap() as usize;
        let train = Labelled { features: &train, labels: &train_labels, dim };
        let classifier = RidgeClassifier::fit(train, classes, case["l2"].as_f64().unwrap()).unwrap();
        let scores = classifier.scores(&test).values;
        assert_eq!(scores.len(), case["scores"].as_array().unwrap().len());
        for (found, expected) in scores.iter().zip(case["scores"].as_array().unwrap()) {
            assert!((found - expected.as_f64().unwrap()).abs() < 1e-6, "{found}, {expected}");
        }
        let ranks = classifier.ranks(Labelled { features: &test, labels: &test_labels, dim });
        assert_metrics(&accuracy(&ranks, &test_labels, classes, ""), &case["linear"]);
    }
}

#[test]
fn knn_equals_scikit_learn() {
    for case in cases("probe") {
        let (train_labels, test_labels) = (numbers(&case["train_labels"]), numbers(&case["test_labels"]));
        let [classes, neighbors] = ["classes", "neighbors"].map(|name| case[name].as_u64().unwrap() as usize);
        with_scores(&case, &unit(&case, "test"), &unit(&case, "train"), |scores| {
            let ranks = knn::ranks(scores, neighbors, &train_labels, &test_labels, classes).unwrap();
            assert_metrics(&accuracy(&ranks, &test_labels, classes, ""), &case["knn"]);
        });
    }
}
