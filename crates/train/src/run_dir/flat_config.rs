//! A config as a list of dotted keys.

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
}
