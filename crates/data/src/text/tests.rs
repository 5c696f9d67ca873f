//! What the files beside `tokenizer.json` change, compared with the ids of transformers.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::text::tokenizer::Tokenizer;

fn golden(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens")).join(path)
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|value| value.as_u64().unwrap() as u32).collect()
}

/// A copy of a golden tokenizer with the change of a case of `tokenizer_cases.py`.
fn changed(kind: &str, change: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden("ids").join(kind)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let edit = |name: &str, edit: &dyn Fn(&mut Value)| {
        let path = dir.path().join(name);
        let mut json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        edit(&mut json);
        std::fs::write(path, json.to_string()).unwrap();
    };
    let entries = |key: &str| change[key].as_object().into_iter().flatten();
    edit("tokenizer_config.json", &|config| {
        for (key, value) in entries("config") {
            config[key] = value.clone();
        }
        for key in change["remove"].as_array().into_iter().flatten() {
            config.as_object_mut().unwrap().remove(key.as_str().unwrap());
        }
    });
    if change["tokenizer"].is_object() {
        edit("tokenizer.json", &|tokenizer| {
            for (pointer, value) in entries("tokenizer") {
                *tokenizer.pointer_mut(pointer).unwrap() = value.clone();
            }
        });
    }
    for (name, value) in entries("files") {
        std::fs::write(dir.path().join(name), value.to_string()).unwrap();
    }
    dir
}

#[test]
fn settings_beside_tokenizer_json_count_as_in_transformers() {
    let golden: Value = serde_json::from_slice(&std::fs::read(golden("tokenizer_cases/cases.json")).unwrap()).unwrap();
    let max_tokens = golden["max_length"].as_u64().unwrap() as usize;
    let mut failures = Vec::new();
    for case in golden["cases"].as_array().unwrap() {
        let dir = changed(case["kind"].as_str().unwrap(), &case["change"]);
        let tokenizer = Tokenizer::from_dir(dir.path(), max_tokens).unwrap();
        assert_eq!(tokenizer.warning(), None, "{case}");
        for (text, expected) in golden["texts"].as_array().unwrap().iter().zip(case["input_ids"].as_array().unwrap()) {
            let ids = tokenizer.encode(text.as_str().unwrap()).unwrap().ids;
            if ids != numbers(expected) {
                let (kind, change) = (&case["kind"], &case["change"]);
                failures.push(format!("{kind} with {change}, {text}: {ids:?}, expected {expected}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} of them: {failures:#?}", failures.len());
}

#[test]
fn a_class_of_another_model_is_a_warning() {
    let config = |class: &str| json!({"config": {"tokenizer_class": class}});
    let warning =
        |class: &str| Tokenizer::from_dir(changed("roberta", &config(class)).path(), 14).unwrap().warning().unwrap();
    let mismatch = warning("BertTokenizer");
    assert!(mismatch.contains("its class, `BertTokenizer`, needs a WordPiece model"), "{mismatch}");
    let unknown = warning("OtherTokenizer");
    assert!(unknown.contains("its `tokenizer_class` is `OtherTokenizer`, which dualenc does not know"), "{unknown}");
}
