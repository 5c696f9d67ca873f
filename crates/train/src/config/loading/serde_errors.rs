//! Turns an error of serde or toml into a problem with a key, a place and a help line.
//!
//! Those errors have a span but no kind, so the kind is recognised by the text of the message. The test
//! `relies_on_serde_texts` pins every text that is recognised here.

use std::ops::Range;

use dualenc_data::nearest;
use toml::Spanned;
use toml::de::DeValue;

use super::toml_tree::Document;
use crate::config::error::{Problem, did_you_mean};

/// Maximum length of a value in a message, in characters.
const SHOWN_CHARS: usize = 40;

/// The meaning of a serde error.
pub(super) struct Explained {
    /// The problem to report.
    pub problem: Problem,
    /// Path of the wrong entry, to be removed before the next try; empty if the error has no span.
    pub at_fault: Vec<String>,
    /// The key that was probably meant.
    pub meant: Option<String>,
}

/// Explains an `error` of deserialising `document`.
pub(super) fn explain(document: &Document<'_>, error: &toml::de::Error) -> Explained {
    let raw = error.message().lines().next().unwrap_or_default();
    let at_fault = error.span().and_then(|span| document.path_at(&span)).unwrap_or_default();
    let parts: Vec<&str> = at_fault.iter().map(String::as_str).collect();
    let key = at_fault.join(".");
    let value = document.get(&parts).map(Spanned::get_ref);
    let mut missing = None;
    let mut meant = None;

    let known = names(after_expected(raw));
    let (message, help) = if raw.starts_with("unknown field ") {
        let nearest = nearest(parts.last().copied().unwrap_or_default(), known.iter().copied());
        let table = parts
            .split_last()
            .map_or(String::new(), |(_, table)| table.iter().map(|part| format!("{part}.")).collect());
        meant = nearest.map(|name| format!("{table}{name}"));
        let all = (!known.is_empty()).then(|| format!("expected {}", list(&known, "or")));
        (format!("unknown key `{key}`"), nearest.map(did_you_mean).or(all))
    } else if let Some(found) = raw.strip_prefix("unknown variant ") {
        let found = names(found).first().copied().unwrap_or_default();
        let message = format!("`{key}` is `{found}`, expected {}", list(&known, "or"));
        (message, nearest(found, known.iter().copied()).map(did_you_mean))
    } else if let Some(name) = raw.strip_prefix("missing field ") {
        let name = format!("{key}.{}", name.trim_matches('`'));
        (format!("missing key `{}`", missing.insert(name)), None)
    } else if raw.starts_with("invalid ") || raw.starts_with("wanted string or table") {
        (mistyped(&key, value, error.span(), raw), None)
    } else {
        (format!("`{key}`: {raw}"), None)
    };
    let problem = Problem { key: missing.unwrap_or(key), message, help, place: document.map.place(error.span()) };
    Explained { problem, at_fault, meant }
}

/// The message for a value of the wrong type; in an array, for the item at `span`.
fn mistyped(key: &str, value: Option<&DeValue<'_>>, span: Option<Range<usize>>, raw: &str) -> String {
    let items = value.and_then(DeValue::as_array).into_iter().flatten().enumerate();
    let item = items.into_iter().find(|(_, item)| Some(item.span()) == span);
    let (index, value) = match item {
        Some((index, item)) => (format!("[{index}]"), Some(item.get_ref())),
        None => (String::new(), value),
    };
    let found = value.map_or_else(|| "something else".to_owned(), describe);
    let expected = if raw.starts_with("wanted") { "a string".to_owned() } else { kind(after_expected(raw)) };
    format!("`{key}{index}` is {found}, expected {expected}")
}

fn after_expected(message: &str) -> &str {
    message.split_once("expected ").map_or("", |(_, expected)| expected)
}

/// The words in backticks.
fn names(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// `a`, `b` or `c`.
fn list(names: &[&str], word: &str) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {word} {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// A value in the words of the user.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            let shown: String = text.chars().take(SHOWN_CHARS).collect();
            let dots = if shown.len() < text.len() { ".." } else { "" };
            format!("the string {shown:?}{dots}")
        }
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(truth) => format!("{truth}"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(items) => format!("an array of length {}", items.len()),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// The type that serde expected, in TOML's words.
fn kind(expected: &str) -> String {
    let kind = match expected {
        "usize" | "u64" => "a non-negative integer",
        "i64" => "an integer",
        "f64" => "a number",
        "a boolean" => "`true` or `false`",
        "a string" | "path string" => "a string",
        "a character" => "one character",
        "a sequence" => "an array",
        "a map" => "a table",
        "an array of length 2" => "an array of 2 numbers",
        text if text.starts_with("struct ") => "a table",
        text => text,
    };
    kind.to_owned()
}
