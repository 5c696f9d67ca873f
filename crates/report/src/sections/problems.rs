//! What went wrong without ending the run.

use maud::{Markup, html};

use crate::data::run::{BadSamples, Warning};
use crate::page::format::{SHOWN_CHARACTERS, count, counted, shortened};
use crate::page::prose::prose;

/// Warnings that are listed.
const MOST_WARNINGS: usize = 100;

/// Warnings and bad samples; a line if there are none.
pub(crate) fn problems(warnings: &[Warning], bad_samples: &[BadSamples]) -> Markup {
    let total = bad_samples.iter().fold(0_u64, |total, samples| total.saturating_add(samples.count));
    html! {
        @if warnings.is_empty() { p { "No warning is recorded." } } @else {
            h3 { (counted(warnings.len(), "warning")) }
            div.scroll tabindex="0" role="group" aria-label="Warnings" { table {
                thead { tr { th scope="col" { "step" }
                    @for name in ["kind", "message"] { th.words scope="col" { (name) } } } }
                tbody { @for warning in warnings.iter().take(MOST_WARNINGS) { tr {
                    td { @if let Some(step) = warning.step { (count(step)) } @else { "\u{2013}" } }
                    td.words { code { (warning.name) } }
                    td.words dir="auto" { (prose(&shortened(&warning.message, 600))) }
                } } }
            } }
            @if warnings.len() > MOST_WARNINGS {
                p.note { (counted(warnings.len() - MOST_WARNINGS, "more warning")) " left out." }
            }
        }
        @if bad_samples.is_empty() { p { "No sample is recorded as left out." } } @else {
            h3 { (counted(total as usize, "sample")) " left out" }
            div.scroll tabindex="0" role="group" aria-label="Samples left out" { table {
                thead { tr { th.words scope="col" { "cause" } th scope="col" { "samples" }
                    th.words scope="col" { "for example" } } }
                tbody { @for samples in bad_samples { tr {
                    th scope="row" dir="auto" { (shortened(&samples.cause, SHOWN_CHARACTERS)) }
                    td { (count(samples.count)) }
                    @let example = samples.example.as_deref().unwrap_or("\u{2013}");
                    td.words { bdi { (shortened(example, SHOWN_CHARACTERS)) } }
                } } }
            } }
        }
    }
}

/// How many warnings and samples there are, for the top of the page; `None` if there are none.
pub(crate) fn summary(warnings: &[Warning], bad_samples: &[BadSamples]) -> Option<String> {
    let total = bad_samples.iter().fold(0_u64, |total, samples| total.saturating_add(samples.count));
    let mut parts = Vec::new();
    if !warnings.is_empty() {
        parts.push(counted(warnings.len(), "warning"));
    }
    if total > 0 {
        parts.push(format!("{} left out", counted(total as usize, "sample")));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_by_cause() {
        let samples = |cause: &str, count| BadSamples { cause: cause.to_owned(), count, example: None };
        let bad = [samples("truncated", 2), samples("<missing>", 1_000)];
        assert_eq!(summary(&[], &bad).unwrap(), "1,002 samples left out");
        let page = problems(&[], &bad).into_string();
        assert!(page.contains("&lt;missing&gt;") && page.contains("No warning is recorded"));
        assert_eq!(summary(&[], &[]), None);
    }
}
