//! Configs with a value of another kind: an error or a report, and no panic, whatever reads them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::commands::inspect::inspect;
use crate::device::Compute;
use crate::events::{Event, Observer};
use crate::models::load::Assembly;

struct Deaf;

impl Observer for Deaf {
    fn on(&mut self, _: Event<'_>) {}
}

const MODELS: [&str; 6] = [
    "dual/deit_roberta",
    "image_families/dual_swin",
    "image_families/dual_resnet",
    "text_families/pair_siglip_text",
    "whole/chinese_clip",
    "whole/open_clip",
];

/// Of so many changed configs one is loaded too.
const LOADED_OF: usize = 7;

fn values() -> Vec<Value> {
    vec![json!(null), json!(-1), json!(0), json!(7), json!("x"), json!([]), json!({})]
}

/// Each value of each object in `value`, exchanged for `by`, one at a time.
fn exchanged(value: &Value, by: &Value) -> Vec<Value> {
    let Value::Object(object) = value else { return Vec::new() };
    let with = |key: &String, value: Value| {
        let mut object: Map<String, Value> = object.clone();
        object.insert(key.clone(), value);
        Value::Object(object)
    };
    let own = object.keys().map(|key| with(key, by.clone()));
    let inner = object.iter().flat_map(|(key, value)| exchanged(value, by).into_iter().map(move |value| (key, value)));
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
fn no_config_makes_inspection_or_loading_panic() {
    let compute = Compute::select("cpu", None).unwrap();
    let mut tried = 0;
    for model in MODELS {
        let dir = tempfile::tempdir().unwrap();
        let files = copy(model, dir.path());
        let configs = files.iter().filter(|path| path.to_string_lossy().ends_with("config.json"));
        for config in configs {
            let whole = fs::read(config).unwrap();
            let parsed: Value = serde_json::from_slice(&whole).unwrap();
            for changed in values().iter().flat_map(|by| exchanged(&parsed, by)) {
                fs::write(config, changed.to_string()).unwrap();
                let _ = inspect(dir.path(), &compute.device);
                // Loading takes longer, and reads configs by the same code.
                if tried % LOADED_OF == 0 {
                    let _ = Assembly::from_dir(dir.path(), &compute, &mut Deaf);
                }
                tried += 1;
            }
            fs::write(config, whole).unwrap();
        }
        assert!(inspect(dir.path(), &compute.device).is_ok(), "{model}");
    }
    assert!(tried > 2000, "only {tried}");
}
