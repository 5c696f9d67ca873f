//! From the maps of a solution to the weight and bias of a head.

use dualenc_data::mix;

use crate::closed_form::canonical::{Method, Solution, remove_from_rows};
use crate::closed_form::moments::Covariances;
use crate::closed_form::span::Spans;
use crate::eval::probes::matrix::{Matrix, dot};

/// Size of the outputs that no direction is left for, as a fraction of that of the others: small enough to change no
/// ranking, and not 0, from which no gradient leads away.
const FILLING: f64 = 1e-2;

/// Stream of the weights of these outputs (ASCII `fill`).
const FILL_STREAM: u64 = 0x6669_6c6c;

/// A linear map `x W + b`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HeadMap {
    /// `[width, dim]`, flat.
    pub weight: Vec<f32>,
    /// `[dim]`, before rounding: minus the output for the mean.
    pub bias: Vec<f32>,
}

/// What the heads of both sides are made of.
pub(crate) struct HeadMaps<'a> {
    /// In the spans.
    pub covariances: &'a Covariances,
    /// In the spans.
    pub solution: &'a Solution,
    pub spans: &'a Spans,
    /// The exponent `p` of the factor `rho^p` of each direction.
    pub power: f64,
    /// Outputs of a head.
    pub dim: usize,
    /// Whether a head of each side has a bias.
    pub has_bias: [bool; 2],
    /// Seed of the outputs that no direction is left for.
    pub seed: u64,
}

impl HeadMaps<'_> {
    /// The map of images (`side` 0) or texts (1).
    ///
    /// Only the direction of an output counts for the model. But the steps of AdamW have the size of the learning rate,
    /// so the size of the weights decides how fast they turn. Outputs have a root mean square norm of 1: several layers
    /// side by side have narrow directions, which the map enlarges, so that weights as large as random ones make
    /// outputs many times as long, and hardly turn (docs/ALIGNMENT.md, "Size of the start").
    pub fn of(&self, side: usize) -> HeadMap {
        let map = &self.solution.maps[side];
        let power = match (self.solution.method, side) {
            (Method::Cca, _) => self.power,
            (Method::Ridge, 0) => 0.0,
            (Method::Ridge, _) => 1.0,
        };
        let mut rows = map.clone();
        for (row, strength) in rows.rows_mut().zip(&self.solution.strengths) {
            row.iter_mut().for_each(|value| *value *= strength.powf(power));
        }
        self.fill(side, &mut rows);
        let factor = (self.variance(side, &rows) * rows.num_rows() as f64).sqrt().recip();
        rows.values.iter_mut().for_each(|value| *value *= factor);
        let bias = rows.rows().map(|row| -dot(row, &self.covariances.means[side]) as f32).collect();
        if let Some(span) = self.spans.side(side) {
            rows = span.expanded(&rows);
        }
        HeadMap { weight: rows.transposed().values.iter().map(|&value| value as f32).collect(), bias }
    }

    /// Adds random rows for the outputs that no direction is left for.
    fn fill(&self, side: usize, rows: &mut Matrix) {
        let (known, width) = (rows.num_rows(), rows.columns);
        if known >= self.dim {
            return;
        }
        let bits = |row: usize, at: usize| mix(self.seed, &[FILL_STREAM, side as u64, row as u64, at as u64]);
        // Uniform from -1 to 1.
        let draw = |row, at| (bits(row, at) >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
        let values = (known..self.dim).flat_map(|row| (0..width).map(move |at| draw(row, at))).collect();
        let mut filling = Matrix { columns: width, values };
        let mean = &self.covariances.means[side];
        let length = dot(mean, mean).sqrt();
        if !self.has_bias[side] && length > 0.0 {
            remove_from_rows(&mut filling, &mean.iter().map(|value| value / length).collect::<Vec<_>>());
        }
        let size = FILLING * (self.variance(side, rows) / self.variance(side, &filling)).sqrt();
        rows.values.extend(filling.values.iter().map(|value| value * size));
    }

    /// The mean variance of the outputs of a map.
    fn variance(&self, side: usize, rows: &Matrix) -> f64 {
        let products = rows.times_transposed(&self.covariances.within[side]);
        dot(&products.values, &rows.values) / rows.num_rows().max(1) as f64
    }
}
