//! The generated files are current, complete, and agree with what the loader accepts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dualenc_data::{
    Augment, BadRows, CaptionMode, CaptionsFrom, ClassesSource, CocoSource, CsvSource, FolderSource, JsonSource,
    JsonlSource, ParquetSource, SourceTable, TextCaptions, WebdatasetSource,
};
use dualenc_model::{Lock, Pool};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::json_schema::json_schema;
use super::markdown::{ORDER, markdown_reference};
use crate::config::tests::{BASE, FULL, load};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_default()
}

/// The definition that `schema` refers to, or itself.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(path) => root.pointer(path.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// What is wrong with `value`, by the part of JSON Schema that our schema uses.
fn violations(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let schema = resolve(root, schema);
    let mut found = Vec::new();
    if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
        let tries: Vec<_> = choices.iter().map(|choice| violations(root, choice, value, path)).collect();
        if tries.iter().filter(|found| found.is_empty()).count() != 1 {
            found.push(format!("{path}: not exactly one choice fits {value}: {tries:?}"));
        }
    }
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
        let tries: Vec<_> = choices.iter().map(|choice| violations(root, choice, value, path)).collect();
        if tries.iter().all(|found| !found.is_empty()) {
            found.push(format!("{path}: no choice fits {value}: {tries:?}"));
        }
    }
    if schema.get("const").is_some_and(|only| only != value) {
        found.push(format!("{path}: {value} is not {}", schema["const"]));
    }
    let fits = match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some(other) => panic!("{path}: unknown type {other}"),
        None => true,
    };
    if !fits {
        found.push(format!("{path}: {value} is no {}", schema["type"]));
    }
    for item in value.as_array().into_iter().flatten() {
        found.extend(schema.get("items").map_or(Vec::new(), |items| violations(root, items, item, path)));
    }
    for (name, entry) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(schema), _) => found.extend(violations(root, schema, entry, &path)),
            (None, Some(Value::Bool(false))) => found.push(format!("{path}: unknown key")),
            (None, Some(values)) => found.extend(violations(root, values, entry, &path)),
            (None, None) => {}
        }
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            found.push(format!("{path}: {name} is missing"));
        }
    }
    found
}

fn assert_valid(toml: &str, name: &str) {
    let root = json_schema();
    let value = serde_json::to_value(toml::from_str::<toml::Value>(toml).unwrap()).unwrap();
    assert_eq!(violations(&root, &root, &value, ""), Vec::<String>::new(), "{name}");
}

/// Every key with its schema, tables included.
fn keys(root: &Value) -> Vec<(String, Value, bool)> {
    let definitions = root["$defs"].as_object().unwrap();
    let tables = definitions.iter().map(|(name, table)| (name.as_str(), table)).chain([("", root)]);
    let mut found = Vec::new();
    for (table, schema) in tables {
        let required = schema.get("required").cloned().unwrap_or_default();
        for (name, key) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let is_required = required.as_array().into_iter().flatten().any(|required| required == name);
            found.push((format!("{table}.{name}"), key.clone(), is_required));
        }
    }
    found
}

#[test]
fn schema_file_is_current() {
    let expected = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    assert!(
        read("docs/config.schema.json") == expected,
        "docs/config.schema.json is out of date: run `dualenc schema --out docs/config.schema.json`"
    );
}

#[test]
fn markdown_file_is_current() {
    assert!(
        read("docs/CONFIG.md") == markdown_reference(),
        "docs/CONFIG.md is out of date: run `dualenc schema --markdown --out docs/CONFIG.md`"
    );
}

#[test]
fn schema_is_closed_and_dated() {
    let root = json_schema();
    assert_eq!(root["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let tables = root["$defs"].as_object().unwrap().values().chain([&root]);
    let open: Vec<_> =
        tables.filter(|table| table.get("properties").is_some() && table["additionalProperties"] != false).collect();
    assert_eq!(open, Vec::<&Value>::new());
    assert!(!root.to_string().contains("null"));
}

#[test]
fn every_key_documents_its_default() {
    let root = json_schema();
    for (name, schema, is_required) in keys(&root) {
        let text = schema["description"].as_str().unwrap_or_else(|| panic!("{name} has no description"));
        assert!(text.ends_with('.') && !text.contains("[`"), "{name}: {text}");
        let last = text.rsplit("\n\n").next().unwrap();
        let is_table = resolve(&root, &schema).get("properties").is_some();
        let says_when_absent = last.starts_with("Default: ") || last.starts_with("Required ");
        assert!(is_required || is_table || says_when_absent, "{name}: {text}");
        assert!(!(is_required && says_when_absent), "{name}: {text}");
        match schema.get("default") {
            Some(Value::Object(_) | Value::Array(_)) if is_table || last.starts_with("Default: none") => {}
            Some(default) => {
                let written = default.to_string().replace(',', ", ");
                assert!(last.starts_with(&format!("Default: `{written}`")), "{name} is {written} by default: {last}");
            }
            None => {}
        }
    }
}

#[test]
fn every_key_is_in_the_markdown() {
    let text = markdown_reference();
    let names: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("### `")).map(str::to_owned).collect();
    for (name, ..) in keys(&json_schema()).iter().filter(|(name, ..)| !name.starts_with('.')) {
        let (_, key) = name.split_once('.').unwrap();
        assert!(names.iter().any(|heading| heading.ends_with(&format!(".{key}`"))), "{name}");
    }
    let tables = json_schema()["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(tables, ORDER.map(str::to_owned).into());
    let anchors: BTreeSet<&str> = text.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    let slug =
        |line: &str| -> String { line.to_lowercase().chars().filter(|c| c.is_alphanumeric() || *c == '_').collect() };
    let sections: BTreeSet<String> = text.lines().filter_map(|line| line.strip_prefix("## ")).map(slug).collect();
    assert!(anchors.iter().all(|anchor| sections.contains(*anchor)), "{anchors:?} {sections:?}");
    assert!(sections.contains("evalname") && sections.contains("trainstage") && sections.contains("datatraincsv"));
}

#[test]
fn configs_match_the_schema() {
    let mut count = 0;
    for entry in std::fs::read_dir(repository().join("configs")).unwrap() {
        let path = entry.unwrap().path();
        assert_valid(&std::fs::read_to_string(&path).unwrap(), &path.display().to_string());
        count += 1;
    }
    assert!(count >= 3);
    let readme = read("README.md");
    let block = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_valid(block, "README.md");
}

#[test]
fn resolved_configs_match_the_schema() {
    let more = [
        "model.image_lora={rank=2}",
        "train.stage=[{from_step=5, lock='LU'}]",
        "train.group=[{match='*', learning_rate=1.0}]",
    ];
    for (text, overrides) in [(BASE, &more[..]), (BASE, &["train.optimizer=sgd"]), (FULL, &[])] {
        assert_valid(&load(text, overrides).unwrap().to_toml().unwrap(), text);
    }
}

#[test]
fn unknown_keys_violate_the_schema() {
    let root = json_schema();
    let mut value = serde_json::to_value(toml::from_str::<toml::Value>(BASE).unwrap()).unwrap();
    value["data"]["train"]["csv"]["captoin"] = json!("x");
    value["train"]["loss"] = json!("sofmax");
    assert_eq!(violations(&root, &root, &value, "").len(), 2);
}

/// The names that `T` accepts, by its own error message.
fn accepted<T: DeserializeOwned + std::fmt::Debug>(probe: Value) -> BTreeSet<String> {
    let message = serde_json::from_value::<T>(probe).unwrap_err().to_string();
    let (_, expected) = message.split_once("expected ").unwrap();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The data and model crates define these types; their documentation is written beside the schema.
#[test]
fn documented_types_match_their_crates() {
    let root = json_schema();
    let table = |name: &str| -> BTreeSet<String> {
        root["$defs"][name]["properties"].as_object().unwrap().keys().cloned().collect()
    };
    let choices = |name: &str| -> BTreeSet<String> {
        let choices = root["$defs"][name]["oneOf"].as_array().unwrap().iter();
        choices
            .map(|choice| match choice.get("const").and_then(Value::as_str) {
                Some(name) => name.to_owned(),
                None => choice["properties"].as_object().unwrap().keys().next().unwrap().clone(),
            })
            .collect()
    };
    let unknown = || json!({ "?": 0 });
    assert_eq!(table("CsvSource"), accepted::<CsvSource>(unknown()));
    assert_eq!(table("JsonSource"), accepted::<JsonSource>(unknown()));
    assert_eq!(table("JsonlSource"), accepted::<JsonlSource>(unknown()));
    assert_eq!(table("FolderSource"), accepted::<FolderSource>(unknown()));
    assert_eq!(table("WebdatasetSource"), accepted::<WebdatasetSource>(unknown()));
    assert_eq!(table("ClassesSource"), accepted::<ClassesSource>(unknown()));
    assert_eq!(table("CocoSource"), accepted::<CocoSource>(unknown()));
    assert_eq!(table("ParquetSource"), accepted::<ParquetSource>(unknown()));
    assert_eq!(table("Augment"), accepted::<Augment>(unknown()));
    assert_eq!(table("SourceTable"), accepted::<SourceTable>(unknown()));
    assert_eq!(choices("BadRows"), accepted::<BadRows>(json!("?")));
    assert_eq!(choices("CaptionsFrom"), accepted::<CaptionsFrom>(json!("?")));
    assert_eq!(choices("TextCaptions"), accepted::<TextCaptions>(json!("?")));
    assert_eq!(choices("CaptionMode"), accepted::<CaptionMode>(json!("?")));
    assert_eq!(choices("Pool"), accepted::<Pool>(json!("?")));
    let pattern = &root["$defs"]["ModelSection"]["properties"]["lock"]["pattern"];
    assert_eq!(pattern, "^[LUu]{2}$");
    assert!(["LL", "Lu", "UL", "uU"].iter().all(|lock| lock.parse::<Lock>().is_ok()));
    assert!(["l", "LLL", "Lx", ""].iter().all(|lock| lock.parse::<Lock>().is_err()));
}
