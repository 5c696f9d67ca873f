//! Training matches the PyTorch loop of `scripts/goldens/train.py`, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::support::{Session, as_floats, assert_close, column, goldens, tensors};

/// Relative difference of numbers in the log.
const TOLERANCE: f64 = 1e-4;

/// Difference of final weights, relative to the largest of their tensor, in units of the largest one between single and
/// double precision in PyTorch: `final_error` in the goldens, 3e-7 to 2e-5.
const WEIGHT_TOLERANCE: f64 = 10.0;

/// Relative difference of the final biases of keys. They shift all scores of a query alike, so their gradients are
/// rounding noise, which Adam scales up.
const KEY_BIAS_TOLERANCE: f32 = 2e-2;

const SIGMOID: &str = "train.loss=sigmoid";

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn train_and_compare(name: &str, sets: &[&str]) {
    let expected: Value = serde_json::from_slice(&fs::read(goldens("train/expected.json")).unwrap()).unwrap();
    let expected = &expected["runs"][name];
    let session = Session::new();
    session.write_config("");
    let mut arguments = vec!["train", "--config", "lit.toml"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    session.succeed(&arguments);
    let lines = session.metrics("run", "train");
    assert_close("loss", &column(&lines, "loss"), &numbers(&expected["loss"]), TOLERANCE);
    assert_close("learning rate", &column(&lines, "learning_rate"), &numbers(&expected["learning_rate"]), 1e-9);
    assert_close("logit_scale", &column(&lines, "logit_scale"), &numbers(&expected["logit_scale_exp"]), TOLERANCE);
    assert_close("gradient norm", &column(&lines, "grad_norm"), &numbers(&expected["grad_norm"]), TOLERANCE);

    let weight_tolerance = (WEIGHT_TOLERANCE * expected["final_error"].as_f64().unwrap()) as f32;
    // The weights after the last update, in the layout of transformers, which has no place for `logit_bias`.
    session.succeed(&["export", "--model", "run", "--out", "hf"]);
    let found = tensors(&session.path("hf/model.safetensors"));
    let prefix = format!("{name}/");
    let goldens = tensors(&goldens("train/final.safetensors"));
    let expected: BTreeMap<_, _> =
        goldens.iter().filter_map(|(path, tensor)| Some((path.strip_prefix(&prefix)?, tensor))).collect();
    let with_bias = found.keys().map(String::as_str).chain(sets.contains(&SIGMOID).then_some("logit_bias"));
    assert!(expected.keys().copied().eq(BTreeSet::from_iter(with_bias)), "{:?}", expected.keys());
    for (tensor, (_, shape, golden)) in expected {
        let saved;
        let (_, found_shape, values) = match tensor {
            "logit_bias" => {
                saved = tensors(&session.path("run/checkpoints/step-000012/model.safetensors"));
                &saved[tensor]
            }
            _ => &found[tensor],
        };
        assert_eq!(found_shape.iter().product::<usize>(), shape.iter().product::<usize>(), "{tensor}");
        let tolerance = if tensor.ends_with("key.bias") { KEY_BIAS_TOLERANCE } else { weight_tolerance };
        assert_near(tensor, &as_floats(values), &as_floats(golden), tolerance);
    }
}

/// Every value within `tolerance`, relative to the largest value of the tensor.
#[track_caller]
fn assert_near(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * largest, "{what}[{at}]: found {found}, expected {expected}");
    }
}

#[test]
fn unlocked_towers_match_pytorch() {
    train_and_compare("UU", &[]);
}

#[test]
fn locked_image_tower_matches_pytorch() {
    train_and_compare("LU", &["model.lock=LU"]);
}

#[test]
fn uncached_image_tower_matches_pytorch() {
    train_and_compare("LU", &["model.lock=LU", "cache.enabled=false"]);
}

#[test]
fn locked_towers_match_pytorch() {
    train_and_compare("LL", &["model.lock=LL"]);
}

#[test]
fn duplicate_positives_match_pytorch() {
    train_and_compare("LU_positives", &["model.lock=LU", "train.duplicates=positives"]);
    let data = format!("data.train.csv.path={}", goldens("train/train_repeated.csv").display());
    train_and_compare("LU_positives_repeated", &["model.lock=LU", "train.duplicates=positives", &data]);
}

#[test]
fn sigmoid_loss_matches_pytorch() {
    let scale = format!("model.logit_scale_init={}", std::f64::consts::LN_10);
    train_and_compare("UU_sigmoid", &[SIGMOID, "train.logit_bias_init=-10", &scale]);
}

#[test]
fn locked_tower_never_moves() {
    let session = Session::new();
    session.write_config("");
    let sets = [
        "model.lock=LU",
        "train.epochs=70",
        "train.weight_decay=0.1",
        "data.shuffle=true",
        "checkpoint.every_steps=1000",
    ];
    let mut arguments = vec!["train", "--config", "lit.toml"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    session.succeed(&arguments);
    assert_eq!(session.metrics("run", "train").len(), 210);
    session.succeed(&["export", "--model", "run", "--out", "hf"]);
    let before = tensors(&goldens("train/init/model.safetensors"));
    let after = tensors(&session.path("hf/model.safetensors"));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let (locked, trained): (Vec<_>, Vec<_>) = before.iter().partition(|(name, _)| name.starts_with("vision_model."));
    assert!(locked.len() > 20 && locked.iter().all(|(name, tensor)| after[*name] == **tensor));
    let moved = trained.iter().filter(|(name, tensor)| after[*name] != **tensor).count();
    assert_eq!(moved, trained.len(), "some trainable parameters did not move");
    // The checkpoint holds trainable parameters only.
    let saved = tensors(&session.path("run/checkpoints/step-000210/model.safetensors"));
    assert!(saved.keys().all(|name| !name.starts_with("image_tower.")) && saved.len() == trained.len());
}
