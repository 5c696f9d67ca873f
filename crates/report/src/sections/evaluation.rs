//! The results of an evaluation over time.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use crate::data::evaluation::{EvalPoint, Evaluation};
use crate::data::number::Figure;
use crate::data::run::BestCheckpoint;
use crate::page::format::count;
use crate::page::frame::absent;
use crate::page::metric_names::{interval, is_setting, kind, setting, title, value};
use crate::plot::line_chart::{Line, LineChart, Point, Scale};

/// Charts of one evaluation at most: those of retrieval, with some to spare. The table has all metrics.
const MOST_CHARTS: usize = 12;

/// What a report is about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Subject<'a> {
    /// Step of the figures to show; `None`: the last.
    pub step: Option<u64>,
    /// The best checkpoint.
    pub best: Option<&'a BestCheckpoint>,
    /// Whether the heads were fitted before the first step.
    pub starts_fitted: bool,
}

/// Charts and a table of all metrics. `id` starts the ids of the charts.
pub(crate) fn over_time(id: &str, evaluation: &Evaluation, subject: Subject<'_>) -> Markup {
    let Some(last) = evaluation.points.last() else {
        return absent("This evaluation has not run yet.");
    };
    let shown_step = subject.step.unwrap_or(last.step);
    let names: BTreeSet<&str> =
        evaluation.points.iter().flat_map(|point| point.metrics.keys()).map(String::as_str).collect();
    let mut charts = if evaluation.points.len() > 1 { charts(id, evaluation, &names) } else { Vec::new() };
    let left_out: Vec<String> = charts.split_off(charts.len().min(MOST_CHARTS)).into_iter().map(|it| it.0).collect();
    let settings = last.metrics.iter().filter(|(name, _)| is_setting(name));
    let settings: Vec<String> = settings.map(|(name, figure)| setting(name, figure.value)).collect();
    html! {
        @if !settings.is_empty() { p.soft { (settings.join(", ")) } }
        @if !charts.is_empty() { div.charts { @for (_, chart) in charts { (chart) } } }
        @if !left_out.is_empty() { p.note { "Only in the table: " (left_out.join("; ")) "." } }
        h3 { "All figures" }
        (table(evaluation, &names, shown_step, subject))
    }
}

/// Metrics that share a chart: fractions of one direction or task. Others have a chart of their own.
fn group_of(name: &str) -> Option<(String, String)> {
    if is_setting(name) {
        return None;
    }
    let is_main = name.contains("recall") || name.starts_with("acc") || name.ends_with("_acc1");
    let direction = [("image_retrieval", "Text to image"), ("text_retrieval", "Image to text")];
    let direction = direction.into_iter().find(|(prefix, _)| name.starts_with(prefix));
    Some(match direction {
        Some((prefix, way)) if is_main => (format!("0-{prefix}"), format!("{way}: recall")),
        _ if is_main => ("0-accuracy".to_owned(), "Accuracy and recall".to_owned()),
        _ => (format!("1-{name}"), title(name)),
    })
}

/// The charts, each after its title.
fn charts(id: &str, evaluation: &Evaluation, names: &BTreeSet<&str>) -> Vec<(String, Markup)> {
    let mut groups: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for name in names {
        if let Some(group) = group_of(name) {
            groups.entry(group).or_default().push(name);
        }
    }
    let chart = |(number, ((_, group_title), names)): (usize, (&(String, String), &Vec<&str>))| {
        let kind = kind(names.first()?);
        let line = |name: &&str| Line { label: label(name), points: points(evaluation, name), is_reference: false };
        let mut names = names.clone();
        sort_metrics(&mut names);
        let chart = LineChart {
            id: format!("{id}-c{number}"),
            title: group_title.clone(),
            value_name: match names.first() {
                _ if kind.is_fraction => "share",
                Some(name) if name.ends_with("rank") => "rank",
                _ => "value",
            },
            lines: names.iter().map(line).collect(),
            scale: if kind.is_fraction { Scale::Percent } else { Scale::Linear },
            has_dashes: false,
            is_noisy: false,
        };
        Some((group_title.clone(), chart.render()?))
    };
    groups.iter().enumerate().filter_map(chart).collect()
}

/// By name, and by the number at the end: `recall@10` comes after `recall@5`.
fn sort_metrics(names: &mut [&str]) {
    let key = |name: &&str| {
        let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
        (stem.to_owned(), name[stem.len()..].parse().unwrap_or(0_u64))
    };
    names.sort_by_key(key);
}

/// The name of a metric within its chart.
fn label(name: &str) -> String {
    let short = name.strip_prefix("image_retrieval_").or_else(|| name.strip_prefix("text_retrieval_"));
    title(short.unwrap_or(name))
}

/// The values of a metric over time.
pub(crate) fn points(evaluation: &Evaluation, name: &str) -> Vec<Point> {
    let point = |point: &EvalPoint| {
        let figure = point.metrics.get(name)?;
        Some(Point { step: point.step, value: figure.value, interval: figure.finite_interval() })
    };
    evaluation.points.iter().filter_map(point).collect()
}

fn table(evaluation: &Evaluation, names: &BTreeSet<&str>, step: u64, subject: Subject<'_>) -> Markup {
    let first = evaluation.points.iter().find(|point| point.step == 0);
    let chosen = evaluation.point_at(Some(step));
    let has_course = evaluation.points.len() > 1;
    let mut names: Vec<&str> = names.iter().copied().filter(|name| !is_setting(name)).collect();
    sort_metrics(&mut names);
    html! {
        div.scroll tabindex="0" role="group" aria-label=(format!("Figures of {}", evaluation.name)) {
            table {
                thead { tr {
                    th scope="col" { "metric" }
                    @if first.is_some() && has_course { th scope="col" { "step 0" } }
                    th scope="col" { "step " (count(step)) }
                    @if has_course { th scope="col" { "best" } }
                } }
                tbody { @for name in &names { tr {
                    th scope="row" { (title(name)) }
                    @if let Some(first) = first.filter(|_| has_course) {
                        td { (shown(name, first.metrics.get(*name))) }
                    }
                    td { (shown(name, chosen.and_then(|point| point.metrics.get(*name)))) }
                    @if has_course { td { (best(evaluation, name, subject)) } }
                } } }
            }
        }
    }
}

/// A figure with its interval below.
pub(crate) fn shown(name: &str, figure: Option<&Figure>) -> Markup {
    let kind = kind(name);
    html! {
        @if let Some(figure) = figure {
            (value(kind, figure.value))
            @if let Some(interval) = interval(kind, figure) { span.with { (interval) } }
        } @else { "\u{2013}" }
    }
}

/// The best figure of an aligned model: at step 0, one that guesses is well calibrated. Gains within
/// `checkpoint.min_delta` make no better checkpoint, so that it may be of another step.
fn best(evaluation: &Evaluation, name: &str, subject: Subject<'_>) -> Markup {
    let checkpoint = subject.best.filter(|found| found.metric == format!("{}.{name}", evaluation.name));
    let kind = kind(name);
    let is_aligned = |point: &Point| point.step > 0 || subject.starts_fitted;
    let finite = points(evaluation, name).into_iter().filter(|point| is_aligned(point) && point.value.is_finite());
    let better = |a: &Point, b: &Point| {
        let order = a.value.total_cmp(&b.value);
        // Of equal values, the earliest is the best.
        if kind.higher_is_better { order } else { order.reverse() }.then(b.step.cmp(&a.step))
    };
    html! {
        @match finite.max_by(better) {
            Some(best) => {
                (value(kind, best.value)) span.with { "step " (count(best.step)) }
                @if let Some(found) = checkpoint.filter(|found| found.step != best.step) {
                    span.with {
                        "best checkpoint: step " (count(found.step))
                        @if let Some(number) = found.value { ", " (value(kind, number)) }
                    }
                }
            }
            None => "\u{2013}"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(values: &[(u64, f64)]) -> Evaluation {
        let point = |&(step, value): &(u64, f64)| EvalPoint {
            step,
            metrics: [("acc1", value), ("ece", 1.0 - value), ("num_images", 5.0)]
                .map(|(name, value)| (name.to_owned(), Figure::new(value)))
                .into(),
        };
        Evaluation { name: "v".to_owned(), points: values.iter().map(point).collect(), ..Evaluation::default() }
    }

    #[test]
    fn best_is_by_the_sense_of_the_metric() {
        let found = evaluation(&[(0, 0.9), (5, 0.7), (9, f64::NAN), (12, 0.6)]);
        let shown = |found: &Evaluation, name: &str, starts_fitted: bool| {
            best(found, name, Subject { starts_fitted, ..Subject::default() })
        };
        assert!(shown(&found, "acc1", false).into_string().starts_with("70.0 %"), "step 0 is not trained");
        assert!(shown(&found, "acc1", true).into_string().starts_with("90.0 %"), "but it is fitted");
        assert!(shown(&found, "ece", false).into_string().starts_with("30.0 %"));
        assert_eq!(shown(&evaluation(&[(3, f64::NAN)]), "acc1", false).into_string(), "\u{2013}");
    }

    #[test]
    fn table_and_best_checkpoint_agree() {
        let found = evaluation(&[(0, 0.1), (5, 0.7), (9, 0.701)]);
        let page = |step: u64, metric: &str| {
            let checkpoint = BestCheckpoint { step, metric: metric.to_owned(), value: Some(0.7), ..Default::default() };
            best(&found, "acc1", Subject { best: Some(&checkpoint), ..Subject::default() }).into_string()
        };
        assert!(page(5, "v.acc1").contains("best checkpoint: step 5, 70.0 %"), "{}", page(5, "v.acc1"));
        assert!(!page(9, "v.acc1").contains("checkpoint") && !page(5, "w.acc1").contains("checkpoint"));
    }

    #[test]
    fn metrics_without_a_chart_are_named() {
        let ways = ["image_retrieval_", "text_retrieval_"];
        let kinds = ["recall@1", "recall@5", "map@10", "median_rank", "mrr"];
        let names = |more: usize| {
            let retrieval = ways.iter().flat_map(|way| kinds.iter().map(move |kind| format!("{way}{kind}")));
            retrieval.chain((0..more).map(|number| format!("other_{number}"))).collect::<Vec<_>>()
        };
        let page = |more: usize| {
            let metrics = || names(more).into_iter().map(|name| (name, Figure::new(0.5))).collect();
            let points = [0, 5].map(|step| EvalPoint { step, metrics: metrics() }).to_vec();
            over_time("e0", &Evaluation { points, ..Evaluation::default() }, Subject::default()).into_string()
        };
        let retrieval = page(0);
        assert_eq!((retrieval.matches("<figure").count(), retrieval.contains("Only in the table")), (8, false));
        let many = page(9);
        assert_eq!(many.matches("<figure").count(), MOST_CHARTS);
        assert!(many.contains("Only in the table: ") && many.contains("; MRR, image to text"), "{many}");
    }

    #[test]
    fn settings_are_not_compared() {
        let point = |step| EvalPoint {
            step,
            metrics: [("loss", 2.0), ("pool_size", 8.0)]
                .map(|(name, value)| (name.to_owned(), Figure::new(value)))
                .into(),
        };
        let page = over_time(
            "e0",
            &Evaluation { points: vec![point(0), point(5)], ..Evaluation::default() },
            Subject::default(),
        );
        let page = page.into_string();
        assert!(page.contains("pool size: 8") && !page.contains("Pool size"), "{page}");
    }

    #[test]
    fn numbers_in_names_count() {
        let mut names = ["r@10", "r@5", "a", "acc10", "acc5"];
        sort_metrics(&mut names);
        assert_eq!(names, ["a", "acc5", "acc10", "r@5", "r@10"]);
    }

    #[test]
    fn chosen_step_fills_the_table() {
        let found = evaluation(&[(0, 0.1), (5, 0.7), (9, 0.6)]);
        let page = over_time("e0", &found, Subject { step: Some(5), ..Subject::default() }).into_string();
        assert!(page.contains("<th scope=\"col\">step 5</th>") && !page.contains("<td>60.0 %"), "{page}");
        let page = over_time("e0", &found, Subject { step: Some(6), ..Subject::default() }).into_string();
        assert!(page.contains("<th scope=\"col\">step 6</th>") && !page.contains("<td>60.0 %"), "{page}");
    }

    #[test]
    fn one_point_has_a_table_and_no_chart() {
        let page = over_time("e0", &evaluation(&[(0, 0.1)]), Subject::default()).into_string();
        assert!(page.contains("5 images") && page.contains("Top-1 accuracy") && !page.contains("<figure"));
        assert!(
            over_time("e0", &evaluation(&[(0, 0.1), (3, 0.2)]), Subject::default()).into_string().contains("<figure")
        );
        assert!(over_time("e0", &Evaluation::default(), Subject::default()).into_string().contains("has not run yet"));
    }
}
