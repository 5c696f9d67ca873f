//! Hostile configs: an error or a model, never a panic, and no memory beyond what the weights need.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use serde_json::{Value, json};

use crate::dual_encoder::lock::TowerLock;
use crate::error::ModelError;
use crate::pretrained::build::{
    BuildOptions, TowerOptions, build_from_dual_encoder, image_tower_from, text_tower_from,
};
use crate::weights::tests::{draw, mutate, setting};

/// What replaces a value of a config.
fn replacement(number: usize) -> Value {
    let values = [
        json!(0),
        json!(1),
        json!(3),
        json!(-1),
        json!(1000),
        json!(1 << 24),
        json!(1u64 << 31),
        json!(u64::MAX),
        json!(0.5),
        json!(1e300),
        json!(null),
        json!(true),
        json!("none"),
        json!([]),
        json!([0, 0]),
        json!([8, 8, 8]),
        json!({}),
    ];
    values[number % values.len()].clone()
}

/// Replaces the value at position `at` among all values of `json`, counted down to 0.
fn replace(json: &mut Value, at: &mut usize, new: &Value) {
    if *at == 0 {
        *json = new.clone();
    }
    *at = at.wrapping_sub(1);
    match json {
        Value::Array(values) => values.iter_mut().for_each(|value| replace(value, at, new)),
        Value::Object(values) => values.values_mut().for_each(|value| replace(value, at, new)),
        _ => {}
    }
}

/// A config with some of its values replaced, or with some of its bytes changed.
fn mutated(original: &[u8], seed: u64) -> Vec<u8> {
    if seed.is_multiple_of(4) {
        return mutate(original, seed);
    }
    let mut config: Value = serde_json::from_slice(original).unwrap();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for _ in 0..=draw(&mut state, 2) {
        let mut at = 1 + draw(&mut state, 40);
        replace(&mut config, &mut at, &replacement(draw(&mut state, 1000)));
    }
    config.to_string().into_bytes()
}

fn load(dir: &Path) -> [Result<(), ModelError>; 3] {
    let (device, tower) = (Device::flex(), TowerOptions::default());
    [
        image_tower_from(dir, TowerLock::Locked, tower, &device).map(drop),
        text_tower_from(dir, TowerLock::Unlocked, tower, &device).map(drop),
        build_from_dual_encoder(dir, &BuildOptions::evaluation(), &device).map(drop),
    ]
}

#[test]
fn mutated_configs_never_panic() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens");
    let (first, count) = (setting("DUALENC_SEED", 0), 60 * setting("DUALENC_SOAK", 1));
    for name in ["train/init", "train/vit", "train/bert", "whole/clip", "whole/siglip", "image_families/swin"] {
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(goldens.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")) {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
        }
        let path = dir.path().join("config.json");
        let original = fs::read(&path).unwrap();
        assert!(load(dir.path()).iter().any(Result::is_ok), "{name}");
        let mut refused = 0;
        for seed in first..first + count {
            let _ = fs::remove_file(&path);
            fs::write(&path, mutated(&original, seed)).unwrap();
            for result in load(dir.path()) {
                assert!(!matches!(result, Err(ModelError::Internal(_))), "{name} {seed}: {result:?}");
                refused += u64::from(result.is_err());
            }
        }
        assert!(refused > count, "{name}: only {refused} refusals");
    }
}
