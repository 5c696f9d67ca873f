//! Figures shown large.

use maud::{Markup, html};

use crate::data::evaluation::Evaluation;
use crate::data::number::Figure;
use crate::data::run::Headline;
use crate::page::format::{count, fixed, significant};
use crate::page::metric_names::{MetricKind, interval, kind, main_metrics, title, value};

/// The headlines given, or else the main metrics of each evaluation at `step`, or at its last one.
pub(crate) fn headlines(given: &[Headline], evaluations: &[Evaluation], step: Option<u64>) -> Vec<Headline> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let of = |evaluation: &Evaluation| {
        let shown = evaluation.point_at(step)?;
        let start = evaluation.points.iter().find(|point| point.step == 0 && shown.step != 0);
        let headline = |metric: &str| Headline {
            metric: metric.to_owned(),
            evaluation: evaluation.name.clone(),
            figure: shown.metrics.get(metric).copied().unwrap_or(Figure::new(f64::NAN)),
            baseline: start.and_then(|point| point.metrics.get(metric).copied()),
            step: Some(shown.step),
        };
        Some(main_metrics(shown.metrics.keys().map(String::as_str)).into_iter().map(headline).collect::<Vec<_>>())
    };
    evaluations.iter().filter_map(of).flatten().collect()
}

/// The cards of some headlines. `starts_fitted`: whether the heads were fitted before the first step.
pub(crate) fn cards(headlines: &[Headline], starts_fitted: bool) -> Markup {
    html! { ul.cards { @for headline in headlines { li.card { (card(headline, starts_fitted)) } } } }
}

fn card(headline: &Headline, starts_fitted: bool) -> Markup {
    let kind = kind(&headline.metric);
    let step = headline.step.map(|step| step_name(step, starts_fitted));
    let evaluation = Some(headline.evaluation.clone()).filter(|name| !name.is_empty());
    let from = evaluation.into_iter().chain(step).collect::<Vec<_>>().join(", ");
    let figure = &headline.figure;
    html! {
        p.name { (title(&headline.metric)) }
        p.from { bdi { (from) } }
        p.value.odd[!figure.value.is_finite()] { (value(kind, figure.value)) }
        @if kind.is_fraction { (range(headline)) }
        @if let Some(interval) = interval(kind, figure) { p.more { "95 % interval: " (interval) } }
        @if let Some(baseline) = &headline.baseline { p.more { (change(kind, figure, baseline)) } }
    }
}

/// A step as it stands beside a figure.
pub(crate) fn step_name(step: u64, starts_fitted: bool) -> String {
    match step {
        0 if starts_fitted => "step 0, fitted".to_owned(),
        0 => "step 0, before training".to_owned(),
        step => format!("step {}", count(step)),
    }
}

/// The difference to step 0 in words.
fn change(kind: MetricKind, figure: &Figure, baseline: &Figure) -> Markup {
    let start = value(kind, baseline.value);
    let difference = figure.value - baseline.value;
    if !difference.is_finite() {
        return html! { "at step 0: " (start) };
    }
    if difference == 0.0 {
        return html! { "equal to step 0 " span.whole { "(" (start) ")" } };
    }
    let amount = if kind.is_fraction {
        // Less would read as no difference.
        let points = (100.0 * difference.abs()).max(0.1);
        let least = if points > 100.0 * difference.abs() { "less than " } else { "" };
        format!("{least}{} points", fixed(points, 1))
    } else {
        significant(difference.abs(), 3)
    };
    let word = if difference < 0.0 { "below" } else { "above" };
    let is_better = (difference > 0.0) == kind.higher_is_better;
    let (class, verdict) = if is_better { ("change good", "") } else { ("change bad", ", worse") };
    html! { span class=(class) { (amount) } " " (word) " step 0 " span.whole { "(" (start) ")" } (verdict) }
}

/// The figure, its interval and the baseline on a line from 0 to 100 %.
fn range(headline: &Headline) -> Markup {
    let x = |value: f64| format!("{:.1}%", 2.5 + 95.0 * value.clamp(0.0, 1.0));
    let width = |low: f64, high: f64| format!("{:.1}%", (95.0 * (high.clamp(0.0, 1.0) - low.clamp(0.0, 1.0))).max(0.5));
    let baseline = headline.baseline.map(|figure| figure.value).filter(|value| value.is_finite());
    html! {
        svg.range aria-hidden="true" {
            line.track x1="2.5%" x2="97.5%" y1="10" y2="10" {}
            @if let Some([low, high]) = headline.figure.finite_interval() {
                rect.band x=(x(low)) y="5" width=(width(low, high)) height="10" rx="2" {}
            }
            @if let Some(baseline) = baseline { circle.base cx=(x(baseline)) cy="10" r="4" {} }
            @if headline.figure.value.is_finite() { circle.now cx=(x(headline.figure.value)) cy="10" r="5" {} }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::evaluation::EvalPoint;

    fn point(step: u64, acc1: f64) -> EvalPoint {
        EvalPoint { step, metrics: [("acc1".to_owned(), Figure::new(acc1))].into() }
    }

    #[test]
    fn last_step_stands_against_step_zero() {
        let evaluation =
            Evaluation { name: "v".to_owned(), points: vec![point(0, 0.01), point(9, 0.5)], ..Default::default() };
        let found = headlines(&[], &[evaluation, Evaluation::default()], None);
        assert_eq!((found.len(), found[0].step, found[0].baseline), (1, Some(9), Some(Figure::new(0.01))));
        let page = cards(&found, false).into_string();
        assert!(page.contains("50.0 %") && page.contains("49.0 points") && page.contains("(1.0 %)"));
    }

    #[test]
    fn chosen_step_stands_for_the_last() {
        let points = vec![point(0, 0.01), point(5, 0.7), point(9, 0.5)];
        let evaluation = Evaluation { name: "v".to_owned(), points, ..Default::default() };
        let found = headlines(&[], std::slice::from_ref(&evaluation), Some(5));
        assert_eq!(
            (found[0].step, found[0].figure, found[0].baseline),
            (Some(5), Figure::new(0.7), Some(Figure::new(0.01)))
        );
        assert_eq!(headlines(&[], &[evaluation], Some(6)), [], "no figure stands for that of another step");
    }

    #[test]
    fn only_step_zero_has_no_baseline() {
        let evaluation = Evaluation { points: vec![point(0, 0.5)], ..Default::default() };
        assert_eq!(headlines(&[], &[evaluation], None)[0].baseline, None);
    }

    #[test]
    fn lower_loss_is_no_loss() {
        let headline = |value| Headline {
            metric: "loss".to_owned(),
            evaluation: String::new(),
            figure: Figure::new(value),
            baseline: Some(Figure::new(3.0)),
            step: None,
        };
        assert!(cards(&[headline(2.0)], false).into_string().contains("change good"));
        assert!(cards(&[headline(4.0)], false).into_string().contains("worse"));
    }

    #[test]
    fn small_differences_are_not_zero() {
        let shown = |value| {
            let headline = Headline {
                metric: "acc1".to_owned(),
                evaluation: String::new(),
                figure: Figure::new(value),
                baseline: Some(Figure::new(0.5)),
                step: None,
            };
            cards(&[headline], false).into_string()
        };
        assert!(shown(0.5).contains("equal to step 0") && !shown(0.5).contains("above"));
        assert!(shown(0.5001).contains(">less than 0.1 points</span> above step 0"), "{}", shown(0.5001));
        assert!(shown(0.6).contains(">10.0 points</span> above step 0"));
        assert!(shown(0.3).contains(">20.0 points</span> below step 0"), "no sign says it a second time");
    }

    #[test]
    fn not_a_number_is_said() {
        let headline = Headline {
            metric: "acc1".to_owned(),
            evaluation: "<v>".to_owned(),
            figure: Figure::with_interval(f64::NAN, f64::NAN, 1.0),
            baseline: Some(Figure::new(0.2)),
            step: None,
        };
        let page = cards(&[headline], false).into_string();
        assert!(page.contains("not a number") && !page.contains("NaN") && page.contains("&lt;v&gt;"));
    }
}
