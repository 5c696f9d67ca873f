//! A plot with its title, legend and data.

use maud::{Markup, PreEscaped, html};

use crate::page::prose::prose;

/// A mark in a legend and, at points, in a plot: series differ in shape as well as in colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Line { dash: u8 },
    Circle,
    Square,
    Diamond,
    Triangle,
    Box,
}

/// A row of a legend.
#[derive(Debug, Clone)]
pub(crate) struct LegendItem {
    pub label: String,
    /// Number of the series, which decides its colour.
    pub series: u8,
    pub mark: Mark,
}

/// A plot and what belongs to it.
pub(crate) struct Figure<'a> {
    /// Unique on the page; made of letters, digits and `-`.
    pub id: &'a str,
    pub title: &'a str,
    /// What the plot shows, for who cannot see it.
    pub description: String,
    pub legend: Vec<LegendItem>,
    /// Width and height of the view box.
    pub size: (i32, i32),
    /// The elements of the plot.
    pub elements: String,
    /// Sentences below.
    pub notes: Vec<String>,
    /// The table of the data.
    pub table: Markup,
    pub class: &'a str,
    /// Whether it stays large on a small screen, where it scrolls.
    pub scrolls: bool,
}

impl Figure<'_> {
    fn plot(&self) -> Markup {
        let (title, description) = (format!("{}-t", self.id), format!("{}-d", self.id));
        html! {
            svg viewBox=(format!("0 0 {} {}", self.size.0, self.size.1)) role="img"
                aria-labelledby=(format!("{title} {description}")) {
                title id=(title) { (self.title) }
                desc id=(description) { (self.description) }
                (PreEscaped(&self.elements))
            }
        }
    }

    pub fn render(&self) -> Markup {
        html! {
            figure.chart.(self.class) id=(self.id) {
                figcaption {
                    h3 { (self.title) }
                    @if !self.legend.is_empty() { (legend(&self.legend)) }
                }
                @if self.scrolls {
                    div.scroll tabindex="0" role="group" aria-label=(format!("{}, scrolls", self.title)) {
                        (self.plot())
                    }
                } @else { (self.plot()) }
                @for note in &self.notes { p.note { (prose(note)) } }
                details.data {
                    summary { "Data" span.hidden { " of " (self.title) } }
                    div.scroll tabindex="0" role="group" aria-label=(format!("Data of {}", self.title)) { (self.table) }
                }
            }
        }
    }
}

/// A list of what the colours and shapes mean.
pub(crate) fn legend(items: &[LegendItem]) -> Markup {
    html! {
        ul.legend {
            @for item in items {
                li {
                    svg viewBox="0 0 22 12" aria-hidden="true" {
                        (PreEscaped(mark(item.mark, item.series, 11.0, 6.0, 4.0)))
                    }
                    bdi { (item.label) }
                }
            }
        }
    }
}

/// The element of a mark around a point.
pub(crate) fn mark(mark: Mark, series: u8, x: f64, y: f64, radius: f64) -> String {
    let class = format!("s{}", series % crate::plot::backend::SERIES_INKS);
    let fill = format!("class=\"fill {class}\"");
    match mark {
        Mark::Line { dash } => {
            let dash = if dash > 0 { format!(" dash{dash}") } else { String::new() };
            format!("<path class=\"line {class}{dash}\" stroke-width=\"2.2\" d=\"M0 6 22 6\"/>")
        }
        Mark::Circle => format!("<circle {fill} cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>"),
        Mark::Square => {
            let (x, y, side) = (x - 0.9 * radius, y - 0.9 * radius, 1.8 * radius);
            format!("<rect {fill} x=\"{x:.1}\" y=\"{y:.1}\" width=\"{side:.1}\" height=\"{side:.1}\"/>")
        }
        Mark::Diamond => {
            let r = 1.25 * radius;
            format!("<path {fill} d=\"M{x:.1} {:.1}l{r:.1} {r:.1} -{r:.1} {r:.1} -{r:.1} -{r:.1}Z\"/>", y - r)
        }
        Mark::Triangle => {
            let r = 1.15 * radius;
            format!("<path {fill} d=\"M{x:.1} {:.1}l{r:.1} {:.1} -{:.1} 0Z\"/>", y - r, 1.9 * r, 2.0 * r)
        }
        Mark::Box => format!("<rect {fill} x=\"3\" y=\"1\" width=\"16\" height=\"10\" rx=\"1.5\"/>"),
    }
}

/// The mark of the points of a series.
pub(crate) fn point_mark(series: usize) -> Mark {
    [Mark::Circle, Mark::Square, Mark::Triangle, Mark::Diamond][series % 4]
}
