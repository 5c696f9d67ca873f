//! The comparison of several runs.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use crate::data::evaluation::Evaluation;
use crate::data::number::Figure;
use crate::data::pages::{ComparedRun, Comparison, PageOptions};
use crate::data::run::Headline;
use crate::page::format::{counted, shortened};
use crate::page::frame::{Frame, Section, absent};
use crate::page::metric_names::{kind, main_metrics, title};
use crate::plot::line_chart::{Line, LineChart, Scale};
use crate::sections::evaluation::{points, shown};
use crate::sections::headline::{headlines, step_name};
use crate::sections::state::{chip, step_of};
use crate::sections::training::compared;

/// The comparison as a whole HTML page. It has no pictures, so `options` change nothing yet.
#[must_use]
pub fn render_comparison(comparison: &Comparison, _options: &PageOptions) -> String {
    let runs = &comparison.runs;
    let sections = if runs.is_empty() {
        vec![Section::new("runs", "Runs", absent("There are no runs to compare."))]
    } else {
        vec![
            Section::new("figures", "Figures", figures(runs)),
            Section::new("config", "What differs", config(runs)),
            Section::new("evaluations", "Evaluations", evaluations(runs)),
            Section::new("training", "Training", training(runs)),
        ]
    };
    let frame = Frame {
        title: if comparison.title.is_empty() { "Comparison of runs" } else { &comparison.title },
        kind: "Comparison",
        lead: html! { p.soft { (counted(runs.len(), "run")) } },
        made_by: &comparison.made_by,
        left_out: None,
    };
    frame.render(&sections)
}

fn head(runs: &[ComparedRun], first: &str) -> Markup {
    html! { thead { tr { th scope="col" { (first) } @for run in runs { th scope="col" { bdi { (run.name) } } } } } }
}

/// Which of some figures is the best, if one is.
fn best_of(figures: &[Option<Figure>], higher_is_better: bool) -> Option<usize> {
    let finite = figures.iter().enumerate().filter_map(|(run, figure)| Some((run, figure.as_ref()?.value)));
    let sign = if higher_is_better { 1.0 } else { -1.0 };
    let mut finite: Vec<(usize, f64)> = finite.filter(|(_, value)| value.is_finite()).collect();
    finite.sort_by(|a, b| (sign * b.1).total_cmp(&(sign * a.1)));
    match finite.as_slice() {
        [(best, value), (_, second), ..] if value != second => Some(*best),
        _ => None,
    }
}

fn overlap(a: &Figure, b: &Figure) -> bool {
    match (a.finite_interval(), b.finite_interval()) {
        (Some([low, high]), Some([other_low, other_high])) => low <= other_high && other_low <= high,
        _ => false,
    }
}

/// The figure of a model that was trained or fitted: a baseline cannot be the best.
fn aligned(headline: &Option<Headline>, run: &ComparedRun) -> Option<Figure> {
    let is_aligned = |headline: &&Headline| headline.step != Some(0) || starts_fitted(run);
    headline.as_ref().filter(is_aligned).map(|headline| headline.figure)
}

fn starts_fitted(run: &ComparedRun) -> bool {
    run.state.as_ref().is_some_and(|state| state.starts_fitted)
}

/// The evaluations that measured one thing in a run and another in the next, so that their figures cannot be compared.
fn incomparable(runs: &[ComparedRun]) -> BTreeSet<&str> {
    let mut measured: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for evaluation in runs.iter().flat_map(|run| &run.evaluations).filter(|found| !found.fingerprint.is_empty()) {
        measured.entry(&evaluation.name).or_default().insert(&evaluation.fingerprint);
    }
    measured.into_iter().filter(|(_, found)| found.len() > 1).map(|(name, _)| name).collect()
}

/// Why some figures are not compared; nothing if all can be.
fn warning(incomparable: &BTreeSet<&str>) -> Markup {
    html! {
        @if !incomparable.is_empty() {
            p.callout.warn {
                "\u{26a0}\u{fe0e} Measured on other data, classes or prompts from run to run, so their figures cannot "
                "be compared: "
                @for (place, name) in incomparable.iter().enumerate() {
                    @if place > 0 { ", " } bdi { (name) }
                }
                "."
            }
        }
    }
}

fn figures(runs: &[ComparedRun]) -> Markup {
    let incomparable = incomparable(runs);
    let of_runs: Vec<Vec<Headline>> =
        runs.iter().map(|run| headlines(&run.headlines, &run.evaluations, None)).collect();
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for headline in of_runs.iter().flatten() {
        let key = (headline.evaluation.as_str(), headline.metric.as_str());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let headline = |run: &Vec<Headline>, key: (&str, &str)| {
        run.iter().find(|headline| (headline.evaluation.as_str(), headline.metric.as_str()) == key).cloned()
    };
    html! {
        div.scroll tabindex="0" role="group" aria-label="Figures of the runs" { table {
            (head(runs, "figure"))
            tbody {
                tr {
                    th scope="row" { "state" }
                    @for run in runs { td {
                        @match &run.state {
                            Some(state) => { (chip(state.status)) span.with { (step_of(state)) } }
                            None => "\u{2013}"
                        }
                    } }
                }
                @for key in &keys {
                    @let found: Vec<Option<Headline>> = of_runs.iter().map(|run| headline(run, *key)).collect();
                    @let row: Vec<Option<Figure>> = found.iter().map(|found| Some(found.as_ref()?.figure)).collect();
                    @let can_compare = !incomparable.contains(key.0);
                    @let aligned: Vec<Option<Figure>> =
                        found.iter().zip(runs).map(|(found, run)| aligned(found, run)).collect();
                    @let best = best_of(&aligned, kind(key.1).higher_is_better).filter(|_| can_compare);
                    @let winner = best.and_then(|best| row[best]);
                    tr {
                        th scope="row" {
                            (title(key.1))
                            @if !key.0.is_empty() { span.with.soft { bdi { (key.0) } } }
                            @if !can_compare { span.badge.bad { "\u{2260} not comparable" } }
                        }
                        @for (run, figure) in row.iter().enumerate() {
                            @let both = winner.zip(aligned[run]);
                            @let is_close = both.is_some_and(|(winner, figure)| overlap(&winner, &figure));
                            td.best[best == Some(run)] {
                                (shown(key.1, figure.as_ref()))
                                @if let Some(step) = found[run].as_ref().and_then(|found| found.step) {
                                    span.with { "at " (step_name(step, starts_fitted(&runs[run]))) }
                                }
                                @if best == Some(run) { span.badge.good { "\u{2605} best" } }
                                @else if is_close { span.badge.soft { "\u{2248} overlaps the best" } }
                            }
                        }
                    }
                }
            }
        } }
        (warning(&incomparable))
        @if keys.is_empty() { (absent("No run has an evaluation yet.")) } @else {
            p.note { "Below a figure: its 95 % interval. Where intervals overlap, the difference may be chance." }
        }
    }
}

fn config(runs: &[ComparedRun]) -> Markup {
    let maps: Vec<BTreeMap<&str, &str>> = runs
        .iter()
        .map(|run| run.config.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect())
        .collect();
    let keys: BTreeSet<&str> = maps.iter().flat_map(|map| map.keys().copied()).collect();
    let differs = |key: &&str| maps.iter().any(|map| map.get(*key) != maps.first().and_then(|first| first.get(*key)));
    let differing: Vec<&str> = keys.iter().copied().filter(differs).collect();
    if differing.is_empty() {
        return absent(if keys.is_empty() { "No config is given." } else { "The configs are equal." });
    }
    html! {
        div.scroll tabindex="0" role="group" aria-label="Keys of the config that differ" { table {
            (head(runs, "key"))
            tbody { @for key in &differing { tr {
                th scope="row" { code { (key) } }
                @for map in &maps {
                    td.words { @match map.get(key) {
                        Some(value) => bdi { (shortened(value, 120)) }
                        None => span.soft { "not set" }
                    } }
                }
            } } }
        } }
        p.note { (counted(keys.len() - differing.len(), "key")) " equal in all runs." }
    }
}

fn evaluations(runs: &[ComparedRun]) -> Markup {
    let names: BTreeSet<&str> =
        runs.iter().flat_map(|run| &run.evaluations).map(|evaluation| evaluation.name.as_str()).collect();
    let mut charts = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let found: Vec<(&ComparedRun, &Evaluation)> = runs
            .iter()
            .filter_map(|run| Some((run, run.evaluations.iter().find(|evaluation| evaluation.name == *name)?)))
            .collect();
        let metrics: BTreeSet<&str> = found
            .iter()
            .flat_map(|(_, evaluation)| &evaluation.points)
            .flat_map(|point| point.metrics.keys().map(String::as_str))
            .collect();
        for (place, metric) in main_metrics(metrics.into_iter()).into_iter().enumerate() {
            let line = |(run, evaluation): &(&ComparedRun, &Evaluation)| Line {
                label: run.name.clone(),
                points: points(evaluation, metric),
                is_reference: false,
            };
            let is_fraction = kind(metric).is_fraction;
            let chart = LineChart {
                id: format!("eval-{number}-{place}"),
                title: format!("{name}: {}", title(metric)),
                value_name: if is_fraction { "share" } else { "value" },
                lines: found.iter().map(line).collect(),
                scale: if is_fraction { Scale::Percent } else { Scale::Linear },
                has_dashes: true,
                is_noisy: false,
            };
            charts.extend(chart.render());
        }
    }
    if charts.is_empty() {
        return absent("No evaluation has run yet.");
    }
    html! {
        (warning(&incomparable(runs)))
        div.charts { @for chart in charts { (chart) } }
    }
}

fn training(runs: &[ComparedRun]) -> Markup {
    let steps: Vec<(String, &[_])> = runs.iter().map(|run| (run.name.clone(), run.steps.as_slice())).collect();
    let charts = compared(&steps);
    if charts.is_empty() {
        return absent("No training step is recorded yet.");
    }
    html! { div.charts { @for chart in charts { (chart) } } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::evaluation::EvalPoint;
    use crate::data::run::{Entry, RunState, Status};

    fn run(name: &str, acc1: f64, config: &[(&str, &str)]) -> ComparedRun {
        ComparedRun {
            name: name.to_owned(),
            headlines: vec![Headline {
                metric: "acc1".to_owned(),
                evaluation: "v".to_owned(),
                figure: Figure::with_interval(acc1, acc1 - 0.02, acc1 + 0.02),
                baseline: None,
                step: None,
            }],
            config: config
                .iter()
                .map(|(key, value)| Entry { key: (*key).to_owned(), value: (*value).to_owned() })
                .collect(),
            ..ComparedRun::default()
        }
    }

    #[test]
    fn best_is_marked_and_close_ones_too() {
        let page = figures(&[run("a", 0.50, &[]), run("b", 0.53, &[]), run("c", 0.2, &[])]).into_string();
        assert_eq!((page.matches("best</span>").count(), page.matches("overlaps the best").count()), (2, 1));
    }

    #[test]
    fn each_figure_has_its_step() {
        let at = |step: u64| {
            let mut run = run("a", 0.5, &[]);
            run.headlines[0].step = Some(step);
            run
        };
        assert!(figures(&[at(1_200), at(700)]).into_string().contains("at step 700"));
        assert_eq!(figures(&[at(700), at(700)]).into_string().matches("at step 700").count(), 2);
    }

    #[test]
    fn baseline_is_named_and_never_the_best() {
        let at = |name: &str, step: u64, acc1: f64| {
            let mut run = run(name, acc1, &[]);
            run.headlines[0].step = Some(step);
            run
        };
        let page = figures(&[at("killed", 0, 0.5), at("a", 9, 0.4), at("b", 9, 0.45)]).into_string();
        assert!(page.contains("at step 0, before training"), "{page}");
        assert_eq!(page.matches("best</span>").count(), 1, "{page}");
        let best = page.find("\u{2605} best").unwrap();
        assert!(page[..best].contains("45.0 %") && page[..best].matches("<td").count() == 6, "{page}");
        let state = RunState { status: Status::Fitted, starts_fitted: true, ..RunState::default() };
        let fitted = ComparedRun { state: Some(state), ..at("fitted", 0, 0.5) };
        let page = figures(&[fitted, at("a", 9, 0.4), at("b", 9, 0.45)]).into_string();
        assert!(page.contains("at step 0, fitted") && !page.contains("before training"), "{page}");
        let best = page.find("\u{2605} best").unwrap();
        assert!(page[..best].ends_with("fitted</span><span class=\"badge good\">"), "{page}");
    }

    #[test]
    fn equal_or_missing_figures_have_no_best() {
        let figure = |value: f64| Some(Figure::new(value));
        assert_eq!(best_of(&[figure(0.5), figure(0.5)], true), None);
        assert_eq!(best_of(&[figure(0.5), None, figure(f64::NAN)], true), None);
        assert_eq!(best_of(&[figure(0.5), figure(0.4)], false), Some(1));
        assert_eq!(best_of(&[], true), None);
    }

    #[test]
    fn figures_of_other_data_have_no_best() {
        let measured = |acc1: f64, fingerprint: &str| {
            let evaluation = Evaluation {
                name: "v".to_owned(),
                fingerprint: fingerprint.to_owned(),
                points: vec![EvalPoint { step: 1, metrics: [("acc1".to_owned(), Figure::new(acc1))].into() }],
                ..Evaluation::default()
            };
            ComparedRun { evaluations: vec![evaluation], ..run("a", acc1, &[]) }
        };
        let pages = |second: &str| {
            let runs = [measured(0.5, "1f"), measured(0.51, second)];
            [figures(&runs).into_string(), evaluations(&runs).into_string()]
        };
        for page in pages("2e") {
            assert!(page.contains("cannot be compared: <bdi>v</bdi>."), "{page}");
            assert!(!page.contains("best</span>") && !page.contains("overlaps"), "{page}");
        }
        // Lines of older versions do not say what they measured.
        for fingerprint in ["1f", ""] {
            let [figures, evaluations] = pages(fingerprint);
            assert!(figures.contains("best</span>") && !(figures + &evaluations).contains("cannot be compared"));
        }
    }

    #[test]
    fn only_differing_keys_are_shown() {
        let page = config(&[
            run("a", 0.5, &[("lr", "1"), ("seed", "0")]),
            run("b", 0.5, &[("lr", "2"), ("seed", "0"), ("<x>", "1")]),
        ])
        .into_string();
        assert!(
            page.contains("lr") && page.contains("not set") && page.contains("&lt;x&gt;") && !page.contains("seed")
        );
        assert!(page.contains("1 key equal in all runs."));
        assert!(config(&[run("a", 0.5, &[("lr", "1")])]).into_string().contains("configs are equal"));
    }
}
