//! A drawing backend of `plotters` that writes SVG with classes in place of colours, so that style sheets decide them.

use std::convert::Infallible;
use std::fmt::Write;

use plotters::style::{RGBAColor, ShapeStyle};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind};

/// Units of the backend in one of the SVG: `plotters` has whole coordinates, and a tenth is finer than what is seen.
pub(crate) const SCALE: i32 = 10;

/// What a stroke or a fill is for. The style sheet names its colour `--ink-NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    Grid,
    Axis,
    /// A series, by its number.
    Series(u8),
}

/// Series that differ in colour; those beyond start again with another dash.
pub(crate) const SERIES_INKS: u8 = 6;

impl Ink {
    fn code(self) -> u8 {
        match self {
            Ink::Grid => 1,
            Ink::Axis => 2,
            Ink::Series(number) => 16 + number % SERIES_INKS,
        }
    }

    /// The class of a code: `grid`, `axis`, or `s0` to `s5`.
    fn class(code: u8) -> String {
        match code {
            0 => "ink".to_owned(),
            1 => "grid".to_owned(),
            2 => "axis".to_owned(),
            code => format!("s{}", code.saturating_sub(16)),
        }
    }

    /// A style for `plotters`: `width` in units of the SVG, `dash` from 0 (solid) to 3.
    pub fn style(self, width: f64, dash: u8, opacity: f64) -> ShapeStyle {
        let stroke_width = (width * f64::from(SCALE)).round() as u32;
        ShapeStyle { color: RGBAColor(self.code(), dash, 0, opacity), filled: false, stroke_width }
    }

    /// A fill for `plotters`.
    pub fn fill(self, opacity: f64) -> ShapeStyle {
        ShapeStyle { color: RGBAColor(self.code(), 0, 0, opacity), filled: true, stroke_width: 0 }
    }
}

/// Writes SVG elements.
pub(crate) struct SvgBackend<'a> {
    pub out: &'a mut String,
    /// Width and height in units of the backend.
    pub size: (u32, u32),
}

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

/// A coordinate of the SVG: tenths, without a fraction where it is zero.
pub(crate) fn unit(value: i32) -> String {
    let (whole, tenth) = (value / SCALE, (value % SCALE).abs());
    let sign = if value < 0 && whole == 0 { "-" } else { "" };
    if tenth == 0 { whole.to_string() } else { format!("{sign}{whole}.{tenth}") }
}

impl SvgBackend<'_> {
    fn write(&mut self, element: &str) {
        self.out.push_str(element);
    }

    fn path<S: BackendStyle>(&mut self, points: impl IntoIterator<Item = BackendCoord>, style: &S, fill: bool) {
        let color = style.color();
        if color.alpha <= 0.0 {
            return;
        }
        let mut data = String::new();
        for (place, (x, y)) in points.into_iter().enumerate() {
            let command = if place == 0 { 'M' } else { ' ' };
            _ = write!(data, "{command}{} {}", unit(x), unit(y));
        }
        let class = Ink::class(color.rgb.0);
        let opacity = if color.alpha < 1.0 { format!(" opacity=\"{:.2}\"", color.alpha) } else { String::new() };
        if fill {
            self.write(&format!("<path class=\"fill {class}\"{opacity} d=\"{data}Z\"/>"));
        } else {
            let dash = if color.rgb.1 > 0 { format!(" dash{}", color.rgb.1) } else { String::new() };
            let width = unit(style.stroke_width() as i32);
            let attributes = format!("class=\"line {class}{dash}\" stroke-width=\"{width}\"{opacity}");
            self.write(&format!("<path {attributes} d=\"{data}\"/>"));
        }
    }
}

impl DrawingBackend for SvgBackend<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Drawn {
        self.draw_rect((x, y), (x + SCALE, y + SCALE), &color, true)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Drawn {
        self.path([from, to], style, false);
        Ok(())
    }

    fn draw_rect<S: BackendStyle>(&mut self, a: BackendCoord, b: BackendCoord, style: &S, fill: bool) -> Drawn {
        self.path([a, (b.0, a.1), b, (a.0, b.1), a], style, fill);
        Ok(())
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Drawn {
        self.path(path, style, false);
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Drawn {
        self.path(path, style, true);
        Ok(())
    }

    fn draw_text<T: BackendTextStyle>(&mut self, text: &str, style: &T, (x, y): BackendCoord) -> Drawn {
        let anchor = match style.anchor().h_pos {
            HPos::Left => "start",
            HPos::Center => "middle",
            HPos::Right => "end",
        };
        let shift = match style.anchor().v_pos {
            VPos::Top => ".8em",
            VPos::Center => ".32em",
            VPos::Bottom => "-.2em",
        };
        let (x, y) = (unit(x), unit(y));
        let text = maud::html! { text x=(x) y=(y) dy=(shift) text-anchor=(anchor) { (text) } };
        self.write(&text.into_string());
        Ok(())
    }

    fn estimate_text_size<T: BackendTextStyle>(
        &self,
        text: &str,
        style: &T,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        // Digits of common sans-serif fonts are 0.55 to 0.6 em wide.
        Ok(((0.6 * style.size() * text.chars().count() as f64) as u32, style.size() as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenths_are_exact() {
        assert_eq!([0, 5, -5, 10, 123, -123].map(unit), ["0", "0.5", "-0.5", "1", "12.3", "-12.3"]);
    }

    #[test]
    fn colours_become_classes() {
        let mut out = String::new();
        let mut backend = SvgBackend { out: &mut out, size: (100, 100) };
        backend.draw_line((0, 0), (10, 15), &Ink::Series(7).style(1.5, 1, 0.5)).unwrap();
        assert_eq!(out, "<path class=\"line s1 dash1\" stroke-width=\"1.5\" opacity=\"0.50\" d=\"M0 0 1 1.5\"/>");
    }
}
