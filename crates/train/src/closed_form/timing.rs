//! How long a closed form takes, from one of random features with fewer values.

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::Device;
use dualenc_data::mix;

use crate::closed_form::canonical::Method;
use crate::closed_form::head_map::HeadMaps;
use crate::closed_form::moments::{Block, Moments, Shift};
use crate::closed_form::paired_features::BLOCK_IMAGES;
use crate::closed_form::span::Spans;
use crate::closed_form::split::FEWEST;
use crate::error::TrainError;

/// Values at which maps are timed: large enough that arithmetic takes the time, and done in less than a second.
const TIMED: usize = 512;

/// Seed of the features (ASCII `time`).
const SEED: u64 = 0x7469_6d65;

/// What a closed form is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub pairs: usize,
    /// Distinct images and texts.
    pub distinct: [usize; 2],
    /// Values of the features of a side.
    pub widths: [usize; 2],
    pub embed_dim: usize,
    /// Ridges and powers that are tried.
    pub tried: [usize; 2],
    /// Whether the temperature has images of its own, and a fit without them.
    pub for_temperature: bool,
}

impl Extent {
    /// Seconds without the features themselves and without recall on held-out pairs.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data.
    pub fn seconds(&self, device: &Device) -> Result<f64, TrainError> {
        let (_, _, of_pairs) = moments(self.widths, BLOCK_IMAGES, device)?;
        let products = of_pairs * self.pairs as f64 / BLOCK_IMAGES as f64;
        // Few pairs have fewer directions.
        let sizes: [usize; 2] = std::array::from_fn(|side| self.widths[side].min(self.distinct[side]));
        let factor = (sizes[0].max(sizes[1]) as f64 / TIMED as f64).max(1.0);
        let small = |size: usize| ((size as f64 / factor).ceil() as usize).max(2);
        let (found, shift, _) = moments(sizes.map(small), 2 * TIMED, device)?;
        let spans = Spans::new([usize::MAX; 2], &shift);
        let (covariances, dim) = (found.covariances(), small(self.embed_dim));
        let started = Instant::now();
        let solution = covariances.solve(Method::Cca, 0.1, dim)?;
        let of_solution = started.elapsed().as_secs_f64();
        let (covariances, solution, spans, has_bias) = (&covariances, &solution, &spans, [true; 2]);
        let maps = HeadMaps { covariances, solution, spans, power: 1.0, dim, has_bias, seed: SEED };
        for side in [0, 1] {
            black_box(maps.of(side));
        }
        let of_heads = started.elapsed().as_secs_f64() - of_solution;
        // Nothing is tried where nothing is held out.
        let [ridges, powers] = self.tried.map(|tried| if self.distinct[0] < FEWEST { 0.0 } else { tried as f64 });
        // The time of solutions and heads is of third order. The last fit is of all pairs.
        let fits = if self.for_temperature { 2.0 } else { 1.0 };
        let maps = (ridges + fits) * of_solution + (ridges * powers + fits) * of_heads;
        Ok(products + maps * factor.powi(3))
    }
}

/// Sums over pairs of random features, and the seconds that these take.
fn moments(widths: [usize; 2], pairs: usize, device: &Device) -> Result<(Moments, Shift, f64), TrainError> {
    let value = |at: usize| (mix(SEED, &[at as u64]) >> 40) as f32 / (1u64 << 24) as f32;
    let [images, texts] = widths.map(|width| (0..pairs * width).map(|at| value(at + width)).collect());
    let block = Block { images, texts, pairs: (0..pairs).map(|pair| (pair, 1.0)).collect() };
    let shift = Shift::of(&block, pairs);
    let mut found = Moments::new(shift.clone());
    let started = Instant::now();
    found.add(&block, |_| true, device)?;
    Ok((found, shift, started.elapsed().as_secs_f64()))
}
