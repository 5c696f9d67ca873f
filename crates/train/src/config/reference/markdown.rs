//! The reference of all config keys as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value};

use super::json_schema::json_schema;

/// The tables in the order of a typical config.
pub(super) const ORDER: [&str; 8] = ["run", "model", "fit", "data", "train", "checkpoint", "cache", "eval"];

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from crates/train/src/config/schema by `dualenc schema --markdown --out docs/CONFIG.md`. Do not edit. -->

A run is described by a TOML file. Every key is listed here with its type, its default and its source.

- Unknown keys are errors.
- Paths are relative to the config file.
- `--set KEY=VALUE` overrides a key on the command line, such as `--set train.batch_size=64`; an empty value removes it.
- `config.toml` in the run directory is the config with every default filled in.
- Editors complete and check a config whose first line is `#:schema` followed by the path of
  [`config.schema.json`](config.schema.json) (`dualenc schema` prints it).
";

type Object = Map<String, Value>;

/// The reference of all config keys as Markdown: a section for each table, with the type, default and description of
/// each key.
pub fn markdown_reference() -> String {
    let root = json_schema();
    let definitions = root.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut reference = Reference { definitions, sections: Vec::new(), documented: BTreeMap::new() };
    let properties = properties(&root);
    let rank = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
    let mut names: Vec<&String> = properties.keys().collect();
    names.sort_by_key(|name| rank(name));
    for name in names {
        if let Some(schema) = properties.get(name) {
            reference.add_tables(name, schema);
        }
    }
    let mut text = INTRODUCTION.to_owned();
    text.push_str("\n## Tables\n\n");
    for Section { title, .. } in &reference.sections {
        text.push_str(&format!("- {}\n", link(title)));
    }
    for Section { title, body } in &reference.sections {
        text.push_str(&format!("\n## `{title}`\n\n{body}"));
    }
    text
}

struct Section {
    /// The header of the table in a config, such as `[train]`.
    title: String,
    body: String,
}

struct Reference {
    definitions: Object,
    sections: Vec<Section>,
    /// The title under which the keys of a definition are documented, by the name of the definition.
    documented: BTreeMap<String, String>,
}

impl Reference {
    /// Adds the sections of the tables that `schema`, the value of the key `path`, can hold.
    fn add_tables(&mut self, path: &str, schema: &Value) {
        for (path, title, table) in self.tables(path, schema) {
            self.add_section(&path, title, &table);
        }
    }

    /// The tables that a key can hold, each with its path, title and schema.
    fn tables(&self, path: &str, schema: &Value) -> Vec<(String, String, Value)> {
        let resolved = self.resolve(schema);
        if resolved.get("properties").is_some() {
            return vec![(path.to_owned(), format!("[{path}]"), schema.clone())];
        }
        if let Some(values) = resolved.get("additionalProperties").filter(|values| values.is_object()) {
            let path = format!("{path}.NAME");
            return vec![(path.clone(), format!("[{path}]"), values.clone())];
        }
        if let Some(items) = resolved.get("items").filter(|items| self.resolve(items).get("properties").is_some()) {
            return vec![(path.to_owned(), format!("[[{path}]]"), items.clone())];
        }
        if let Some(choices) = resolved.get("anyOf").and_then(Value::as_array) {
            return choices.iter().flat_map(|choice| self.tables(path, choice)).collect();
        }
        let variants = resolved.get("oneOf").and_then(Value::as_array).into_iter().flatten();
        let tables = variants.flat_map(properties).map(|(name, table)| {
            let path = format!("{path}.{name}");
            (path.clone(), format!("[{path}]"), table)
        });
        tables.collect()
    }

    fn add_section(&mut self, path: &str, title: String, schema: &Value) {
        let definition = schema.get("$ref").and_then(Value::as_str).unwrap_or_default();
        if let Some(other) = self.documented.get(definition) {
            let body = format!("The same keys as {}.\n", link(other));
            self.sections.push(Section { title, body });
            return;
        }
        self.documented.insert(definition.to_owned(), title.clone());
        let table = self.resolve(schema).clone();
        let mut body = description(&table).0 + "\n";
        let required = table.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let properties = properties(&table);
        for (name, schema) in &properties {
            let is_required = required.iter().any(|required| required == name);
            body.push_str(&self.key(&format!("{path}.{name}"), schema, is_required));
        }
        self.sections.push(Section { title, body });
        for (name, schema) in &properties {
            self.add_tables(&format!("{path}.{name}"), schema);
        }
    }

    /// The paragraphs of one key.
    fn key(&self, path: &str, schema: &Value, is_required: bool) -> String {
        let resolved = self.resolve(schema);
        let (text, presence) = description(schema);
        let presence = match presence {
            _ if is_required => "Required.".to_owned(),
            presence if presence.is_empty() => "Optional.".to_owned(),
            presence => presence,
        };
        let tables = self.tables(path, schema);
        let kind = if tables.is_empty() {
            type_name(resolved)
        } else {
            let titles: Vec<String> = tables.iter().map(|(_, title, _)| link(title)).collect();
            format!("table {}", titles.join(", "))
        };
        let mut paragraphs = format!("\n### `{path}`\n\nType: {kind}. {presence}\n\n{text}\n");
        let values = resolved.get("oneOf").and_then(Value::as_array).into_iter().flatten();
        let values = values.filter_map(|value| Some((value.get("const")?.as_str()?, description(value).0)));
        for (n, (name, text)) in values.enumerate() {
            let gap = if n == 0 { "\n" } else { "" };
            paragraphs.push_str(&format!("{gap}- `\"{name}\"`: {text}\n"));
        }
        paragraphs
    }

    /// The definition that a schema refers to, or the schema itself.
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"));
        name.and_then(|name| self.definitions.get(name)).unwrap_or(schema)
    }
}

fn properties(schema: &Value) -> Object {
    schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The description without its last paragraph, and the last paragraph, if that says when the key may be left out.
fn description(schema: &Value) -> (String, String) {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    match text.rsplit_once("\n\n") {
        Some((text, last)) if last.starts_with("Default: ") || last.starts_with("Required ") => {
            (text.to_owned(), last.to_owned())
        }
        _ => (text.to_owned(), String::new()),
    }
}

/// The type in TOML's words.
fn type_name(schema: &Value) -> String {
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
        return choices.iter().map(type_name).collect::<Vec<_>>().join(" or ");
    }
    let name = schema.get("type").and_then(Value::as_str).unwrap_or("string");
    if name != "array" {
        return name.to_owned();
    }
    let items = schema.get("items").map(type_name).unwrap_or_default();
    let mut text = match schema.get("maxItems").and_then(Value::as_u64) {
        Some(count) => format!("array of {count} {items}s"),
        None => format!("array of {items}s"),
    };
    let choices = schema.pointer("/items/enum").and_then(Value::as_array).into_iter().flatten();
    for (n, choice) in choices.enumerate() {
        // Writing to a string does not fail.
        let _ = write!(text, "{} `{choice}`", if n == 0 { " among" } else { "," });
    }
    text
}

/// A link to the section of a table.
fn link(title: &str) -> String {
    // GitHub's rule for the anchor of a heading.
    let anchor: String = title.to_lowercase().chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    format!("[`{title}`](#{anchor})")
}
