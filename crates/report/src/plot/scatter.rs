//! The map of embeddings.

use maud::{Markup, PreEscaped, html};

use crate::data::evaluation::{EmbeddingMap, MapPoint};
use crate::page::format::{count, counted, fixed, shortened};
use crate::plot::axis::{Axis, is_drawable};
use crate::plot::backend::Ink;
use crate::plot::canvas::{Canvas, Layer};
use crate::plot::figure::{Figure, LegendItem, Mark, mark};
use crate::plot::reduce::evenly;

/// Points of each kind that are drawn.
const MOST_POINTS: usize = 2_000;

/// Lines between pairs that are drawn: more hide the points.
const MOST_LINES: usize = 300;

/// Rows of the table for each kind.
const MOST_ROWS: usize = 30;

/// Characters of a tooltip.
const TITLE: usize = 70;

/// Images as squares and texts as circles; `None` without a point.
pub(crate) fn embedding_map(id: &str, map: &EmbeddingMap) -> Option<Markup> {
    let can = |point: &&MapPoint| is_drawable(point.x) && is_drawable(point.y);
    let kinds = [(&map.images, "image", 0_u8, Mark::Square), (&map.texts, "text", 1, Mark::Circle)];
    let all = || map.images.iter().chain(&map.texts).filter(can);
    let canvas = Canvas { width: 640, height: 480, left: 54, bottom: 46, top: 12, right: 16 };
    let mut x = Axis::around(all().map(|point| point.x), 6)?;
    let mut y = Axis::around(all().map(|point| point.y), 6)?;
    equalise(&mut x, &mut y, canvas);
    let place = |point: &MapPoint| canvas.place(&x, &y, (point.x, point.y));
    let (mut points, mut legend, mut notes) = (String::new(), Vec::new(), Vec::new());
    for (found, name, series, shape) in kinds {
        let drawn: Vec<MapPoint> = evenly(&found.iter().filter(can).cloned().collect::<Vec<_>>(), MOST_POINTS);
        if drawn.len() < found.len() {
            let what = counted(found.len(), name);
            notes.push(format!("{} of {what} are drawn.", count(drawn.len() as u64)));
        }
        let radius = if drawn.len() > 500 { 2.2 } else { 3.2 };
        for point in &drawn {
            let (left, top) = place(point);
            let title = format!("{name}: {}", shortened(&point.title, TITLE));
            let shape = mark(shape, series, left, top, radius);
            points += &html! { g.dot { title { (title) } (PreEscaped(shape)) } }.into_string();
        }
        if !drawn.is_empty() {
            legend.push(LegendItem { label: counted(found.len(), name), series, mark: shape });
        }
    }
    let ends = |pair: &[usize; 2]| {
        let (image, text) = (map.images.get(pair[0])?, map.texts.get(pair[1])?);
        (can(&image) && can(&text)).then_some([(image.x, image.y), (text.x, text.y)])
    };
    let pairs: Vec<[(f64, f64); 2]> = map.pairs.iter().filter_map(ends).collect();
    let joined = evenly(&pairs, MOST_LINES);
    if !joined.is_empty() {
        let which = if joined.len() < pairs.len() {
            format!("{} of {}", joined.len(), count(pairs.len() as u64))
        } else {
            "Matching".to_owned()
        };
        notes.push(format!("{which} pairs are joined by lines."));
    }
    let layers: Vec<Layer> = joined
        .iter()
        .map(|ends| Layer::Line { points: ends.to_vec(), ink: Ink::Axis, width: 0.6, dash: 0, opacity: 0.5 })
        .collect();
    let share = |axis: usize| {
        map.explained
            .map(|shares| shares[axis])
            .filter(|share| share.is_finite())
            .map_or(String::new(), |share| format!(", {} % of the variance", fixed(100.0 * share, 1)))
    };
    let mut elements = canvas.draw((&x, &y), &format!("first component{}", share(0)), &layers);
    let second = format!("second component{}", share(1));
    elements += &html! { text.name x=(canvas.left + 8) y="26" { (second) } }.into_string();
    elements += &points;
    notes.extend(map.note.clone());
    let description = format!(
        "Map of {} and {} along the two directions of most variance.",
        counted(map.images.len(), "image embedding"),
        counted(map.texts.len(), "text embedding")
    );
    let table = html! {
        table {
            caption { "Up to " (MOST_ROWS) " of each kind" }
            thead { tr { @for name in ["kind", "title", "first", "second"] { th scope="col" { (name) } } } }
            tbody {
                @for (found, name, ..) in kinds {
                    @for point in evenly(found, MOST_ROWS) {
                        tr {
                            td { (name) }
                            th scope="row" dir="auto" { (shortened(&point.title, TITLE)) }
                            td { (fixed(point.x, 3)) } td { (fixed(point.y, 3)) }
                        }
                    }
                }
            }
        }
    };
    let size = (canvas.width, canvas.height);
    let title = "Images and texts in two dimensions";
    Some(
        Figure { id, title, description, legend, size, elements, notes, table, class: "wide map", scrolls: false }
            .render(),
    )
}

/// Widens one of the axes so that a distance is equally long on both.
fn equalise(x: &mut Axis, y: &mut Axis, canvas: Canvas) {
    let wide = f64::from(canvas.width - canvas.left - canvas.right);
    let high = f64::from(canvas.height - canvas.top - canvas.bottom);
    let unit = ((x.high - x.low) / wide).max((y.high - y.low) / high);
    for (axis, length) in [(x, wide), (y, high)] {
        let (middle, half) = (0.5 * (axis.low + axis.high), 0.5 * unit * length);
        *axis = Axis::linear(middle - half, middle + half, 6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(number: usize) -> Vec<MapPoint> {
        (0..number).map(|at| MapPoint { x: at as f64, y: (at as f64).cos(), title: format!("<b>{at}") }).collect()
    }

    #[test]
    fn points_have_escaped_titles() {
        let map =
            EmbeddingMap { images: points(2), texts: points(3), pairs: vec![[0, 0], [7, 7]], ..Default::default() };
        let page = embedding_map("m", &map).unwrap().into_string();
        assert!(page.contains("image: &lt;b&gt;1") && !page.contains("<b>"));
        assert_eq!(page.matches("class=\"dot\"").count(), 5);
        assert!(page.contains("Matching pairs are joined"));
    }

    #[test]
    fn points_beyond_the_most_are_counted() {
        let map = EmbeddingMap { images: points(5_000), ..Default::default() };
        let page = embedding_map("m", &map).unwrap().into_string();
        assert_eq!(page.matches("class=\"dot\"").count(), MOST_POINTS);
        assert!(page.contains("2,000 of 5,000 images are drawn."));
    }

    #[test]
    fn points_that_are_not_finite_are_left_out() {
        let mut map = EmbeddingMap { images: points(3), ..Default::default() };
        map.images[0].x = f64::NAN;
        let page = embedding_map("m", &map).unwrap().into_string();
        assert!(page.contains("2 of 3 images are drawn.") && !page.contains("NaN"));
        assert!(embedding_map("m", &EmbeddingMap::default()).is_none());
        let one = EmbeddingMap { texts: points(1), ..Default::default() };
        assert!(embedding_map("m", &one).is_some());
    }
}
