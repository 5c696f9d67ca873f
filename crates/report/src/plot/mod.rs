//! Plots as SVG that follow the theme of the page.

pub(crate) mod axis;
pub(crate) mod backend;
pub(crate) mod bars;
pub(crate) mod canvas;
pub(crate) mod figure;
pub(crate) mod heat_map;
pub(crate) mod hover;
pub(crate) mod line_chart;
pub(crate) mod reduce;
pub(crate) mod reliability;
pub(crate) mod scatter;
