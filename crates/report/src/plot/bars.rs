//! Histograms of matching and other pairs.

use maud::{Markup, html};

use crate::histogram::{Histogram, Similarities};
use crate::page::format::{cosine, count, counted, fixed};
use crate::plot::axis::Axis;
use crate::plot::backend::Ink;
use crate::plot::canvas::{Canvas, Layer};
use crate::plot::figure::{Figure, LegendItem, Mark};
use crate::plot::hover::{Strip, strips};

/// The two histograms over one axis, as shares of their totals; `None` without a value.
pub(crate) fn similarity_histograms(id: &str, found: &Similarities) -> Option<Markup> {
    let kinds = [(&found.matching, "matching pairs", 0_u8), (&found.other, "other pairs", 1)];
    let bins = found.matching.counts.len().max(found.other.counts.len());
    if found.matching.total() == 0 && found.other.total() == 0 || !(found.high - found.low).is_normal() {
        return None;
    }
    let edge = |bin: usize| found.low + (found.high - found.low) * bin as f64 / bins as f64;
    let share = |histogram: &Histogram, bin: usize| {
        histogram.counts.get(bin).map_or(0.0, |count| *count as f64 / histogram.total().max(1) as f64)
    };
    let shares = || kinds.iter().flat_map(|(histogram, ..)| (0..bins).map(|bin| share(histogram, bin)));
    let (x, y) = (Axis::linear(found.low, found.high, 6), Axis::percent(shares(), 4)?);
    let canvas = Canvas { width: 640, height: 290, left: 58, bottom: 46, ..Canvas::SMALL };
    let (mut layers, mut legend, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for (histogram, name, series) in kinds {
        if histogram.not_finite > 0 {
            notes.push(format!("\u{26a0} {} of {name} not finite.", counted(histogram.not_finite as usize, "cosine")));
        }
        if histogram.total() == 0 {
            notes.push(format!("There are no {name}."));
            continue;
        }
        let mut outline = vec![(found.low, 0.0)];
        for bin in 0..bins {
            outline.extend([(edge(bin), share(histogram, bin)), (edge(bin + 1), share(histogram, bin))]);
        }
        outline.push((found.high, 0.0));
        let (ink, dash) = (Ink::Series(series), if series == 0 { 0 } else { 2 });
        layers.push(Layer::Area { points: outline.clone(), ink, opacity: 0.22 });
        layers.push(Layer::Line { points: outline, ink, width: 1.6, dash, opacity: 1.0 });
        let mean = histogram.mean.map_or(String::new(), |mean| format!(", mean {}", cosine(mean)));
        let label = format!("{name}: {}{mean}", count(histogram.total()));
        legend.push(LegendItem { label, series, mark: Mark::Line { dash } });
    }
    notes.extend(found.note.clone());
    let strip = |bin: usize| {
        let values = kinds.map(|(histogram, name, _)| format!("{name}: {} %", fixed(100.0 * share(histogram, bin), 1)));
        let text = format!("cosine {} to {}\n{}", cosine(edge(bin)), cosine(edge(bin + 1)), values.join("\n"));
        Strip { x: canvas.place(&x, &y, (0.5 * (edge(bin) + edge(bin + 1)), 0.0)).0, text }
    };
    let mut elements = canvas.draw((&x, &y), "cosine similarity", &layers);
    elements += &html! { text.name x="4" y="11" { "share of pairs" } }.into_string();
    let (right, bottom) = (canvas.width - canvas.right, canvas.height - canvas.bottom);
    let found_strips: Vec<Strip> = (0..bins).map(strip).collect();
    elements += &strips(&found_strips, (canvas.left.into(), right.into()), (canvas.top.into(), bottom.into()));
    let table = html! {
        table {
            thead { tr { th scope="col" { "cosine from" } th scope="col" { "to" }
                @for (_, name, _) in kinds { th scope="col" { (name) } } } }
            tbody {
                @for bin in 0..bins {
                    tr {
                        th scope="row" { (cosine(edge(bin))) }
                        td { (cosine(edge(bin + 1))) }
                        @for (histogram, ..) in kinds {
                            td { (count(histogram.counts.get(bin).copied().unwrap_or(0))) }
                        }
                    }
                }
            }
        }
    };
    let means = kinds.map(|(histogram, name, _)| match histogram.mean {
        Some(mean) => format!("{name} have a mean cosine of {}", cosine(mean)),
        None => format!("there are no {name}"),
    });
    let description = format!("Histograms of cosine similarities: {}.", means.join("; "));
    let size = (canvas.width, canvas.height);
    let title = "Similarities of matching and other pairs";
    Some(
        Figure { id, title, description, legend, size, elements, notes, table, class: "wide", scrolls: false }.render(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::similarities;

    #[test]
    fn both_kinds_are_drawn() {
        let page = similarity_histograms("h", &similarities(&[0.5, 0.6], &[0.0, 0.1, 0.05])).unwrap().into_string();
        assert!(!page.contains("p class=\"note\""));
        let noted = Similarities { note: Some("A <sample>.".to_owned()), ..similarities(&[0.5], &[0.1]) };
        assert!(similarity_histograms("h", &noted).unwrap().into_string().contains(">A &lt;sample&gt;.</p>"));
        assert!(page.contains("matching pairs: 2, mean 0.550") && page.contains("other pairs: 3, mean 0.050"));
    }

    #[test]
    fn empty_and_odd_input_does_not_fail() {
        assert!(similarity_histograms("h", &Similarities::default()).is_none());
        assert!(similarity_histograms("h", &similarities(&[f32::NAN], &[])).is_none());
        let page = similarity_histograms("h", &similarities(&[0.5, f32::NAN], &[])).unwrap().into_string();
        assert!(page.contains("1 cosine of matching pairs not finite") && page.contains("no other pairs"));
        let ragged = Similarities {
            high: 1.0,
            matching: Histogram { counts: vec![1, 2, 3], ..Histogram::default() },
            ..Similarities::default()
        };
        assert!(similarity_histograms("h", &ragged).is_some());
    }
}
