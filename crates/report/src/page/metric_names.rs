//! Names and units of metrics, as a reader knows them.

use crate::data::number::Figure;
use crate::page::format::{count, fixed, significant};

/// How the values of a metric are shown, and which are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MetricKind {
    /// Whether it is a fraction, shown in percent.
    pub is_fraction: bool,
    pub higher_is_better: bool,
}

/// Metrics that a page shows first where there are several, the first the most telling.
const MAIN: [&str; 10] = [
    "acc1",
    "mean_average_precision",
    "mean_per_class_recall",
    "acc5",
    "image_retrieval_recall@1",
    "text_retrieval_recall@1",
    "image_retrieval_recall@5",
    "loss",
    "image_acc1",
    "text_acc1",
];

/// End of the names of metrics by the embeddings, beside those by the features of the tower.
const EMBEDS: &str = "_embeds";

/// What the width follows in the names of metrics by the first values of embeddings.
const WIDTH: &str = "_dim";

/// Names that say what was evaluated and how: counts, and settings that were given or chosen. They are no figures of
/// merit.
pub(crate) fn is_setting(name: &str) -> bool {
    let is_chosen = ["l2", "neighbors", "pool_size"].contains(&name.strip_suffix(EMBEDS).unwrap_or(name));
    name.starts_with("num_") || is_chosen
}

/// A setting and its value, as `5 images` or `pool size: 256`.
pub(crate) fn setting(name: &str, value: f64) -> String {
    let shown = significant(value, 4);
    match name.strip_prefix("num_") {
        Some(counted) => format!("{} {}", count(value.max(0.0) as u64), counted.replace('_', " ")),
        None => format!("{}: {shown}", title(name).to_lowercase()),
    }
}

/// The names of `metrics` that are shown first.
pub(crate) fn main_metrics<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let names: Vec<&str> = names.filter(|name| !is_setting(name)).collect();
    let main: Vec<&str> = MAIN.iter().filter_map(|main| names.iter().find(|name| *name == main)).copied().collect();
    if main.is_empty() { names.into_iter().take(3).collect() } else { main.into_iter().take(3).collect() }
}

/// How a metric is shown.
pub(crate) fn kind(name: &str) -> MetricKind {
    let name = name.rsplit('.').next().unwrap_or(name);
    let is_fraction = ["acc", "recall", "precision", "map", "ece", "hit"].iter().any(|part| {
        name.split(['_', '@', '-']).any(|word| word == *part || (*part == "acc" && word.starts_with("acc")))
    });
    let higher_is_better = !["loss", "rank", "ece", "gap"].iter().any(|part| name.contains(part));
    MetricKind { is_fraction, higher_is_better }
}

/// A metric's name in words.
pub(crate) fn title(name: &str) -> String {
    let known = match name {
        "mean_per_class_recall" => "Mean recall per class",
        "mean_average_precision" => "Mean average precision",
        "ece" => "Expected calibration error",
        "image_acc1" => "Top-1 accuracy, image to text",
        "text_acc1" => "Top-1 accuracy, text to image",
        "loss" => "Loss",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    if let Some(of_features) = name.strip_suffix(EMBEDS) {
        return format!("{}, by embeddings", title(of_features));
    }
    if let Some((whole, width)) = name.rsplit_once(WIDTH).filter(|(_, width)| width.parse::<u32>().is_ok()) {
        return format!("{}, first {width} values", title(whole));
    }
    if let Some(k) = name.strip_prefix("acc").filter(|k| k.parse::<u32>().is_ok()) {
        return format!("Top-{k} accuracy");
    }
    for (prefix, way) in [("image_retrieval_", "text to image"), ("text_retrieval_", "image to text")] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return format!("{}, {way}", sentence(rest));
        }
    }
    sentence(name)
}

fn sentence(name: &str) -> String {
    let words = match name {
        "mrr" => return "MRR".to_owned(),
        _ => name.replace('_', " "),
    };
    if let Some(k) = words.strip_prefix("map@") {
        return format!("mAP@{k}");
    }
    let mut letters = words.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// A value of a metric as text.
pub(crate) fn value(kind: MetricKind, value: f64) -> String {
    match kind.is_fraction {
        true if value.is_finite() => format!("{} %", fixed(100.0 * value, 1)),
        _ => significant(value, 4),
    }
}

/// An interval as text, if there is one.
pub(crate) fn interval(kind: MetricKind, figure: &Figure) -> Option<String> {
    let [low, high] = figure.finite_interval()?;
    let show = |end: f64| if kind.is_fraction { fixed(100.0 * end, 1) } else { significant(end, 4) };
    Some(format!("{} to {}{}", show(low), show(high), if kind.is_fraction { " %" } else { "" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_written_out() {
        assert_eq!(title("acc5"), "Top-5 accuracy");
        assert_eq!(title("image_retrieval_recall@10"), "Recall@10, text to image");
        assert_eq!(title("text_retrieval_median_rank"), "Median rank, image to text");
        assert_eq!(title("image_retrieval_map@10"), "mAP@10, text to image");
        assert_eq!(title("acc1_dim64"), "Top-1 accuracy, first 64 values");
        assert_eq!(title("my_metric"), "My metric");
        assert_eq!(title(""), "");
    }

    #[test]
    fn fractions_are_percent() {
        assert_eq!(value(kind("acc1"), 0.1234), "12.3 %");
        assert_eq!(value(kind("vendor.acc1"), f64::NAN), "not a number");
        assert_eq!(value(kind("text_retrieval_median_rank"), 3.0), "3");
        assert!(
            kind("image_retrieval_recall@1_dim64").is_fraction
                && kind("image_retrieval_recall@1").is_fraction
                && kind("mean_average_precision").is_fraction
        );
        assert!(!kind("loss").is_fraction && !kind("loss").higher_is_better && !kind("ece").higher_is_better);
        assert_eq!(interval(kind("acc1"), &Figure::with_interval(0.5, 0.4, 0.6)).unwrap(), "40.0 to 60.0 %");
    }

    #[test]
    fn settings_are_no_figures() {
        let of_loss = ["image_acc1", "loss", "num_pairs", "pool_size", "text_acc1"];
        assert_eq!(main_metrics(of_loss.into_iter()), ["loss", "image_acc1", "text_acc1"]);
        for name in ["num_images", "pool_size", "neighbors", "l2", "l2_embeds"] {
            assert!(is_setting(name), "{name}");
        }
        assert!(!is_setting("loss") && !is_setting("acc1_embeds"));
        assert_eq!(setting("num_train_images", 1_200.0), "1,200 train images");
        assert_eq!(setting("l2_embeds", 0.01), "l2, by embeddings: 0.01");
        assert_eq!(
            (title("acc1_embeds"), title("image_acc1")),
            ("Top-1 accuracy, by embeddings".to_owned(), "Top-1 accuracy, image to text".to_owned())
        );
    }

    #[test]
    fn counts_are_no_headlines() {
        assert_eq!(main_metrics(["num_images", "ece", "acc1"].into_iter()), ["acc1"]);
        assert_eq!(main_metrics(["num_images", "loss"].into_iter()), ["loss"]);
    }
}
