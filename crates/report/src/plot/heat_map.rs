//! The confusion heat map.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use crate::data::evaluation::Classification;
use crate::page::format::{count, counted, fixed, shortened};
use crate::plot::figure::Figure;

/// Classes that the map shows. Of more classes, it shows those with the most confusions.
const MOST_CLASSES: usize = 60;

/// Classes up to which a cell is wide enough for its number.
const NUMBERED: usize = 16;

/// Width of the map in units of the SVG.
const SIDE: f64 = 560.0;

/// Rows are true classes, columns are answers; `None` without classes or images, and with several labels an image:
/// a wrong answer is then not that of one class, and a map of the right ones alone would look like no confusion.
pub(crate) fn confusion_map(id: &str, found: &Classification) -> Option<Markup> {
    let counts = cells(found);
    let has_several_labels = found.classes.iter().any(|class| class.average_precision.is_some());
    if counts.is_empty() || has_several_labels {
        return None;
    }
    let shown = classes_shown(found, &counts);
    let place_of: BTreeMap<usize, usize> = shown.iter().enumerate().map(|(place, class)| (*class, place)).collect();
    let side = SIDE / shown.len() as f64;
    let longest = shown.iter().map(|class| label(found, *class).chars().count()).max().unwrap_or(0);
    // A character is about 0.55 em wide; an em is as high as a row, but no more than reads well.
    let em = (side * 0.86).clamp(5.0, 13.0);
    let margin = (longest as f64 * 0.56 * em + 10.0).min(170.0);
    let mut cells = String::new();
    for (&(row, column), &number) in &counts {
        let (Some(&down), Some(&across)) = (place_of.get(&row), place_of.get(&column)) else { continue };
        let images = found.classes[row].images.max(number);
        let share = number as f64 / images as f64;
        let (x, y) = (margin + across as f64 * side, margin + down as f64 * side);
        let title = format!(
            "{} taken for {}: {} of {}",
            shortened(&found.classes[row].name, 60),
            shortened(&found.classes[column].name, 60),
            count(number),
            counted(images as usize, "image")
        );
        let class = if row == column { "cell right" } else { "cell wrong" };
        let (left, top, width) = (fixed_up(x + 0.04 * side), fixed_up(y + 0.04 * side), fixed_up(0.92 * side));
        let opacity = format!("{:.2}", 0.12 + 0.88 * share);
        cells += &html! {
            g.dot {
                title { (title) }
                rect class=(class) x=(left) y=(top) width=(width) height=(width) opacity=(opacity) {}
                @if shown.len() <= NUMBERED {
                    @let (x, y) = (fixed_up(x + 0.5 * side), fixed_up(y + 0.5 * side));
                    text.(if share > 0.55 { "on" } else { "off" }) x=(x) y=(y)
                        dy=".34em" text-anchor="middle" { (number) }
                }
            }
        }
        .into_string();
    }
    let labels = html! {
        g.labels font-size=(fixed_up(em)) {
            @for (place, class) in shown.iter().enumerate() {
                @let middle = margin + (place as f64 + 0.5) * side;
                @let text = label(found, *class);
                text x=(fixed_up(margin - 5.0)) y=(fixed_up(middle)) dy=".34em" text-anchor="end" { (text) }
                @let turned = format!("translate({:.1} {:.1}) rotate(-90)", middle, margin - 5.0);
                text transform=(turned) dy=".34em" { (text) }
            }
        }
        rect.frame x=(fixed_up(margin)) y=(fixed_up(margin)) width=(SIDE) height=(SIDE) {}
    };
    let edge = (margin + SIDE + 2.0).ceil() as i32;
    let mut notes =
        vec!["Rows: the true class. Columns: the answer. Stronger cells hold a larger share of the row.".to_owned()];
    if shown.len() < found.classes.len() {
        notes.push(format!(
            "{} of {} classes: those that are confused most.",
            shown.len(),
            count(found.classes.len() as u64)
        ));
    }
    let description = format!(
        "Confusion matrix of {}; the most confused pairs are listed as a table.",
        counted(shown.len(), "class")
    );
    let table = html! {
        table {
            thead { tr { th scope="col" { "true class" } th scope="col" { "answer" } th scope="col" { "images" } } }
            tbody {
                @for confusion in most_confused(found, 50) {
                    tr {
                        th scope="row" { bdi { (shortened(&found.classes[confusion.0].name, 60)) } }
                        td { bdi { (shortened(&found.classes[confusion.1].name, 60)) } }
                        td { (count(confusion.2)) }
                    }
                }
            }
        }
    };
    let elements = labels.into_string() + &cells;
    let title = "Confusion heat map";
    let figure = Figure {
        id,
        title,
        description,
        legend: Vec::new(),
        size: (edge, edge),
        elements,
        notes,
        table,
        class: "wide heat",
        scrolls: true,
    };
    Some(figure.render())
}

/// Pairs of different classes that are taken for each other, the most images first.
pub(crate) fn most_confused(found: &Classification, most: usize) -> Vec<(usize, usize, u64)> {
    let mut pairs: Vec<(usize, usize, u64)> = cells(found)
        .into_iter()
        .filter(|((row, column), _)| row != column)
        .map(|((row, column), number)| (row, column, number))
        .collect();
    pairs.sort_by_key(|&(row, column, number)| (std::cmp::Reverse(number), row, column));
    pairs.truncate(most);
    pairs
}

fn fixed_up(value: f64) -> String {
    let text = fixed(value, 1).replace('\u{2212}', "-");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn label(found: &Classification, class: usize) -> String {
    found.classes.get(class).map_or(String::new(), |class| shortened(&class.name, 22))
}

/// Images by true class and answer, the right answers among them.
fn cells(found: &Classification) -> BTreeMap<(usize, usize), u64> {
    let mut cells = BTreeMap::new();
    for (place, class) in found.classes.iter().enumerate().filter(|(_, class)| class.hits > 0) {
        cells.insert((place, place), class.hits);
    }
    let exists = |class: usize| class < found.classes.len();
    for confusion in &found.confusions {
        let (row, column) = (confusion.label, confusion.predicted);
        if confusion.count > 0 && row != column && exists(row) && exists(column) {
            let cell: &mut u64 = cells.entry((row, column)).or_insert(0);
            *cell = cell.saturating_add(confusion.count);
        }
    }
    cells
}

/// The classes with the most confusions, in their order.
fn classes_shown(found: &Classification, counts: &BTreeMap<(usize, usize), u64>) -> Vec<usize> {
    if found.classes.len() <= MOST_CLASSES {
        return (0..found.classes.len()).collect();
    }
    let mut by_count: Vec<(&(usize, usize), &u64)> = counts.iter().filter(|((row, column), _)| row != column).collect();
    by_count.sort_by_key(|(cell, number)| (std::cmp::Reverse(**number), **cell));
    let mut shown = BTreeSet::new();
    for ((row, column), _) in by_count {
        let new = usize::from(!shown.contains(row)) + usize::from(!shown.contains(column));
        if shown.len() + new <= MOST_CLASSES {
            shown.extend([*row, *column]);
        }
    }
    let rest = (0..found.classes.len()).filter(|class| !shown.contains(class)).take(MOST_CLASSES - shown.len());
    let rest: Vec<usize> = rest.collect();
    shown.extend(rest);
    shown.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::evaluation::{ClassResult, Confusion};

    fn classes(number: usize) -> Classification {
        let class = |at: usize| ClassResult { name: format!("<{at}>"), images: 4, hits: 3, ..Default::default() };
        let confusion = |at: usize| Confusion { label: at, predicted: (at + 1) % number, count: 1 };
        Classification {
            classes: (0..number).map(class).collect(),
            confusions: (0..number).map(confusion).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn all_of_few_classes_are_shown() {
        let page = confusion_map("m", &classes(3)).unwrap().into_string();
        assert_eq!(page.matches("cell right").count(), 3);
        assert_eq!(page.matches("cell wrong").count(), 3);
        assert!(page.contains("&lt;0&gt; taken for &lt;1&gt;: 1 of 4 images") && !page.contains("<0>"));
    }

    #[test]
    fn the_most_confused_of_many_are_shown() {
        let mut many = classes(1000);
        many.confusions.push(Confusion { label: 900, predicted: 17, count: 3 });
        let page = confusion_map("m", &many).unwrap().into_string();
        assert!(page.contains("60 of 1,000 classes"));
        assert!(page.contains("&lt;900&gt; taken for &lt;17&gt;: 3 of 4 images"));
        assert!(page.len() < 100_000, "{}", page.len());
        assert_eq!(most_confused(&many, 2)[0], (900, 17, 3));
    }

    #[test]
    fn several_labels_have_no_map() {
        let mut found = Classification { confusions: Vec::new(), ..classes(3) };
        assert!(confusion_map("m", &found).is_some(), "a map without confusions");
        found.classes[1].average_precision = Some(0.5);
        assert!(confusion_map("m", &found).is_none());
    }

    #[test]
    fn odd_input_does_not_fail() {
        assert!(confusion_map("m", &Classification::default()).is_none());
        let one = Classification { confusions: vec![Confusion { label: 0, predicted: 9, count: 1 }], ..classes(1) };
        assert!(confusion_map("m", &one).is_some());
        assert!(most_confused(&one, 5).is_empty());
    }
}
