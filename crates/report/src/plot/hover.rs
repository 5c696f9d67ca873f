//! Values at a place of a plot, shown under the pointer: strips with titles, which need no script.

use maud::html;

/// A strip around a place of the x axis.
#[derive(Debug, Clone)]
pub(crate) struct Strip {
    /// In units of the SVG.
    pub x: f64,
    pub text: String,
}

/// The elements of the strips, each as wide as to the middle of the next one. `strips` ascend.
pub(crate) fn strips(strips: &[Strip], (left, right): (f64, f64), (top, bottom): (f64, f64)) -> String {
    let mut out = String::new();
    for (place, strip) in strips.iter().enumerate() {
        let before = place.checked_sub(1).map_or(left, |before| 0.5 * (strips[before].x + strip.x));
        let after = strips.get(place + 1).map_or(right, |after| 0.5 * (after.x + strip.x));
        let [x, y, width, height] =
            [before, top, (after - before).max(0.1), bottom - top].map(|value| format!("{value:.1}"));
        let line = format!("M{:.1} {top:.1}V{bottom:.1}", strip.x);
        let group = html! {
            g.strip { title { (strip.text) } path d=(line) {} rect x=(x) y=(y) width=(width) height=(height) {} }
        };
        out.push_str(&group.into_string());
    }
    out
}
