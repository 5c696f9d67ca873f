//! An evaluation's figures as lines for a person.

use std::io::Write;

use dualenc_train::EvalRecord;
use serde_json::Value;

/// Prints the figures of one evaluation, name and value a line.
pub fn print(out: &mut impl Write, record: &EvalRecord) -> std::io::Result<()> {
    writeln!(out, "{} ({}, step {})", record.name, record.task, record.step)?;
    let width = record.metrics.keys().map(String::len).max().unwrap_or(0);
    let mut figures: Vec<_> = record.metrics.iter().collect();
    figures.sort_by_key(|(name, _)| place(name));
    for (name, value) in figures {
        writeln!(out, "  {name:width$}  {}", shown(value))?;
    }
    Ok(())
}

/// By name, and `recall@10` behind `recall@5`.
fn place(name: &str) -> (&str, u64) {
    let (stem, cutoff) = name.split_once('@').unwrap_or((name, "0"));
    (stem, cutoff.parse().unwrap_or(0))
}

/// The figures that matter most.
pub const SUMMARY: [&str; 7] =
    ["acc1", "acc5", "image_retrieval_recall@1", "text_retrieval_recall@1", "loss", "image_acc1", "text_acc1"];

/// The figures that matter most, on one line.
pub fn summary(record: &EvalRecord) -> String {
    let found = SUMMARY.iter().filter_map(|name| Some(format!("{name} {}", shown(record.metrics.get(*name)?))));
    found.collect::<Vec<_>>().join("  ")
}

pub fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => format!("{:.4}", number.as_f64().unwrap_or(f64::NAN)),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
