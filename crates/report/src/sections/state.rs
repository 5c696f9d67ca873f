//! How far a run is.

use maud::{Markup, html};

use crate::data::run::{BestCheckpoint, RunState, Status};
use crate::page::format::count;
use crate::page::metric_names::{kind, value};
use crate::page::prose::prose;

/// The status as a word with a sign of its own shape.
pub(crate) fn chip(status: Status) -> Markup {
    let (class, sign, word) = match status {
        Status::Running => ("running", "\u{25b6}\u{fe0e}", "running"),
        Status::Killed => ("killed", "\u{25a0}", "killed"),
        Status::Stopped => ("stopped", "\u{2016}", "stopped"),
        Status::Diverged => ("diverged", "\u{26a0}\u{fe0e}", "diverged"),
        Status::NotStarted => ("waiting", "\u{25cb}", "not started"),
        Status::Finished => ("finished", "\u{2713}", "finished"),
        Status::Fitted => ("finished", "\u{2713}", "fitted"),
        Status::Unknown => ("unknown", "?", "state unknown"),
    };
    html! { span.chip.(class) { span aria-hidden="true" { (sign) } (word) } }
}

/// The step, and of how many.
pub(crate) fn step_of(state: &RunState) -> String {
    match state.total_steps {
        Some(total) => format!("step {} of {}", count(state.step), count(total)),
        None => format!("step {}", count(state.step)),
    }
}

/// The lines below the title of a report.
pub(crate) fn lead(state: Option<&RunState>, run_dir: &str) -> Markup {
    let share = state.and_then(|state| {
        let total = state.total_steps.filter(|total| *total > 0 && state.status != Status::Finished)?;
        Some(format!("{:.1}", (100.0 * state.step as f64 / total as f64).clamp(0.0, 100.0)))
    });
    html! {
        ul.state {
            @match state {
                Some(state) => {
                    li { (chip(state.status)) }
                    li { (step_of(state)) }
                    @if let Some(duration) = &state.duration { li { bdi { (duration) } } }
                    @if let Some(when) = &state.when { li { "last written " bdi { (when) } } }
                }
                None => li { (chip(Status::Unknown)) }
            }
            @if !run_dir.is_empty() { li { code { bdi { (run_dir) } } } }
        }
        @if let Some(note) = state.and_then(|state| state.note.as_ref()) { p.soft { (prose(note)) } }
        @if let Some(share) = share {
            svg.progress aria-hidden="true" { rect width=(format!("{share}%")) height="6" {} }
        }
    }
}

/// The best checkpoint as a sentence.
pub(crate) fn best(best: &BestCheckpoint) -> Markup {
    let shown = best.value.map(|number| value(kind(&best.metric), number));
    html! {
        p.callout {
            "Best checkpoint: step " strong { (count(best.step)) }
            @if !best.metric.is_empty() {
                ", by " code { (best.metric) } @if let Some(shown) = shown { " of " strong { (shown) } }
            }
            @if !best.path.is_empty() { ", in " code { bdi { (best.path) } } }
            "."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_word() {
        for (status, word) in [
            (Status::Running, "running"),
            (Status::Killed, "killed"),
            (Status::Stopped, "stopped"),
            (Status::Diverged, "diverged"),
            (Status::NotStarted, "not started"),
            (Status::Finished, "finished"),
            (Status::Fitted, "fitted"),
        ] {
            let chip = chip(status).into_string();
            assert!(chip.contains(&format!("</span>{word}</span>")), "{chip}");
        }
    }

    #[test]
    fn progress_stays_within_the_bar() {
        let state = RunState { step: 7, total_steps: Some(5), ..RunState::default() };
        assert!(lead(Some(&state), "").into_string().contains("width=\"100.0%\""));
        let state = RunState { step: 7, total_steps: Some(0), ..RunState::default() };
        assert!(!lead(Some(&state), "").into_string().contains("<rect"));
        assert!(lead(None, "<run>").into_string().contains("&lt;run&gt;"));
    }
}
