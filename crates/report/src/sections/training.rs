//! Curves of the training steps.

use std::collections::BTreeSet;

use maud::{Markup, html};

use crate::data::run::TrainStep;
use crate::page::frame::absent;
use crate::plot::line_chart::{Line, LineChart, Point, Scale};

/// The values of a training step that a chart shows.
type Values = fn(&TrainStep) -> f64;

/// A chart of the training steps: its id, title, the name of its values, how they are scaled, and its lines.
struct Curve {
    id: &'static str,
    title: &'static str,
    value_name: &'static str,
    scale: Scale,
    /// Label, values, and whether the line is a reference.
    lines: &'static [(&'static str, Values, bool)],
}

const CURVES: [Curve; 7] = [
    Curve {
        id: "loss",
        title: "Loss",
        value_name: "loss (nats)",
        scale: Scale::Linear,
        lines: &[("loss", |step| step.loss, false), ("chance", |step| step.chance_loss, true)],
    },
    Curve {
        id: "learning-rate",
        title: "Learning rate",
        value_name: "learning rate",
        scale: Scale::Linear,
        lines: &[("default", |step| step.learning_rate, false)],
    },
    Curve {
        id: "logit-scale",
        title: "Logit scale",
        value_name: "factor of the cosines",
        scale: Scale::Linear,
        lines: &[("logit scale", |step| step.logit_scale, false)],
    },
    Curve {
        id: "grad-norm",
        title: "Gradient norm",
        value_name: "L2 norm before clipping",
        scale: Scale::Wide,
        lines: &[("all", |step| step.grad_norm, false)],
    },
    Curve {
        id: "spread",
        title: "Spread of the embeddings",
        value_name: "1 \u{2212} mean cosine of two",
        scale: Scale::Linear,
        lines: &[("images", |step| step.image_spread, false), ("texts", |step| step.text_spread, false)],
    },
    Curve {
        id: "throughput",
        title: "Throughput",
        value_name: "pairs per second",
        scale: Scale::Linear,
        lines: &[("throughput", |step| step.pairs_per_sec, false)],
    },
    Curve {
        id: "waiting",
        title: "Waiting for the loader",
        value_name: "share of a step\u{2019}s time",
        scale: Scale::Percent,
        lines: &[("waiting", |step| step.loader_wait, false)],
    },
];

/// All curves of a run, and which were not recorded.
pub(crate) fn curves(steps: &[TrainStep]) -> Markup {
    if steps.is_empty() {
        return absent("No training step is recorded yet.");
    }
    let mut charts = Vec::new();
    let mut not_recorded = Vec::new();
    for curve in &CURVES {
        let mut lines: Vec<Line> = curve.lines.iter().map(|line| line_of(line.0, steps, line.1, line.2)).collect();
        match curve.id {
            "learning-rate" => lines.extend(named(steps, |step| &step.learning_rates)),
            "grad-norm" => lines.extend(named(steps, |step| &step.grad_norms)),
            _ => {}
        }
        lines.retain(|line| !line.points.is_empty());
        match chart(curve, lines, false).render() {
            Some(markup) => charts.push(markup),
            None => not_recorded.push(curve.title.to_lowercase()),
        }
    }
    html! {
        div.charts { @for chart in charts { (chart) } }
        @if !not_recorded.is_empty() { (absent(&format!("Not recorded: {}.", not_recorded.join(", ")))) }
    }
}

/// The same curves, each with the lines of several runs.
pub(crate) fn compared(runs: &[(String, &[TrainStep])]) -> Vec<Markup> {
    let with_runs = |curve: &Curve| {
        let (_, values, _) = curve.lines.first()?;
        let line = |(name, steps): &(String, &[TrainStep])| line_of(name, steps, *values, false);
        let lines: Vec<Line> = runs.iter().map(line).filter(|line| !line.points.is_empty()).collect();
        chart(curve, lines, true).render()
    };
    CURVES.iter().filter(|curve| curve.id != "spread").filter_map(with_runs).collect()
}

fn chart(curve: &Curve, lines: Vec<Line>, has_dashes: bool) -> LineChart<'static> {
    LineChart {
        id: curve.id.to_owned(),
        title: curve.title.to_owned(),
        value_name: curve.value_name,
        lines,
        scale: curve.scale,
        has_dashes,
        is_noisy: !matches!(curve.id, "learning-rate" | "logit-scale"),
    }
}

/// A line; without points if no step has a value. NaN within a line stays, so that it is seen.
fn line_of(label: &str, steps: &[TrainStep], values: Values, is_reference: bool) -> Line {
    let mut points: Vec<Point> = steps.iter().map(|step| Point::new(step.step, values(step))).collect();
    if points.iter().all(|point| point.value.is_nan()) {
        points.clear();
    }
    Line { label: label.to_owned(), points, is_reference }
}

/// The lines of a map of values by name. A step without a name has no point in its line.
fn named<'a>(
    steps: &'a [TrainStep],
    values: impl Fn(&'a TrainStep) -> &'a std::collections::BTreeMap<String, f64>,
) -> Vec<Line> {
    let names: BTreeSet<&String> = steps.iter().flat_map(|step| values(step).keys()).collect();
    let line = |name: &String| {
        let points = steps.iter().filter_map(|step| Some(Point::new(step.step, *values(step).get(name)?))).collect();
        Line { label: name.replace('_', " "), points, is_reference: false }
    };
    names.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_curves_are_named() {
        let steps: Vec<TrainStep> = (1..9).map(|step| TrainStep { loss: 1.0, ..TrainStep::new(step) }).collect();
        let page = curves(&steps).into_string();
        assert!(page.contains("id=\"loss\"") && page.contains("Not recorded: learning rate, logit scale"));
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn no_steps_are_said() {
        assert!(curves(&[]).into_string().contains("No training step"));
        assert!(curves(&[TrainStep::new(1)]).into_string().contains("Not recorded: loss"));
    }

    #[test]
    fn parts_have_lines_of_their_own() {
        let steps: Vec<TrainStep> = (1..9)
            .map(|step| TrainStep { grad_norms: [("text_tower".to_owned(), 2.0)].into(), ..TrainStep::new(step) })
            .collect();
        assert!(curves(&steps).into_string().contains("text tower"));
    }

    #[test]
    fn value_that_is_lost_on_the_way_is_said() {
        let mut steps: Vec<TrainStep> = (1..9).map(|step| TrainStep { loss: 1.0, ..TrainStep::new(step) }).collect();
        steps[4].loss = f64::NAN;
        assert!(curves(&steps).into_string().contains("first at step 5"));
    }
}
