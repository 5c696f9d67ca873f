//! The values of a config by their keys, and when two of them mean the same.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use toml::Value;

use crate::config::schema::RunConfig;

/// The values of all dotted keys. A list of tables has keys such as `data.train[0].weight`; any other list is one
/// value.
pub(super) fn flat(config: &RunConfig) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    // Only paths that are not UTF-8 cannot be written as TOML, and loading refuses them.
    if let Ok(value) = Value::try_from(config) {
        flatten(String::new(), value, &mut leaves);
    }
    leaves
}

fn flatten(key: String, value: Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name } else { format!("{key}.{name}") };
                flatten(key, value, leaves);
            }
        }
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_table) => {
            for (at, item) in items.into_iter().enumerate() {
                flatten(format!("{key}[{at}]"), item, leaves);
            }
        }
        leaf => {
            leaves.insert(key, leaf);
        }
    }
}

/// The key without the numbers of list items: `data.train.weight` for `data.train[0].weight`.
pub(crate) fn without_numbers(key: &str) -> String {
    key.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

/// Whether the values of a key mean the same in both configs.
pub(super) fn same(
    key: &str,
    old_value: Option<&Value>,
    new_value: Option<&Value>,
    old: &RunConfig,
    new: &RunConfig,
) -> bool {
    if is_default_column(&without_numbers(key), old_value, new_value) {
        return true;
    }
    match (old_value, new_value) {
        (Some(before), Some(after)) => before == after || key != "run.dir" && same_value(before, after, old, new),
        // The default was once written to the config of every run. It means the same as no key.
        (Some(before), None) => key.ends_with("webdataset.caption") && before.as_str() == Some("caption"),
        (before, after) => before == after,
    }
}

/// Whether two values differ in nothing but where the project is.
fn same_value(before: &Value, after: &Value, old: &RunConfig, new: &RunConfig) -> bool {
    match (before, after) {
        (Value::Array(before), Value::Array(after)) => {
            before.len() == after.len()
                && before.iter().zip(after).all(|(before, after)| same_value(before, after, old, new))
        }
        (Value::Table(before), Value::Table(after)) => {
            let same = |((key, before), (other, after)): ((&String, &Value), (&String, &Value))| {
                key == other && same_value(before, after, old, new)
            };
            before.len() == after.len() && before.iter().zip(after).all(same)
        }
        (Value::String(before), Value::String(after)) if before != after => {
            let (before, after) = (Path::new(before), Path::new(after));
            before.is_absolute()
                && after.is_absolute()
                && relative(&old.run.dir, before) == relative(&new.run.dir, after)
        }
        _ => before == after,
    }
}

/// Whether the names of a column differ in nothing but that the default one is written in one config: earlier versions
/// wrote it to every run.
fn is_default_column(key: &str, old: Option<&Value>, new: Option<&Value>) -> bool {
    let mut parts = key.rsplit('.');
    let name = parts.next().filter(|name| matches!(*name, "image" | "caption"));
    let in_table = key.starts_with("data.train.") && matches!(parts.next(), Some("csv" | "tsv" | "jsonl"));
    let given = [old, new].into_iter().flatten().all(|value| value.as_str() == name);
    in_table && name.is_some() && given
}

/// The relative path from `directory` to `path`; both are absolute.
fn relative(directory: &Path, path: &Path) -> PathBuf {
    let (mut rest_directory, mut rest_path) = (directory.components().peekable(), path.components().peekable());
    while rest_directory.peek().is_some() && rest_directory.peek() == rest_path.peek() {
        rest_directory.next();
        rest_path.next();
    }
    rest_directory.map(|_| Component::ParentDir).chain(rest_path).collect()
}
