//! A config as a list of dotted keys.

use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

/// The keys of the config in `text` with their values, such as `model.embed_dim`. A list is one value; `None`: the text
/// is no TOML.
pub(crate) fn flat_config(text: &str) -> Option<Vec<(String, Value)>> {
    let mut entries = Vec::new();
    flatten("", Value::Table(text.parse::<Table>().ok()?), &mut entries);
    Some(entries)
}

/// A value as text: strings without quotes, everything else as TOML.
pub(crate) fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A value for people, with absolute paths in their shortest form: `/lists/a.csv` for `/runs/../lists/a.csv`. Runs of
/// configs in different folders name their data so.
pub(crate) fn with_short_paths(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(with_short_paths).collect()),
        Value::String(text) => Value::String(short_path(&text).unwrap_or(text)),
        other => other,
    }
}

/// `None`: `text` is no absolute path that goes up.
fn short_path(text: &str) -> Option<String> {
    let path = Path::new(text);
    let goes_up = path.is_absolute() && path.components().any(|part| part == Component::ParentDir);
    let mut short = PathBuf::new();
    for part in path.components().filter(|_| goes_up) {
        match part {
            // Of the root, it is the root.
            Component::ParentDir => {
                short.pop();
            }
            part => short.push(part.as_os_str()),
        }
    }
    goes_up.then(|| short.display().to_string())
}

fn flatten(key: &str, value: Value, entries: &mut Vec<(String, Value)>) {
    let Value::Table(table) = value else {
        entries.push((key.to_owned(), value));
        return;
    };
    for (name, value) in table {
        let key = if key.is_empty() { name } else { format!("{key}.{name}") };
        flatten(&key, value, entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_is_flat_with_dotted_keys() {
        let entries = flat_config("[a]\nb = 1e-3\n[a.c]\nd = \"x\"\ne = [1, 2]").unwrap();
        let shown: Vec<String> = entries.iter().map(|(key, value)| format!("{key}={}", shown(value))).collect();
        assert_eq!(shown, ["a.b=0.001", "a.c.d=x", "a.c.e=[1, 2]"]);
        assert_eq!(flat_config("a = "), None);
    }

    #[test]
    fn paths_that_go_up_are_short() {
        let shown = |text: &str| shown(&with_short_paths(Value::String(text.to_owned())));
        assert_eq!(shown("/runs/a/../../lists/a.csv"), "/lists/a.csv");
        for same in ["/lists/a.csv", "../lists/a.csv", "a photo of /../", "/"] {
            assert_eq!(shown(same), same);
        }
        let list = Value::Array(vec!["/a/../b".into(), 3.into()]);
        assert_eq!(self::shown(&with_short_paths(list)), "[\"/b\", 3]");
    }
}
