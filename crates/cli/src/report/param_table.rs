//! The table of trainable and locked parameters that opens a run.

use dualenc_train::PartSummary;

/// One line per part; with columns for learning rate and weight decay if they differ between parts.
pub fn render(parts: &[PartSummary]) -> String {
    let count = |values: usize| match values {
        0 => "-".to_owned(),
        1..1_000 => values.to_string(),
        1_000..1_000_000 => format!("{:.1} k", values as f64 / 1e3),
        _ => format!("{:.2} M", values as f64 / 1e6),
    };
    let total = |values: fn(&PartSummary) -> usize| count(parts.iter().map(values).sum());
    let mut lines = vec![format!("{:18} {:>10} {:>10}", "parameters", "trainable", "locked")];
    for part in parts {
        lines.push(format!("{:18} {:>10} {:>10}", part.name, count(part.trainable), count(part.locked)));
    }
    type Range = fn(&PartSummary) -> Option<[f64; 2]>;
    for (title, range) in [("learning rate", (|part| part.rates) as Range), ("weight decay", |part| part.decays)] {
        let mut values = parts.iter().filter_map(range).flatten();
        let first = values.next();
        if values.all(|value| Some(value) == first) {
            continue;
        }
        let shown = std::iter::once(title.to_owned()).chain(parts.iter().map(|part| match range(part) {
            None => "-".to_owned(),
            Some([lowest, highest]) if lowest == highest => format_number(lowest),
            Some([lowest, highest]) => format!("{} to {}", format_number(lowest), format_number(highest)),
        }));
        lines.iter_mut().zip(shown).for_each(|(line, shown)| *line += &format!(" {shown:>20}"));
    }
    lines.push(format!("{:18} {:>10} {:>10}", "all", total(|part| part.trainable), total(|part| part.locked)));
    lines.join("\n")
}

/// Three significant digits, without trailing zeros.
fn format_number(value: f64) -> String {
    let rounded = format!("{value:.2e}").parse().unwrap_or(value);
    if (1e-2..1e3).contains(&value) || value == 0.0 { format!("{rounded}") } else { format!("{rounded:e}") }
}
