//! Rows as text.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::commands::metrics::rows::Rows;

/// One line per step after a line of names. A value that a step does not have is empty, one that was not finite is
/// `NaN`. Neither names nor numbers need quotes.
pub(super) fn csv(rows: &Rows) -> String {
    let tags = rows.tags();
    let mut text = String::from("step,time");
    tags.iter().for_each(|tag| text.extend([",", tag]));
    text.push('\n');
    for (step, row) in &rows.steps {
        // Writing to a string does not fail.
        let _ = write!(text, "{step},{}", row.time);
        for tag in &tags {
            text.push(',');
            if let Some(value) = row.values.get(*tag) {
                let _ = write!(text, "{value}");
            }
        }
        text.push('\n');
    }
    text
}

/// One JSON object per step. A value that was not finite is null.
pub(super) fn jsonl(rows: &Rows) -> String {
    let mut text = String::new();
    for (step, row) in &rows.steps {
        let mut object = Map::from_iter([("step".to_owned(), json!(step)), ("time".to_owned(), json!(row.time))]);
        object.extend(row.values.iter().map(|(tag, value)| (tag.clone(), json!(value))));
        text.push_str(&Value::Object(object).to_string());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::metrics::rows::Row;

    #[test]
    fn tables_have_a_row_per_step() {
        let row = |time, values: &[(&str, f64)]| Row {
            time,
            values: values.iter().map(|(tag, value)| ((*tag).to_owned(), *value)).collect(),
        };
        let steps = [(0, row(1.5, &[("eval/held/acc1", f64::NAN)])), (1, row(2.0, &[("train/loss", 1e-7)]))];
        let rows = Rows { steps: steps.into(), ..Rows::default() };
        assert_eq!(csv(&rows), "step,time,eval/held/acc1,train/loss\n0,1.5,NaN,\n1,2,,0.0000001\n");
        let lines = jsonl(&rows);
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0], json!({"step": 0, "time": 1.5, "eval/held/acc1": null}));
        assert_eq!(lines[1], json!({"step": 1, "time": 2.0, "train/loss": 1e-7}));
    }
}
