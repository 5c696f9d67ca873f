//! The weights of a resize along one axis.

use crate::images::filter::Filter;

/// Fraction bits of a weight: 32 bits minus 8 for a sample and 2 for overshoot (`PRECISION_BITS` of Resample.c).
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// A half, in fixed point: sums start with it, so that they are rounded to the nearest.
pub(super) const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// The level of a sum that started with [`HALF`].
#[inline(always)]
pub(super) fn level(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Bytes summed at a time: the number of 32-bit sums in a vector of 512 bits.
pub(super) const LANES: usize = 16;

/// Weighted sums of `N` bytes at a time; `taps` are the weights with their bytes.
#[inline(always)]
pub(super) fn sums<'a, const N: usize>(taps: impl Iterator<Item = (i32, &'a [u8; N])>) -> [u8; N] {
    let mut sums = [HALF; N];
    for (weight, bytes) in taps {
        for lane in 0..N {
            // Weights sum to one, so nothing overflows; wrapping avoids checks, which would prevent vectorisation.
            sums[lane] = sums[lane].wrapping_add(i32::from(bytes[lane]).wrapping_mul(weight));
        }
    }
    let mut bytes = [0u8; N];
    for lane in 0..N {
        bytes[lane] = level(sums[lane]);
    }
    bytes
}

/// The weights of one axis, for consecutive output positions.
pub(super) struct Kernels {
    /// First source position of each output position.
    first: Vec<usize>,
    /// All weights in fixed point, grouped by position.
    weights: Vec<i32>,
    /// The weights of output position `i` are `weights[ends[i - 1]..ends[i]]`.
    ends: Vec<usize>,
}

impl Kernels {
    /// `precompute_coeffs` and `normalize_coeffs_8bpc` of Resample.c, for the outputs `start..start + count` of
    /// `target`. These cover the first `extent` of the `source` positions: the end of a box of Pillow's `resize`.
    pub(super) fn new((source, extent): (u32, f64), target: u32, start: u32, count: u32, filter: Filter) -> Self {
        let scale = extent / f64::from(target);
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let inverse = 1.0 / filter_scale;
        let mut kernels = Self {
            first: Vec::with_capacity(count as usize),
            weights: Vec::new(),
            ends: Vec::with_capacity(count as usize),
        };
        let mut weights = Vec::new();
        for position in start..start + count {
            let center = (f64::from(position) + 0.5) * scale;
            // Truncation towards zero after adding a half, as C casts do.
            let min = ((center - support + 0.5) as i64).max(0);
            let max = ((center + support + 0.5) as i64).min(i64::from(source));
            weights.clear();
            weights.extend((min..max).map(|x| filter.weight((x as f64 - center + 0.5) * inverse)));
            let sum: f64 = weights.iter().sum();
            kernels.first.push(min as usize);
            kernels.weights.extend(weights.iter().map(|&weight| {
                let weight = if sum == 0.0 { weight } else { weight / sum };
                let fixed = weight * f64::from(1 << PRECISION_BITS);
                (if weight < 0.0 { fixed - 0.5 } else { fixed + 0.5 }) as i32
            }));
            kernels.ends.push(kernels.weights.len());
        }
        kernels
    }

    pub(super) fn len(&self) -> usize {
        self.first.len()
    }

    /// First source position and weights of output `index`.
    #[inline]
    pub(super) fn get(&self, index: usize) -> (usize, &[i32]) {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        (self.first[index], &self.weights[start..self.ends[index]])
    }

    /// The number of weights of the output that has most.
    pub(super) fn most_taps(&self) -> usize {
        (0..self.len()).map(|index| self.get(index).1.len()).max().unwrap_or(0)
    }

    /// The range of source positions that the outputs need: first, and one past the last.
    pub(super) fn span(&self) -> (usize, usize) {
        let last = self.len() - 1;
        let (start, weights) = self.get(last);
        (self.first[0], start + weights.len())
    }
}
