//! Lines over training steps.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::page::format::{counted, significant};
use crate::plot::axis::{Axis, is_drawable};
use crate::plot::backend::{Ink, SERIES_INKS};
use crate::plot::canvas::{Canvas, Layer};
use crate::plot::figure::{Figure, LegendItem, Mark, mark, point_mark};
use crate::plot::hover::{Strip, strips};
use crate::plot::reduce::{evenly, outline, smooth, window};

/// Rows of a table of data.
const MOST_ROWS: usize = 40;

/// Places with values under the pointer.
const MOST_STRIPS: usize = 70;

/// Points from which on a line has no marks.
const MOST_MARKS: usize = 40;

/// Places of a band between which it is straight.
const MOST_BAND: usize = 200;

/// A value at a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub step: u64,
    pub value: f64,
    pub interval: Option<[f64; 2]>,
}

impl Point {
    pub fn new(step: u64, value: f64) -> Self {
        Self { step, value, interval: None }
    }
}

/// A line of a chart.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub label: String,
    pub points: Vec<Point>,
    /// A line to compare with: dashed, never smoothed, without marks.
    pub is_reference: bool,
}

/// How the values are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// Logarithmic where the values span more than two decades.
    Wide,
    /// Fractions in percent.
    Percent,
}

/// Lines over training steps.
#[derive(Debug, Clone)]
pub(crate) struct LineChart<'a> {
    pub id: String,
    pub title: String,
    /// What the values are, with their unit.
    pub value_name: &'a str,
    pub lines: Vec<Line>,
    pub scale: Scale,
    /// Whether all lines differ in their dashes: for lines that may lie on each other.
    pub has_dashes: bool,
    /// Whether long lines are smoothed.
    pub is_noisy: bool,
}

impl LineChart<'_> {
    /// The chart; `None` if no value can be drawn.
    pub fn render(&self) -> Option<Markup> {
        let (x, y) = self.axes()?;
        let canvas = Canvas::SMALL;
        let mut layers = Vec::new();
        let (mut marks, mut legend) = (String::new(), Vec::new());
        let longest = self.lines.iter().map(|line| line.points.len()).max().unwrap_or(0);
        let window = window(longest).filter(|_| self.is_noisy);
        for (number, line) in self.lines.iter().enumerate() {
            let series = (number % usize::from(SERIES_INKS)) as u8;
            let ink = Ink::Series(series);
            let dash = if line.is_reference { 1 } else { dash_of(number, self.has_dashes) };
            let has_marks = !line.is_reference && line.points.len() <= MOST_MARKS;
            let smoothed = if line.is_reference { None } else { window };
            layers.extend(band(line, ink));
            for run in runs(&line.points, y.is_log) {
                let width = if smoothed.is_some() || line.is_reference { 1.2 } else { 1.8 };
                let opacity = if smoothed.is_some() { 0.35 } else { 1.0 };
                if run.len() > 1 {
                    layers.push(Layer::Line { points: outline(&run), ink, width, dash, opacity });
                }
                if let Some(window) = smoothed {
                    layers.push(Layer::Line {
                        points: outline(&smooth(&run, window)),
                        ink,
                        width: 2.0,
                        dash,
                        opacity: 1.0,
                    });
                }
                for &(step, value) in run.iter().filter(|_| has_marks || run.len() == 1) {
                    let (left, top) = canvas.place(&x, &y, (step, value));
                    marks += &mark(point_mark(number), series, left, top, 3.0);
                }
            }
            let shape = if has_marks { point_mark(number) } else { Mark::Line { dash } };
            legend.push(LegendItem { label: line.label.clone(), series, mark: shape });
        }
        let mut notes: Vec<String> = window.into_iter().map(|window| self.smoothing(window)).collect();
        notes.extend(self.not_drawn(y.is_log));
        let mut elements = canvas.draw((&x, &y), "step", &layers);
        elements +=
            &html! { text.name x="4" y="11" { (self.value_name) @if y.is_log { ", logarithmic" } } }.into_string();
        elements += &marks;
        let rows = self.rows();
        elements += &self.strips(&rows, canvas, &x, &y);
        let size = (canvas.width, canvas.height);
        let (title, id, description) = (self.title.as_str(), self.id.as_str(), self.description(&x));
        if legend.len() < 2 {
            legend.clear();
        }
        let table = self.table(&rows);
        Some(
            Figure { id, title, description, legend, size, elements, notes, table, class: "", scrolls: false }.render(),
        )
    }

    fn axes(&self) -> Option<(Axis, Axis)> {
        let drawable = || self.lines.iter().flat_map(|line| &line.points).filter(|point| is_drawable(point.value));
        let ends = |point: &Point| point.interval.into_iter().flatten();
        let values = || drawable().flat_map(move |point| std::iter::once(point.value).chain(ends(point)));
        let x = Axis::whole(drawable().map(|point| point.step as f64), 5)?;
        let y = match self.scale {
            Scale::Percent => Axis::percent(values(), 4),
            Scale::Wide => Axis::logarithmic(values()).or_else(|| Axis::around(values(), 4)),
            Scale::Linear => Axis::around(values(), 4),
        }?;
        Some((x, y))
    }

    /// The lines' values at each step.
    fn rows(&self) -> Vec<(u64, Vec<Option<Point>>)> {
        let mut rows: BTreeMap<u64, Vec<Option<Point>>> = BTreeMap::new();
        for (number, line) in self.lines.iter().enumerate() {
            for point in &line.points {
                rows.entry(point.step).or_insert_with(|| vec![None; self.lines.len()])[number] = Some(*point);
            }
        }
        rows.into_iter().collect()
    }

    fn value(&self, value: f64) -> String {
        match self.scale {
            Scale::Percent if value.is_finite() => format!("{} %", significant((1000.0 * value).round() / 10.0, 4)),
            _ => significant(value, 4),
        }
    }

    fn value_with_interval(&self, point: &Point) -> String {
        let value = self.value(point.value);
        let interval = point.interval.map(|ends| ends.map(|end| self.value(end)));
        interval.map_or(value.clone(), |[low, high]| format!("{value} ({low} to {high})"))
    }

    fn strips(&self, rows: &[(u64, Vec<Option<Point>>)], canvas: Canvas, x: &Axis, y: &Axis) -> String {
        let strip = |(step, points): &(u64, Vec<Option<Point>>)| {
            let values: Vec<String> = self
                .lines
                .iter()
                .zip(points)
                .filter_map(|(line, point)| Some(format!("{}: {}", line.label, self.value_with_interval(&(*point)?))))
                .collect();
            let text = format!("step {}\n{}", crate::page::format::count(*step), values.join("\n"));
            Strip { x: canvas.place(x, y, (*step as f64, y.low)).0, text }
        };
        let found: Vec<Strip> = evenly(rows, MOST_STRIPS).iter().map(strip).collect();
        let (right, bottom) = (canvas.width - canvas.right, canvas.height - canvas.bottom);
        strips(&found, (f64::from(canvas.left), right.into()), (canvas.top.into(), bottom.into()))
    }

    fn table(&self, rows: &[(u64, Vec<Option<Point>>)]) -> Markup {
        let shown = evenly(rows, MOST_ROWS);
        html! {
            table {
                @if shown.len() < rows.len() {
                    caption { (shown.len()) " of " (counted(rows.len(), "step")) ", evenly spaced" }
                }
                thead { tr { th scope="col" { "step" } @for line in &self.lines { th scope="col" { (line.label) } } } }
                tbody {
                    @for (step, points) in &shown {
                        tr {
                            th scope="row" { (crate::page::format::count(*step)) }
                            @for point in points {
                                td { @if let Some(point) = point { (self.value_with_interval(point)) } }
                            }
                        }
                    }
                }
            }
        }
    }

    /// What the smooth lines are, by the line with the most points.
    fn smoothing(&self, window: usize) -> String {
        let longest = self.lines.iter().filter(|line| !line.is_reference).max_by_key(|line| line.points.len());
        let points = longest.map_or(&[][..], |line| &line.points);
        let ends = (points.first().map_or(0, |first| first.step), points.last().map_or(0, |last| last.step));
        let span = ends.1.saturating_sub(ends.0);
        let every = (span as f64 / (points.len().max(2) - 1) as f64).max(1.0);
        format!("Strong: mean over {}. Faint: single steps.", counted((window as f64 * every).round() as usize, "step"))
    }

    /// What the chart shows, from first to last.
    fn description(&self, x: &Axis) -> String {
        let about = |line: &Line| {
            let mut values = line.points.iter().map(|point| point.value).filter(|value| is_drawable(*value));
            let first = values.next()?;
            let last = values.next_back().unwrap_or(first);
            Some(format!("{} goes from {} to {}", line.label, self.value(first), self.value(last)))
        };
        let lines: Vec<String> = self.lines.iter().take(8).filter_map(about).collect();
        let steps = format!("from step {} to {}", significant(x.low, 7), significant(x.high, 7));
        format!("{} over steps, {steps}: {}.", self.value_name, lines.join("; "))
    }

    /// Values that the chart cannot hold.
    fn not_drawn(&self, is_log: bool) -> Option<String> {
        let cannot = |point: &&Point| !is_drawable(point.value) || (is_log && point.value <= 0.0);
        let found: Vec<&Point> = self.lines.iter().flat_map(|line| &line.points).filter(cannot).collect();
        let first = found.iter().map(|point| point.step).min()?;
        let are = if found.len() == 1 { "is" } else { "are" };
        let what = counted(found.len(), "value");
        Some(format!("\u{26a0} {what} {are} not finite or too large to draw, first at step {first}."))
    }
}

/// The dash of a series; without dashes, series beyond the colours still have one.
fn dash_of(number: usize, has_dashes: bool) -> u8 {
    let place = if has_dashes { number } else { number / usize::from(SERIES_INKS) };
    [0, 2, 3][place % 3]
}

/// The stretches without a value that cannot be drawn.
fn runs(points: &[Point], is_log: bool) -> Vec<Vec<(f64, f64)>> {
    let can = |point: &Point| is_drawable(point.value) && (!is_log || point.value > 0.0);
    points
        .split(|point| !can(point))
        .filter(|run| !run.is_empty())
        .map(|run| run.iter().map(|point| (point.step as f64, point.value)).collect())
        .collect()
}

/// The intervals as a band around the line.
fn band(line: &Line, ink: Ink) -> Option<Layer> {
    let known: Vec<(f64, [f64; 2])> = line
        .points
        .iter()
        .filter(|point| is_drawable(point.value))
        .filter_map(|point| {
            Some((point.step as f64, point.interval.filter(|ends| ends.iter().all(|x| is_drawable(*x)))?))
        })
        .collect();
    let known = evenly(&known, MOST_BAND);
    let upper = known.iter().map(|(step, [_, high])| (*step, *high));
    let lower = known.iter().rev().map(|(step, [low, _])| (*step, *low));
    (known.len() > 1).then(|| Layer::Area { points: upper.chain(lower).collect(), ink, opacity: 0.16 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> LineChart<'static> {
        let points = values.iter().enumerate().map(|(at, value)| Point::new(at as u64, *value)).collect();
        let lines = vec![Line { label: "loss".to_owned(), points, is_reference: false }];
        LineChart {
            id: "c".to_owned(),
            title: "Loss".to_owned(),
            value_name: "nats",
            lines,
            scale: Scale::Linear,
            has_dashes: false,
            is_noisy: true,
        }
    }

    #[test]
    fn nothing_to_draw_is_no_chart() {
        assert!(chart(&[]).render().is_none());
        assert!(chart(&[f64::NAN, f64::INFINITY]).render().is_none());
    }

    #[test]
    fn one_point_is_a_mark() {
        assert!(chart(&[2.0]).render().unwrap().into_string().contains("<circle"));
    }

    #[test]
    fn gap_breaks_the_line() {
        let whole = chart(&[1.0, 2.0, 3.0, 4.0]).render().unwrap().into_string();
        let broken = chart(&[1.0, 2.0, f64::NAN, 3.0, 4.0]).render().unwrap().into_string();
        let lines = |page: &str| page.matches("line s0").count();
        assert_eq!((lines(&whole), lines(&broken)), (1, 2));
        assert!(broken.contains("1 value is not finite or too large to draw, first at step 2."));
        assert!(broken.contains("not a number"), "the table has the value");
        assert!(!broken.contains("NaN"));
    }

    #[test]
    fn long_lines_are_smoothed_and_reduced() {
        let values: Vec<f64> = (0..50_000).map(|at| (at as f64).sin()).collect();
        let page = chart(&values).render().unwrap().into_string();
        assert!(page.len() < 60_000, "{}", page.len());
        assert!(page.contains("mean over 1,251 steps"));
        assert!(page.contains("40 of 50,000 steps"));
    }

    #[test]
    fn intervals_are_a_band() {
        let mut chart = chart(&[0.2, 0.5]);
        chart.scale = Scale::Percent;
        chart.lines[0].points[0].interval = Some([0.1, 0.3]);
        chart.lines[0].points[1].interval = Some([0.4, 0.6]);
        let page = chart.render().unwrap().into_string();
        assert!(page.contains("fill s0") && page.contains("50 % (40 % to 60 %)"));
    }

    #[test]
    fn many_series_do_not_fail() {
        let mut chart = chart(&[1.0, 2.0]);
        chart.lines = vec![chart.lines[0].clone(); 300];
        assert!(chart.render().is_some());
    }
}
