//! Latent mixup: each pair is blended with another one of the batch, image with image and text with text in the same
//! proportion, before the heads (FuseMix, arXiv:2312.10144, sec. 4).
//!
//! FuseMix blends one half of a batch with the other, and so halves it. Here every pair has a partner, and the blends
//! that share a pair are left out of each other's candidates.

use burn::tensor::{Int, Tensor, TensorData};
use dualenc_data::mix;
use dualenc_kernels::upload;

/// Keeps the draws of mixup apart from others of the same seed; an argument of [`mix`].
const MIXUP: u64 = 0x313e;

/// How the pairs of a batch are blended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mixing {
    /// Share of a pair in its blend, from 0 to 1; the rest is its partner's.
    pub share: f64,
    /// The partner of each pair, `[batch]`. Going from partner to partner visits the whole batch, so that no pair is
    /// its own partner and no two blends are equal.
    pub partners: Vec<usize>,
}

impl Mixing {
    /// The blends of `step`: a function of these arguments alone. The share is drawn from Beta(`alpha`, `alpha`).
    pub fn draw(alpha: f64, seed: u64, step: u64, batch: usize) -> Self {
        let key = |place: u64| mix(seed, &[MIXUP, step, place]);
        let mut order: Vec<usize> = (0..batch).collect();
        order.sort_unstable_by_key(|&pair| (key(pair as u64), pair));
        let mut partners = vec![0; batch];
        let next = order.iter().cycle().skip(1);
        order.iter().zip(next).for_each(|(&pair, &next)| partners[pair] = next);
        let draws = mix(seed, &[MIXUP, step]);
        let [own, other] = [0, 1].map(|stream| log_gamma(alpha, mix(draws, &[stream])));
        Self { share: 1.0 / (1.0 + (other - own).exp()), partners }
    }

    /// The blends of `features`, `[batch * n, width]`, where the n rows of a pair follow each other.
    pub fn blend(&self, features: &Tensor<2>) -> Tensor<2> {
        let [rows, _] = features.dims();
        let each = rows / self.partners.len().max(1);
        let of_pair = |&partner: &usize| (0..each).map(move |row| (partner * each + row) as i64);
        let indices: Vec<i64> = self.partners.iter().flat_map(of_pair).collect();
        let indices = upload::<1, Int>(TensorData::new(indices, [rows]), &features.device());
        features.clone() * self.share + features.clone().select(0, indices) * (1.0 - self.share)
    }

    /// The positions (row, column) off the diagonal at which two blends are no negatives of each other, sorted: they
    /// have a pair in common, or a pair of the row's blend matches one of the column's. `matches`: of the pairs.
    pub fn clashes(&self, matches: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let mut blends_with = vec![0; self.partners.len()];
        self.partners.iter().enumerate().for_each(|(pair, &partner)| blends_with[partner] = pair);
        let own = (0..self.partners.len()).map(|pair| (pair, pair));
        let of_match = |(row, column): (usize, usize)| {
            let columns = [column, blends_with[column]];
            [row, blends_with[row]].into_iter().flat_map(move |row| columns.map(|column| (row, column)))
        };
        let cells = own.chain(matches.iter().copied()).flat_map(of_match).filter(|(row, column)| row != column);
        let mut cells: Vec<_> = cells.collect();
        cells.sort_unstable();
        cells.dedup();
        cells
    }
}

/// The logarithm of a draw from Gamma(`shape`, 1), as a function of `seed` (Marsaglia and Tsang, 2000; below a shape of
/// 1 with the logarithm of their correction, which does not underflow).
fn log_gamma(shape: f64, seed: u64) -> f64 {
    let mut drawn = 0;
    // Above 0 and below 1.
    let mut uniform = || {
        drawn += 1;
        ((mix(seed, &[drawn]) >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    };
    let (correction, shape) = if shape < 1.0 { (uniform().ln() / shape, shape + 1.0) } else { (0.0, shape) };
    let d = shape - 1.0 / 3.0;
    loop {
        // A standard normal number (Box and Muller, 1958).
        let x = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        let v = (1.0 + x / (9.0 * d).sqrt()).powi(3);
        if v > 0.0 && uniform().ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
            return (d * v).ln() + correction;
        }
    }
}
