//! Training matches the PyTorch loop of `scripts/goldens/train.py`, step by step.

use std::fs;

use serde_json::Value;

use crate::support::{Session, assert_close, column, floats, goldens, tensors};

/// Relative difference that is allowed.
const TOLERANCE: f64 = 1e-4;

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

    // The weights after the last update, in the layout of transformers.
    session.succeed(&["export", "--model", "run", "--out", "hf"]);
    let mut compared = 0;
    for (tensor, golden) in expected["final"]["tensors"].as_object().unwrap() {
        if tensor == "logit_bias" {
            continue;
        }
        let values = floats(&session.path("hf/model.safetensors"), tensor);
        let sum: f64 = values.iter().map(|value| f64::from(value.abs())).sum();
        assert_close(tensor, &[sum], &[golden["abs_sum"].as_f64().unwrap()], TOLERANCE);
        compared += 1;
    }
    assert!(compared >= 3, "only {compared} tensors were compared");
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
    train_and_compare("UU_sigmoid", &["train.loss=sigmoid", &scale]);
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
