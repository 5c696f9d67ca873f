//! The reliability diagram: how often answers of a confidence are right.

use maud::{Markup, html};

use crate::data::evaluation::CalibrationBin;
use crate::page::format::{count, counted, fixed};
use crate::plot::axis::Axis;
use crate::plot::backend::Ink;
use crate::plot::canvas::{Canvas, Layer};
use crate::plot::figure::{Figure, LegendItem, Mark, mark};

/// Accuracy over confidence; the number of answers decides how large a mark is. `None` without an answer.
pub(crate) fn reliability(id: &str, bins: &[CalibrationBin], ece: Option<f64>) -> Option<Markup> {
    let fits = |value: f64| (0.0..=1.0).contains(&value);
    let used: Vec<&CalibrationBin> =
        bins.iter().filter(|bin| bin.count > 0 && fits(bin.confidence) && fits(bin.accuracy)).collect();
    let answers = used.iter().fold(0_u64, |answers, bin| answers.saturating_add(bin.count));
    let most = used.iter().map(|bin| bin.count).max()?;
    let axis = || Axis::percent([0.0, 1.0].into_iter(), 5);
    let (mut x, mut y) = (axis()?, axis()?);
    (x.high, y.high) = (1.0, 1.0);
    let canvas = Canvas { width: 400, height: 300, right: 22, ..Canvas::SMALL };
    let mut layers =
        vec![Layer::Line { points: vec![(0.0, 0.0), (1.0, 1.0)], ink: Ink::Axis, width: 1.2, dash: 1, opacity: 1.0 }];
    for bin in &used {
        let points = vec![(bin.confidence, bin.confidence), (bin.confidence, bin.accuracy)];
        layers.push(Layer::Line { points, ink: Ink::Series(1), width: 3.0, dash: 0, opacity: 0.45 });
    }
    let points = used.iter().map(|bin| (bin.confidence, bin.accuracy)).collect();
    layers.push(Layer::Line { points, ink: Ink::Series(0), width: 1.6, dash: 0, opacity: 1.0 });
    let mut elements = canvas.draw((&x, &y), "confidence of the first answer", &layers);
    elements += &html! { text.name x="4" y="11" { "right answers" } }.into_string();
    for bin in &used {
        let (left, top) = canvas.place(&x, &y, (bin.confidence, bin.accuracy));
        let radius = (2.0 + 4.5 * (bin.count as f64 / most as f64).sqrt() * 10.0).round() / 10.0;
        let radius = radius.clamp(2.0, 6.5);
        let percent = |value: f64| fixed(100.0 * value, 1);
        let title = format!(
            "confidence {} %\nright {} %\n{}",
            percent(bin.confidence),
            percent(bin.accuracy),
            counted(bin.count as usize, "answer")
        );
        let shape = maud::PreEscaped(mark(Mark::Circle, 0, left, top, radius));
        elements += &html! { g.dot { title { (title) } (shape) } }.into_string();
    }
    let mut notes = Vec::new();
    if let Some(ece) = ece.filter(|ece| ece.is_finite()) {
        notes.push(format!("Expected calibration error: {} %.", fixed(100.0 * ece, 1)));
    }
    notes.push(
        "Points below the dashed line are more confident than they are right. Larger points hold more answers."
            .to_owned(),
    );
    let description = format!(
        "Reliability diagram of {} answers in {} bins: the fraction of right answers over their mean confidence.",
        count(answers),
        used.len()
    );
    let legend = vec![
        LegendItem { label: "right answers".to_owned(), series: 0, mark: Mark::Circle },
        LegendItem { label: "difference to the confidence".to_owned(), series: 1, mark: Mark::Box },
    ];
    let table = html! {
        table {
            thead { tr { th scope="col" { "confidence" } th scope="col" { "right" } th scope="col" { "answers" } } }
            tbody { @for bin in &used { tr {
                th scope="row" { (fixed(100.0 * bin.confidence, 1)) " %" }
                td { (fixed(100.0 * bin.accuracy, 1)) " %" }
                td { (count(bin.count)) }
            } } }
        }
    };
    let size = (canvas.width, canvas.height);
    Some(
        Figure {
            id,
            title: "Calibration",
            description,
            legend,
            size,
            elements,
            notes,
            table,
            class: "",
            scrolls: false,
        }
        .render(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_without_answers_are_left_out() {
        let bin = |count, confidence, accuracy| CalibrationBin { count, confidence, accuracy };
        let bins = [bin(0, 0.0, 0.0), bin(5, 0.3, 0.2), bin(9, 0.9, 0.8), bin(1, f64::NAN, 0.5)];
        let page = reliability("r", &bins, Some(0.1)).unwrap().into_string();
        assert_eq!(page.matches("class=\"dot\"").count(), 2);
        assert!(page.contains("Expected calibration error: 10.0 %.") && page.contains("14 answers in 2 bins"));
        assert!(reliability("r", &bins[..1], None).is_none());
        assert!(reliability("r", &[], Some(f64::NAN)).is_none());
    }
}
