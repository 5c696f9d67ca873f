//! The JSON schema of a config file.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::{Map, Value};

use crate::config::schema::RunConfig;

const TITLE: &str = "dualenc run configuration";

/// The type that schemars adds for an `Option`; TOML has no such value.
const NULL: &str = "null";

/// The JSON schema (draft 2020-12) of a config file: every key with its type, default and description.
pub fn json_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(simplify));
    let mut schema = settings.into_generator().into_root_schema_for::<RunConfig>();
    schema.insert("title".to_owned(), TITLE.into());
    schema.to_value()
}

/// Removes what TOML does not have (null) and what the standard does not define (formats of Rust's numbers), and makes
/// the descriptions plain text.
fn simplify(schema: &mut Schema) {
    let Some(schema) = schema.as_object_mut() else { return };
    schema.remove("format");
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != NULL);
        if let [name] = types.as_slice() {
            let name = name.clone();
            schema.insert("type".to_owned(), name);
        }
    }
    inline_optional(schema);
    if let Some(default) = schema.get_mut("default") {
        remove_null_entries(default);
        if default.is_null() {
            schema.remove("default");
        }
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = join_lines(description);
    }
}

/// Replaces `anyOf` of a schema and null by that schema.
fn inline_optional(schema: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = schema.get_mut("anyOf") else { return };
    choices.retain(|choice| choice.get("type").is_none_or(|name| name != NULL));
    if let [Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        schema.remove("anyOf");
        // The documentation of a key goes before that of its type.
        for (name, value) in only {
            schema.entry(name).or_insert(value);
        }
    }
}

fn remove_null_entries(value: &mut Value) {
    if let Value::Object(entries) = value {
        entries.retain(|_, entry| !entry.is_null());
        entries.values_mut().for_each(remove_null_entries);
    }
}

/// One line per paragraph.
fn join_lines(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|lines| lines.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}
