//! The evaluations of a run, as tables.

use serde_json::{Map, Value};

use crate::commands::export::model_card::markdown::{escape, grouped, table};
use crate::commands::export::model_card::origin::Figures;
use crate::eval::metrics::bootstrap::INTERVAL;

/// Counts that an evaluation is introduced with, and what they count.
const COUNTS: [(&str, &str); 4] = [
    ("num_images", "images"),
    ("num_texts", "texts"),
    ("num_distinct_texts", "distinct texts"),
    ("num_classes", "classes"),
];

/// Counts of what was left out.
const LEFT_OUT: [(&str, &str); 2] = [("num_unreadable", "unreadable images"), ("num_skipped_rows", "rows")];

/// One table per evaluation. `step`: of the exported weights.
pub(crate) fn section(figures: &[Figures], step: Option<u64>) -> String {
    let mut parts: Vec<String> = figures.iter().map(|figures| evaluation(figures, step)).collect();
    let has_interval = figures.iter().any(|figures| figures.metrics.keys().any(|key| key.ends_with(INTERVAL)));
    if has_interval {
        parts.push(
            "Intervals: 95 %, by the percentile bootstrap over the images with all of their texts; of fractions that \
             are 0 or 1, Wilson's score interval."
                .to_owned(),
        );
    }
    parts.join("\n\n")
}

fn evaluation(figures: &Figures, step: Option<u64>) -> String {
    let count = |(key, noun): (&str, &str)| {
        let count = figures.metrics.get(key)?.as_u64()?;
        Some(format!("{} {noun}", grouped(count)))
    };
    let counts: Vec<String> = COUNTS.into_iter().filter_map(count).collect();
    let mut title = format!("**{}** ({}", escape(&figures.name), escape(&figures.task));
    if !counts.is_empty() {
        title += &format!("; {}", counts.join(", "));
    }
    let left_out = LEFT_OUT.into_iter().filter(|(key, _)| figures.metrics.get(*key).is_some_and(|n| n != 0));
    let left_out: Vec<String> = left_out.filter_map(count).collect();
    if !left_out.is_empty() {
        title += &format!("; left out: {}", left_out.join(", "));
    }
    title += ")";
    if step != Some(figures.step) {
        title += &format!(", measured at step {}, before the exported weights", figures.step);
    }
    let names = figures.metrics.iter().filter(|(name, value)| is_metric(name, value)).map(|(name, _)| name.as_str());
    let mut names: Vec<&str> = names.collect();
    names.sort_by_key(|name| sort_key(name));
    let cells = |name: &str| {
        let interval = interval(&figures.metrics, name);
        let interval = interval.map_or_else(String::new, |[low, high]| format!("{low:.4} to {high:.4}"));
        [format!("`{name}`"), value(&figures.metrics, name), interval]
    };
    let rows: Vec<[String; 3]> = names.iter().map(|name| cells(name)).collect();
    let has_intervals = rows.iter().any(|[.., interval]| !interval.is_empty());
    let table = match (&figures.before, has_intervals) {
        (Some(before), true) => {
            let rows = rows.into_iter().zip(&names).map(|([a, b, c], name)| [a, b, c, value(before, name)]);
            table(["metric", "value", "95 % interval", "before training"], "---:", &rows.collect::<Vec<_>>())
        }
        (Some(before), false) => {
            let rows = rows.into_iter().zip(&names).map(|([a, b, _], name)| [a, b, value(before, name)]);
            table(["metric", "value", "before training"], "---:", &rows.collect::<Vec<_>>())
        }
        (None, true) => table(["metric", "value", "95 % interval"], "---:", &rows),
        (None, false) => {
            let rows: Vec<_> = rows.into_iter().map(|[a, b, _]| [a, b]).collect();
            table(["metric", "value"], "---:", &rows)
        }
    };
    format!("{title}\n\n{table}")
}

fn is_metric(name: &str, value: &Value) -> bool {
    let is_count = COUNTS.iter().chain(&LEFT_OUT).any(|(key, _)| *key == name);
    !is_count && !name.ends_with(INTERVAL) && (value.is_number() || value.is_null())
}

/// Sorts by name, then by the number after `@`: `recall@5` comes before `recall@10`, also of narrower embeddings
/// (`recall@5_dim8`).
fn sort_key(name: &str) -> (&str, u64) {
    let (stem, cutoff) = name.split_once('@').unwrap_or((name, "0"));
    let number = cutoff.split('_').next().unwrap_or(cutoff);
    (stem, number.parse().unwrap_or(0))
}

/// Four decimals for fractions; a metric that is not a number, or not there, is a dash.
fn value(metrics: &Map<String, Value>, name: &str) -> String {
    match metrics.get(name) {
        Some(Value::Number(number)) if number.is_f64() => {
            number.as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.4}"))
        }
        Some(Value::Number(number)) => number.to_string(),
        _ => "-".to_owned(),
    }
}

fn interval(metrics: &Map<String, Value>, name: &str) -> Option<[f64; 2]> {
    match metrics.get(&format!("{name}{INTERVAL}"))?.as_array()?.as_slice() {
        [low, high] => Some([low.as_f64()?, high.as_f64()?]),
        _ => None,
    }
}
