//! The metrics of an evaluation, as text and as JSON.

use std::io::Write;

use dualenc_train::{EvalRecord, counted};
use serde_json::{Map, Value, json};

/// The most important metrics, in the order of the columns of a table.
pub const SUMMARY: [&str; 8] = [
    "acc1",
    "acc5",
    "mean_average_precision",
    "image_retrieval_recall@1",
    "text_retrieval_recall@1",
    "loss",
    "image_acc1",
    "text_acc1",
];

/// The end of the name of a metric's 95 % interval.
const INTERVAL: &str = "_ci95";

/// Prints a heading, and one line per metric.
pub fn print(out: &mut impl Write, record: &EvalRecord) -> std::io::Result<()> {
    print_of_width(out, record, None)
}

/// As [`print()`]. `dim`: the width that embeddings are cut to; `None`: they are whole.
pub fn print_of_width(out: &mut impl Write, record: &EvalRecord, dim: Option<usize>) -> std::io::Result<()> {
    let width = dim.map(|dim| format!(", embeddings cut to {}", counted(dim, "value")));
    let left_out = left_out(record).map(|note| format!("; {note}"));
    let note: String = width.into_iter().chain(left_out).collect();
    writeln!(out, "{} ({}, step {}{note})", record.name, record.task, record.step)?;
    let mut metrics: Vec<_> = record.metrics.iter().filter(|(name, _)| !name.ends_with(INTERVAL)).collect();
    let width = metrics.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    metrics.sort_by_key(|(name, _)| sort_key(name));
    for (name, value) in metrics {
        let interval = interval(&record.metrics, name);
        let interval = interval.map_or_else(String::new, |[low, high]| format!("  ({low:.4} to {high:.4})"));
        writeln!(out, "  {name:width$}  {}{interval}", format_value(value))?;
    }
    Ok(())
}

/// The 95 % interval of a metric, if it has one.
fn interval(metrics: &Map<String, Value>, name: &str) -> Option<[f64; 2]> {
    match metrics.get(&format!("{name}{INTERVAL}"))?.as_array()?.as_slice() {
        [low, high] => Some([low.as_f64()?, high.as_f64()?]),
        _ => None,
    }
}

/// Sorts by name, then by the number after `@`: `recall@5` comes before `recall@10`.
fn sort_key(name: &str) -> (&str, u64) {
    let (stem, cutoff) = name.split_once('@').unwrap_or((name, "0"));
    (stem, cutoff.parse().unwrap_or(0))
}

/// The most important metrics on one line.
pub fn summary(record: &EvalRecord) -> String {
    let found = SUMMARY.iter().filter_map(|name| Some(format!("{name} {}", format_value(record.metrics.get(*name)?))));
    let note = left_out(record).map(|note| format!("({note})"));
    found.chain(note).collect::<Vec<_>>().join("  ")
}

/// Says that the metrics are of fewer images or captions than the data list, if they are.
pub fn left_out(record: &EvalRecord) -> Option<String> {
    let count = |name: &str| record.metrics.get(name).and_then(Value::as_u64);
    let unreadable = count("num_unreadable").filter(|&unreadable| unreadable > 0);
    let images = |unreadable| {
        let listed = count("num_images").unwrap_or_default() + unreadable;
        format!("{unreadable} of {listed} images cannot be used")
    };
    let rows = count("num_skipped_rows")
        .filter(|&rows| rows > 0)
        .map(|rows| format!("{} {} left out", counted(rows as usize, "row"), if rows == 1 { "is" } else { "are" }));
    let notes: Vec<String> = unreadable.map(images).into_iter().chain(rows).collect();
    (!notes.is_empty()).then(|| notes.join(", "))
}

/// Four decimals for fractions, `-` for null.
pub fn format_value(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => format!("{:.4}", number.as_f64().unwrap_or(f64::NAN)),
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// One evaluation: its task and metrics.
pub fn to_json(record: &EvalRecord) -> Value {
    let mut value = json!({"task": record.task});
    if let Some(object) = value.as_object_mut() {
        object.extend(record.metrics.clone());
    }
    value
}

/// Evaluations by name.
pub fn by_name(records: &[EvalRecord]) -> Value {
    let by_name: Map<String, Value> = records.iter().map(|record| (record.name.clone(), to_json(record))).collect();
    Value::Object(by_name)
}
