//! Tables.

use maud::{Markup, html};

use crate::data::run::Entry;
use crate::page::format::counted;

/// Rows of a long table that are shown at once; the others are folded.
const SHOWN_ROWS: usize = 50;

/// A table of names and values.
pub(crate) fn key_values(entries: &[Entry]) -> Markup {
    html! {
        div.scroll { table.keys { tbody { @for entry in entries {
            tr { th scope="row" { bdi { (entry.key) } } td dir="auto" { (entry.value) } }
        } } } }
    }
}

/// A cell: what it shows, and what it is sorted by.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub text: String,
    pub sorted_by: Option<f64>,
}

impl Cell {
    pub fn text(text: String) -> Self {
        Self { text, sorted_by: None }
    }

    pub fn number(text: String, value: f64) -> Self {
        Self { text, sorted_by: Some(value) }
    }

    pub fn missing() -> Self {
        Self { text: String::new(), sorted_by: None }
    }
}

/// A table that a reader can sort, with the first rows shown and the others folded. Rows beyond `most` are left out and
/// counted. The first cell of a row names it.
pub(crate) fn sortable(id: &str, label: &str, columns: &[&str], rows: &[Vec<Cell>], most: usize) -> Markup {
    let shown = &rows[..rows.len().min(most)];
    let (first, rest) = shown.split_at(shown.len().min(SHOWN_ROWS));
    html! {
        (part(id, label, columns, first))
        @if !rest.is_empty() {
            details {
                summary { (counted(rest.len(), "more row")) }
                (part(id, &format!("{label}, more rows"), columns, rest))
            }
        }
        @if shown.len() < rows.len() {
            p.note { (counted(rows.len() - shown.len(), "row")) " left out to keep this file small." }
        }
    }
}

fn part(id: &str, label: &str, columns: &[&str], rows: &[Vec<Cell>]) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label=(label) {
            table data-sort=(id) {
                thead { tr { @for column in columns { th scope="col" { (column) } } } }
                tbody { @for row in rows { tr { @for (place, cell) in row.iter().enumerate() {
                    @let sorted_by = cell.sorted_by.filter(|value| value.is_finite());
                    @if place == 0 { th scope="row" data-v=[sorted_by] { bdi { (cell.text) } } }
                    @else { td data-v=[sorted_by] { bdi { (cell.text) } } }
                } } } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(number: usize) -> Vec<Vec<Cell>> {
        (0..number).map(|at| vec![Cell::text(format!("<i>{at}")), Cell::number("x".to_owned(), at as f64)]).collect()
    }

    #[test]
    fn long_tables_are_folded() {
        let page = sortable("t", "classes", &["class", "n"], &rows(60), 100).into_string();
        assert!(page.contains("10 more rows") && page.contains("data-v=\"59\"") && !page.contains("<i>"));
        assert!(!sortable("t", "classes", &["class", "n"], &rows(50), 100).into_string().contains("<details"));
        assert!(sortable("t", "classes", &["class"], &[], 100).into_string().contains("<table"));
    }

    #[test]
    fn rows_beyond_the_most_are_counted() {
        let page = sortable("t", "classes", &["class", "n"], &rows(20_000), 2_000).into_string();
        assert!(page.contains("18,000 rows left out"));
    }
}
