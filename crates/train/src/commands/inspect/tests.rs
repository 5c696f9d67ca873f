//! Configs in which one value has another type lead to an error or a report, and never to a panic.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::commands::inspect::directory::inspect;
use crate::device::Compute;
use crate::events::Silent;
use crate::models::load::LoadedModel;

const MODELS: [&str; 6] = [
    "dual/deit_roberta",
    "image_families/dual_swin",
    "image_families/dual_resnet",
    "text_families/pair_siglip_text",
    "whole/chinese_clip",
    "whole/open_clip",
];

/// One in this many changed configs is also loaded.
const LOAD_EVERY: usize = 7;

fn values() -> Vec<Value> {
    vec![json!(null), json!(-1), json!(0), json!(7), json!("x"), json!([]), json!({})]
}

/// Copies of `value` in which one value of one object is replaced by `by`.
fn replaced(value: &Value, by: &Value) -> Vec<Value> {
    let Value::Object(object) = value else { return Vec::new() };
    let with = |key: &String, value: Value| {
        let mut object: Map<String, Value> = object.clone();
        object.insert(key.clone(), value);
        Value::Object(object)
    };
    let own = object.keys().map(|key| with(key, by.clone()));
    let inner = object.iter().flat_map(|(key, value)| replaced(value, by).into_iter().map(move |value| (key, value)));
    own.chain(inner.map(|(key, value)| with(key, value))).chain([by.clone()]).collect()
}

fn copy(model: &str, into: &Path) -> Vec<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(model);
    let entries = fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    entries
        .map(|path| {
            let target = into.join(path.file_name().unwrap());
            fs::copy(&path, &target).unwrap();
            target
        })
        .collect()
}

#[test]
fn malformed_configs_never_panic() {
    let compute = Compute::select("cpu", None).unwrap();
    let mut tried = 0;
    for model in MODELS {
        let dir = tempfile::tempdir().unwrap();
        let files = copy(model, dir.path());
        let configs = files.iter().filter(|path| path.to_string_lossy().ends_with("config.json"));
        for config in configs {
            let whole = fs::read(config).unwrap();
            let parsed: Value = serde_json::from_slice(&whole).unwrap();
            for changed in values().iter().flat_map(|by| replaced(&parsed, by)) {
                fs::write(config, changed.to_string()).unwrap();
                let _ = inspect(dir.path(), &compute.device);
                // Loading is slower, and reads configs with the same code.
                if tried % LOAD_EVERY == 0 {
                    let _ = LoadedModel::from_dir(dir.path(), &compute, &mut Silent);
                }
                tried += 1;
            }
            fs::write(config, whole).unwrap();
        }
        assert!(inspect(dir.path(), &compute.device).is_ok(), "{model}");
    }
    assert!(tried > 2000, "only {tried}");
}
