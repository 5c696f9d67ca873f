//! The report on one run.

use maud::{Markup, html};

use crate::data::evaluation::Evaluation;
use crate::data::pages::{PageOptions, Report};
use crate::data::run::ParameterGroup;
use crate::page::format::{count, significant};
use crate::page::frame::{Frame, Section, absent};
use crate::page::pictures::Pictures;
use crate::page::tables::key_values;
use crate::sections::classification::classes;
use crate::sections::embeddings::embeddings;
use crate::sections::evaluation::{Subject, over_time};
use crate::sections::headline::{cards, headlines};
use crate::sections::pairs::pairs;
use crate::sections::problems::{problems, summary};
use crate::sections::retrieval::examples;
use crate::sections::state::{best, lead};
use crate::sections::training::curves;

/// Bytes of a config that are shown.
const CONFIG_BYTES: usize = 200_000;

/// Bytes from which on pictures give way: 5 MB, less what is written in their place.
const MOST_BYTES: usize = 4_900_000;

/// Rows of the table of an evaluation's classes; fewer where many evaluations with many classes make a large page.
const MOST_ROWS: [usize; 3] = [2_000, 500, 100];

/// The report as a whole HTML page, below 5 MB: rows of classes beyond a limit and pictures give way to what else
/// there is.
#[must_use]
pub fn render_report(report: &Report, options: &PageOptions) -> String {
    let [most, fewer @ ..] = MOST_ROWS;
    let mut rows = most;
    let (mut page, mut used) = render(report, options.picture_bytes, rows);
    for fewer in fewer {
        if page.len() - used > MOST_BYTES {
            rows = fewer;
            (page, used) = render(report, options.picture_bytes, rows);
        }
    }
    match page.len().checked_sub(MOST_BYTES) {
        None => page,
        Some(beyond) => render(report, used.saturating_sub(beyond), rows).0,
    }
}

/// The page, and the bytes that its pictures take.
fn render(report: &Report, picture_bytes: usize, most_rows: usize) -> (String, usize) {
    let mut pictures = Pictures::new(picture_bytes);
    let mut sections = vec![Section::new("overview", "Overview", overview(report))];
    let subject = Subject { step: report.shown_step, best: report.best.as_ref(), starts_fitted: starts_fitted(report) };
    for (number, evaluation) in report.evaluations.iter().enumerate() {
        let id = format!("eval-{number}");
        let title = if evaluation.name.is_empty() {
            "Evaluation".to_owned()
        } else {
            format!("Evaluation: {}", evaluation.name)
        };
        let body = html! {
            (evaluated((&id, subject), evaluation, most_rows, &mut pictures))
            @if let Some(why) = reason(report, &format!("eval.{}", evaluation.name)) { (absent(why)) }
        };
        sections.push(Section::new(&id, &title, body));
    }
    sections.push(Section::new("training", "Training", curves(&report.steps)));
    let without = |part: &str| reason(report, part).map(absent);
    if let Some(body) = embeddings(report).or_else(|| without("embeddings")) {
        sections.push(Section::new("embeddings", "Embeddings", body));
    }
    if let Some(found) = report.pairs.as_ref().filter(|found| !found.worst.is_empty() || !found.best.is_empty()) {
        sections.push(Section::new("pairs", "Training pairs", pairs(found, &mut pictures)));
    } else if let Some(body) = without("pairs") {
        sections.push(Section::new("pairs", "Training pairs", body));
    }
    if !report.data.is_empty() {
        sections.push(Section::new("data", "Data", key_values(&report.data)));
    } else if let Some(body) = without("data") {
        sections.push(Section::new("data", "Data", body));
    }
    if !report.parameters.is_empty() {
        sections.push(Section::new("model", "Model", parameters(&report.parameters)));
    } else if let Some(body) = without("model") {
        sections.push(Section::new("model", "Model", body));
    }
    if !report.config.is_empty() || report.config_text.is_some() {
        sections.push(Section::new("config", "Config", config(report)));
    }
    sections.push(Section::new("warnings", "Warnings", problems(&report.warnings, &report.bad_samples)));
    let title = [report.title.as_str(), report.run_dir.as_str(), "Training run"];
    let frame = Frame {
        title: title.into_iter().find(|title| !title.is_empty()).unwrap_or("Training run"),
        kind: "Training report",
        lead: lead(report.state.as_ref(), &report.run_dir),
        made_by: &report.made_by,
        left_out: pictures.left_out(),
    };
    (frame.render(&sections), pictures.used())
}

fn starts_fitted(report: &Report) -> bool {
    report.state.as_ref().is_some_and(|state| state.starts_fitted)
}

/// Why a part is missing, if that is known.
fn reason<'a>(report: &'a Report, part: &str) -> Option<&'a str> {
    report.absent.iter().find(|entry| entry.key == part).map(|entry| entry.value.as_str())
}

fn overview(report: &Report) -> Markup {
    let headlines = headlines(&report.headlines, &report.evaluations, report.shown_step);
    html! {
        @if headlines.is_empty() {
            @if report.evaluations.is_empty() { (absent("The run has no evaluation.")) }
            @else if let Some(step) = report.shown_step {
                (absent(&format!("No evaluation has run at step {}.", count(step))))
            }
            @else { (absent("No evaluation has run yet.")) }
        } @else {
            (cards(&headlines, starts_fitted(report)))
        }
        @if let Some(step) = report.shown_step { (chosen(step, report)) }
        @if let Some(found) = &report.best { (best(found)) }
        @if let Some(found) = summary(&report.warnings, &report.bad_samples) {
            p.callout.warn { "\u{26a0}\u{fe0e} " (found) ": " a href="#warnings" { "see the warnings" } "." }
        }
    }
}

/// Which step the page is about, and that it is not the last.
fn chosen(step: u64, report: &Report) -> Markup {
    let last = report.state.as_ref().map(|state| state.step).filter(|last| *last != step);
    let without: Vec<&str> = report
        .evaluations
        .iter()
        .filter(|evaluation| !evaluation.points.is_empty() && evaluation.point_at(Some(step)).is_none())
        .map(|evaluation| evaluation.name.as_str())
        .collect();
    html! {
        p.callout {
            "This page is about the model of step " strong { (count(step)) }
            ": figures, answers and embeddings are its own."
            @if let Some(last) = last { " The run is at step " (count(last)) "." }
            @if !without.is_empty() { " Without a figure at this step: " bdi { (without.join(", ")) } "." }
        }
    }
}

fn evaluated(
    (id, subject): (&str, Subject<'_>),
    evaluation: &Evaluation,
    most_rows: usize,
    pictures: &mut Pictures,
) -> Markup {
    html! {
        @if !evaluation.task.is_empty() { p.soft { "Task: " (evaluation.task) } }
        (over_time(id, evaluation, subject))
        @if let Some(found) = &evaluation.classification { (classes(id, found, most_rows)) }
        @if let Some(found) = &evaluation.retrieval { (examples(found, pictures)) }
    }
}

fn parameters(groups: &[ParameterGroup]) -> Markup {
    let sum = |value: fn(&ParameterGroup) -> u64| groups.iter().map(value).fold(0, u64::saturating_add);
    let total = ParameterGroup {
        part: "all".to_owned(),
        tensors: sum(|group| group.tensors),
        parameters: sum(|group| group.parameters),
        trained: sum(|group| group.trained),
    };
    let row = |group: &ParameterGroup| {
        let state = match group.trained {
            0 => "locked",
            trained if trained >= group.parameters => "trained",
            _ => "partly trained",
        };
        html! { tr {
            th scope="row" { (group.part) }
            td { (count(group.tensors)) }
            td { (count(group.parameters)) }
            td { (count(group.trained)) }
            td { (state) }
        } }
    };
    html! {
        div.scroll tabindex="0" role="group" aria-label="Parameters" { table {
            thead { tr { th scope="col" { "part" } th scope="col" { "tensors" } th scope="col" { "parameters" }
                th scope="col" { "trained" } th scope="col" { "state" } } }
            tbody { @for group in groups { (row(group)) } }
            tfoot { (row(&total)) }
        } }
        @if total.parameters > 0 {
            @let share = 100.0 * total.trained as f64 / total.parameters as f64;
            p.note { (significant(share, 3)) " % of the parameters are trained." }
        }
    }
}

fn config(report: &Report) -> Markup {
    html! {
        @if !report.config.is_empty() { (key_values(&report.config)) }
        @if let Some(text) = &report.config_text {
            @let end = text.floor_char_boundary(CONFIG_BYTES);
            details {
                summary { "The whole config" }
                pre tabindex="0" { code { (text[..end]) } }
                @if end < text.len() { p.note { (count((text.len() - end) as u64)) " more bytes left out." } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::evaluation::EvalPoint;
    use crate::data::number::Figure;
    use crate::data::run::{Entry, RunState};

    #[test]
    fn locked_parts_are_named() {
        let group = |part: &str, trained| ParameterGroup { part: part.to_owned(), tensors: 2, parameters: 10, trained };
        let page = parameters(&[group("image_tower", 0), group("text_tower", 10), group("x", 3)]).into_string();
        assert!(page.contains("locked") && page.contains("partly trained") && page.contains("43.3 %"));
    }

    #[test]
    fn one_page_is_about_one_step() {
        let point =
            |step: u64, value: f64| EvalPoint { step, metrics: [("acc1".to_owned(), Figure::new(value))].into() };
        let evaluation = |name: &str, points| Evaluation { name: name.to_owned(), points, ..Evaluation::default() };
        let evaluations =
            vec![evaluation("v", vec![point(24, 0.3), point(32, 0.2)]), evaluation("rare", vec![point(32, 0.77)])];
        let state = Some(RunState { step: 32, ..RunState::default() });
        let report = Report { shown_step: Some(24), evaluations, state, ..Report::default() };
        let page = overview(&report).into_string();
        assert!(page.contains("30.0 %") && !page.contains("20.0 %") && !page.contains("77.0 %"), "{page}");
        assert!(page.contains("The run is at step 32. Without a figure at this step: <bdi>rare</bdi>."), "{page}");
        assert!(!overview(&Report { shown_step: None, ..report }).into_string().contains("This page is about"));
    }

    #[test]
    fn absent_parts_say_why() {
        let entry = |key: &str| Entry { key: key.to_owned(), value: format!("no {key}") };
        let evaluations = vec![Evaluation { name: "v".to_owned(), ..Evaluation::default() }];
        let absent = ["embeddings", "pairs", "data", "model", "eval.v"].map(entry).to_vec();
        let page = render_report(&Report { evaluations, absent, ..Report::default() }, &PageOptions::default());
        for part in ["embeddings", "pairs", "data", "model", "eval.v"] {
            assert!(page.contains(&format!("no {part}")), "{part}");
        }
    }

    #[test]
    fn whole_config_is_folded_and_escaped() {
        let report = Report { config_text: Some("a = \"</pre><script>\"".to_owned()), ..Report::default() };
        let page = render_report(&report, &PageOptions::default());
        assert!(page.contains("&lt;/pre&gt;&lt;script&gt;"));
    }
}
