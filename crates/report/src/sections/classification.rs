//! Answers by class.

use maud::{Markup, html};

use crate::data::evaluation::{ClassResult, Classification};
use crate::page::format::{count, fixed, shortened};
use crate::page::tables::{Cell, sortable};
use crate::plot::heat_map::{confusion_map, most_confused};
use crate::plot::reliability::reliability;

/// Pairs in the list of those that are confused most.
const MOST_PAIRS: usize = 20;

/// Characters of a class name.
const NAME: usize = 80;

/// The per-class table of at most `most_rows` classes, the most confused pairs, the heat map and the calibration.
pub(crate) fn classes(id: &str, found: &Classification, most_rows: usize) -> Markup {
    let confused = most_confused(found, MOST_PAIRS);
    let name = |class: usize| name(&found.classes[class].name);
    let has_precision = found.classes.iter().any(|class| class.average_precision.is_some());
    let mut columns = vec!["class", "images", "right", "recall", "precision"];
    if has_precision {
        columns.push("average precision");
    }
    html! {
        @if let Some(step) = found.step { p.soft { "Answers by class at step " (count(step)) "." } }
        div.beside {
        @if !found.classes.is_empty() { div.tall {
            h3 { "Classes" }
            p.note { "The worst recall first." }
            (sortable(&format!("{id}-classes"), "Results by class", &columns, &rows(found, has_precision), most_rows))
        } }
        @if !confused.is_empty() { div.tall {
            h3 { "Most confused classes" }
            p.note { "With the share of the images of the true class." }
            div.scroll tabindex="0" role="group" aria-label="Most confused classes" {
                table {
                    thead { tr { th scope="col" { "true class" } th.words scope="col" { "answer" }
                        th scope="col" { "images" }
                        th scope="col" { "share" } } }
                    tbody { @for (label, predicted, number) in &confused { tr {
                        th scope="row" { bdi { (name(*label)) } }
                        td.words { bdi { (name(*predicted)) } }
                        td { (count(*number)) }
                        td { (share(*number, found.classes[*label].images)) }
                    } } }
                }
            }
        } }
        }
        div.beside {
            @if let Some(map) = confusion_map(&format!("{id}-confusion"), found) { (map) }
            @let diagram = reliability(&format!("{id}-calibration"), &found.calibration, found.ece);
            @if let Some(diagram) = diagram { (diagram) }
        }
    }
}

fn name(name: &str) -> String {
    if name.trim().is_empty() { "(no name)".to_owned() } else { shortened(name, NAME) }
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "\u{2013}".to_owned() } else { format!("{} %", fixed(100.0 * part as f64 / whole as f64, 1)) }
}

fn rows(found: &Classification, has_precision: bool) -> Vec<Vec<Cell>> {
    let mut classes: Vec<&ClassResult> = found.classes.iter().collect();
    let rank = |class: &ClassResult| class.recall().or(class.average_precision).unwrap_or(f64::INFINITY);
    classes.sort_by(|a, b| rank(a).total_cmp(&rank(b)).then_with(|| b.images.cmp(&a.images)));
    let fraction = |value: Option<f64>| match value {
        Some(value) => Cell::number(format!("{} %", fixed(100.0 * value, 1)), value),
        None => Cell::missing(),
    };
    let whole = |value: u64| Cell::number(count(value), value as f64);
    let row = |class: &&ClassResult| {
        let mut cells = vec![
            Cell::text(name(&class.name)),
            whole(class.images),
            whole(class.hits),
            fraction(class.recall()),
            fraction(class.precision()),
        ];
        if has_precision {
            cells.push(fraction(class.average_precision));
        }
        cells
    };
    classes.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::evaluation::Confusion;

    #[test]
    fn worst_class_is_first() {
        let class = |name: &str, hits| ClassResult { name: name.to_owned(), images: 4, hits, ..Default::default() };
        let found = Classification {
            classes: vec![class("fine", 4), class("<bad>", 1)],
            confusions: vec![Confusion { label: 1, predicted: 0, count: 3 }],
            ..Default::default()
        };
        let page = classes("e0", &found, 100).into_string();
        assert!(page.find("&lt;bad&gt;").unwrap() < page.find("fine").unwrap());
        assert!(page.contains("75.0 %") && !page.contains("<bad>"));
    }

    #[test]
    fn no_class_is_no_table() {
        assert!(!classes("e0", &Classification::default(), 100).into_string().contains("<table"));
        let one = Classification { classes: vec![ClassResult::default()], ..Default::default() };
        assert!(classes("e0", &one, 100).into_string().contains("<table"));
    }
}
