//! Draws layers on a pair of axes.

use std::convert::Infallible;

use plotters::chart::{ChartBuilder, ChartContext, LabelAreaPosition};
use plotters::coord::cartesian::Cartesian2d;
use plotters::drawing::{DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{PathElement, Polygon};
use plotters::style::{IntoFont, TRANSPARENT};

use crate::plot::axis::Axis;
use crate::plot::backend::{Ink, SCALE, SvgBackend};

type Area<'a, 'b> = ChartContext<'a, SvgBackend<'b>, Cartesian2d<Axis, Axis>>;

/// Something that is drawn, in values of the axes.
#[derive(Debug, Clone)]
pub(crate) enum Layer {
    /// A line through points.
    Line { points: Vec<(f64, f64)>, ink: Ink, width: f64, dash: u8, opacity: f64 },
    /// The area inside of points.
    Area { points: Vec<(f64, f64)>, ink: Ink, opacity: f64 },
}

/// Size and margins in units of the SVG.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Canvas {
    pub width: i32,
    pub height: i32,
    /// Width for the labels of the y axis.
    pub left: i32,
    /// Height for the labels of the x axis; there are none, nor a line, if it is 0.
    pub bottom: i32,
    pub top: i32,
    pub right: i32,
}

impl Canvas {
    /// The size of all small plots: text of 11.5 units stays readable where a plot is 340 pixels wide.
    pub const SMALL: Self = Self { width: 400, height: 232, left: 46, bottom: 36, top: 24, right: 16 };

    /// A point in units of the SVG.
    pub fn place(&self, x: &Axis, y: &Axis, point: (f64, f64)) -> (f64, f64) {
        let (across, up) = (x.share(point.0), y.share(point.1));
        let (width, height) = (self.width - self.left - self.right, self.height - self.top - self.bottom);
        (f64::from(self.left) + across * f64::from(width), f64::from(self.top) + (1.0 - up) * f64::from(height))
    }

    /// The elements of the plot; empty if it cannot be drawn.
    pub fn draw(&self, (x, y): (&Axis, &Axis), x_name: &str, layers: &[Layer]) -> String {
        let mut out = String::new();
        // The backend writes into memory, which does not fail: an error is that of a degenerate axis.
        match self.try_draw(&mut out, x, y, x_name, layers) {
            Ok(()) => out,
            Err(_) => String::new(),
        }
    }

    fn try_draw(
        &self,
        out: &mut String,
        x: &Axis,
        y: &Axis,
        x_name: &str,
        layers: &[Layer],
    ) -> Result<(), DrawingAreaErrorKind<Infallible>> {
        let size = ((self.width * SCALE) as u32, (self.height * SCALE) as u32);
        let root = SvgBackend { out, size }.into_drawing_area();
        let mut builder = ChartBuilder::on(&root);
        builder
            .margin_top(self.top * SCALE)
            .margin_right(self.right * SCALE)
            .set_label_area_size(LabelAreaPosition::Left, self.left * SCALE)
            .set_label_area_size(LabelAreaPosition::Bottom, self.bottom * SCALE);
        let mut area: Area<'_, '_> = builder.build_cartesian_2d(x.clone(), y.clone())?;
        let font = || ("sans-serif", 115.0).into_font();
        let mut mesh = area.configure_mesh();
        mesh.disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(Ink::Grid.style(1.0, 0, 1.0))
            .axis_style(Ink::Axis.style(1.0, 0, 1.0))
            .set_all_tick_mark_size(4 * SCALE)
            .label_style(font())
            .axis_desc_style(font());
        if !x_name.is_empty() {
            mesh.x_desc(x_name);
        }
        mesh.draw()?;
        for layer in layers {
            draw_layer(&mut area, layer)?;
        }
        root.present()
    }
}

fn draw_layer(area: &mut Area<'_, '_>, layer: &Layer) -> Result<(), DrawingAreaErrorKind<Infallible>> {
    match layer {
        Layer::Line { points, ink, width, dash, opacity } => {
            area.draw_series([PathElement::new(points.clone(), ink.style(*width, *dash, *opacity))])?;
        }
        Layer::Area { points, ink, opacity } => {
            area.draw_series([Polygon::new(points.clone(), ink.fill(*opacity))])?;
        }
    }
    Ok(())
}
