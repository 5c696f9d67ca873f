//! The keys that every config must have, and placeholders for the missing ones, so that the rest can still be read.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::toml_tree::Document;
use crate::config::error::Place;

/// The required keys, each with its help line.
const REQUIRED: [(&[&str], &str); 4] = [
    (&["run", "dir"], "where the run writes, such as `dir = \"runs/first\"`"),
    (&["data", "train"], "the training pairs, such as a table `[data.train.csv]` with `path`"),
    (&["train", "batch_size"], "such as `batch_size = 256`"),
    (&["train", "learning_rate"], "such as `learning_rate = 1e-3`"),
];

/// A required key that is missing.
pub(super) struct Missing {
    pub key: String,
    pub help: &'static str,
    pub place: Place,
}

/// Inserts a placeholder for each missing required key.
pub(super) fn insert_placeholders(document: &mut Document<'_>, missing: &mut Vec<Missing>) {
    let mut put = |document: &mut Document<'_>, path: &[&str], help, value| {
        let key = path.join(".");
        missing.push(Missing { place: document.place_of(&key), key, help });
        document.put(path, value);
    };
    if document.get(&["model"]).is_none() {
        // Validation reports the missing towers.
        document.put(&["model"], DeValue::Table(DeTable::new()));
    }
    if document.get(&["model", "lock"]).is_none() && has_text_features(document) {
        document.put(&["model", "lock"], DeValue::String(Cow::Borrowed("LL")));
    }
    for (path, help) in REQUIRED {
        let in_scalar = path
            .first()
            .is_some_and(|section| document.get(&[section]).is_some_and(|value| !value.get_ref().is_table()));
        if !in_scalar && document.get(path).is_none() {
            put(document, path, help, placeholder(path));
        }
    }
    let without_task: Vec<String> = match document.get(&["eval"]).map(Spanned::get_ref) {
        Some(DeValue::Table(evals)) => evals
            .iter()
            .filter(|(_, eval)| eval.get_ref().as_table().is_some_and(|eval| !eval.contains_key("task")))
            .map(|(name, _)| name.get_ref().to_string())
            .collect(),
        _ => Vec::new(),
    };
    for name in without_task {
        let value = DeValue::String(Cow::Borrowed("zero-shot"));
        put(document, &["eval", &name, "task"], "`zero-shot`, `retrieval` or `loss`", value);
    }
}

/// Whether the first source has features of texts, so that there is no text tower to train.
fn has_text_features(document: &Document<'_>) -> bool {
    let table = |path: &[&str]| document.get(path).and_then(|value| value.get_ref().as_table());
    let features = table(&["data", "train", "features"]).or_else(|| table(&["data", "train[0]", "features"]));
    features.is_some_and(|features| {
        let has = |key: &str| features.contains_key(key);
        has("texts") || has("path") && (has("text") || !has("image"))
    })
}

/// A valid value for a required key. It is never used: the missing key is an error.
fn placeholder(path: &[&str]) -> DeValue<'static> {
    let text = |text: &'static str| DeValue::String(Cow::Borrowed(text));
    let table = |key: &'static str, value: DeValue<'static>| {
        let entry = (Spanned::new(0..0, DeString::Borrowed(key)), Spanned::new(0..0, value));
        DeValue::Table(DeTable::from_iter([entry]))
    };
    match path {
        ["run", "dir"] => text("."),
        ["data", "train"] => table("csv", table("path", text("."))),
        _ => number(),
    }
}

/// The number 2, which is valid for every required number.
fn number() -> DeValue<'static> {
    DeValue::parse("2").map(Spanned::into_inner).unwrap_or(DeValue::Boolean(true))
}
