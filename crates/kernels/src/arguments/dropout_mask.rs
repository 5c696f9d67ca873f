//! Inverted dropout (Srivastava et al., 2014). The factors are a pure function of a seed and a position: nothing is
//! stored between the forward and the backward pass, and a training step can be replayed bit for bit.

use rayon::prelude::*;

use crate::cpu::chunks::CHUNK;

/// Selects the values that a layer drops in one training step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DropoutMask {
    /// Low and high half of the seed.
    pub(crate) seed: [u32; 2],
    /// Values with a hash below this threshold are dropped.
    pub(crate) threshold: u32,
    /// Factor of the other values.
    pub(crate) keep_scale: f32,
}

impl DropoutMask {
    /// A mask that drops a value with `probability` and multiplies the others by `1 / (1 - probability)`.
    pub fn new(seed: u64, probability: f64) -> Self {
        Self {
            seed: [seed as u32, (seed >> 32) as u32],
            threshold: (probability * f64::from(u32::MAX)) as u32,
            keep_scale: (1.0 / (1.0 - probability)) as f32,
        }
    }

    /// The factors of the values from `position` on, an index into the flattened tensor.
    #[inline(always)]
    pub(crate) fn starting_at(self, position: u64) -> MaskSpan {
        let [low, high] = self.seed;
        // The upper half of a position selects another seed. Up to 2^32 it is 0, and the seed is the mask's own.
        let upper = (position >> 32) as u32;
        let seed = |upper: u32| high ^ upper.wrapping_mul(GOLDEN_RATIO);
        MaskSpan {
            start: position as u32,
            low,
            high: [seed(upper), seed(upper.wrapping_add(1))],
            threshold: self.threshold,
            keep_scale: self.keep_scale,
        }
    }

    /// The factors of positions `0..count`.
    pub fn factors(self, count: usize) -> Vec<f32> {
        let mut factors = vec![0.0; count];
        factors.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
            let mask = self.starting_at(chunk as u64 * CHUNK as u64);
            values.iter_mut().enumerate().for_each(|(i, value)| *value = mask.factor(i));
        });
        factors
    }
}

/// 2^32 divided by the golden ratio, made odd: its multiples differ in their upper bits too.
const GOLDEN_RATIO: u32 = 0x9e37_79b9;

/// The part of a mask that starts at some position.
#[derive(Clone, Copy)]
pub(crate) struct MaskSpan {
    /// Lower half of the position.
    start: u32,
    low: u32,
    /// For positions with the upper half of the first one, and with the next.
    high: [u32; 2],
    threshold: u32,
    keep_scale: f32,
}

impl MaskSpan {
    /// The factor of the value `index` places after the start; `index` is below 2^32.
    #[inline(always)]
    pub fn factor(self, index: usize) -> f32 {
        let place = self.start.wrapping_add(index as u32);
        let high = if place < self.start { self.high[1] } else { self.high[0] };
        let bits = mix(mix(place.wrapping_add(self.low)) ^ high);
        if bits < self.threshold { 0.0 } else { self.keep_scale }
    }
}

/// The finaliser of MurmurHash3 (Appleby, 2011): flipping one bit of the input flips each bit of the output with a
/// probability of about one half.
#[inline(always)]
fn mix(mut bits: u32) -> u32 {
    bits ^= bits >> 16;
    bits = bits.wrapping_mul(MIX[0]);
    bits ^= bits >> 13;
    bits = bits.wrapping_mul(MIX[1]);
    bits ^ (bits >> 16)
}

/// The factors of [`mix`].
pub(crate) const MIX: [u32; 2] = [0x85eb_ca6b, 0xc2b2_ae35];

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` factors from `position` on.
    fn factors_at(mask: DropoutMask, position: u64, count: usize) -> Vec<f32> {
        (0..count).map(|index| mask.starting_at(position).factor(index)).collect()
    }

    #[test]
    fn first_positions_keep_their_factors() {
        // The hash before positions had an upper half: runs that were started then go on with the same bits.
        let mask = DropoutMask::new(0x1234_5678_9abc_def0, 0.4);
        let [low, high] = mask.seed;
        for position in [0u64, 1, 77, 1 << 20, (1 << 32) - 9] {
            let expected: Vec<f32> = (0..9)
                .map(|index| mix(mix((position as u32 + index).wrapping_add(low)) ^ high))
                .map(|bits| if bits < mask.threshold { 0.0 } else { mask.keep_scale })
                .collect();
            assert_eq!(factors_at(mask, position, 9), expected, "{position}");
        }
        let dropped: String =
            factors_at(mask, 0, 24).into_iter().map(|factor| if factor == 0.0 { '-' } else { '+' }).collect();
        assert_eq!(dropped, "+-+--+---++-++--++-+++++");
    }

    #[test]
    fn mask_does_not_repeat_after_4_gi_positions() {
        let mask = DropoutMask::new(3, 0.1);
        let (count, period) = (100_001, 1u64 << 32);
        let first = factors_at(mask, 0, count);
        for place in [period, 2 * period, 7 * period, u64::from(u32::MAX) << 32] {
            let later = factors_at(mask, place, count);
            let equal = later.iter().zip(&first).filter(|(a, b)| a == b).count() as f64 / count as f64;
            assert!((equal - 0.82).abs() < 0.01, "{place}: {equal}");
            let dropped = later.iter().filter(|&&factor| factor == 0.0).count() as f64 / count as f64;
            assert!((dropped - 0.1).abs() < 0.005, "{place}: {dropped}");
            // A span across the boundary goes on as one that starts there.
            assert_eq!(factors_at(mask, place - 5, 30)[5..], later[..25], "{place}");
        }
    }

    #[test]
    fn drops_expected_fraction() {
        let factors = DropoutMask::new(3, 0.1).factors(100_001);
        let dropped = factors.iter().filter(|&&f| f == 0.0).count() as f64 / 100_001.0;
        assert!((dropped - 0.1).abs() < 0.005, "{dropped}");
        assert!(factors.iter().all(|&f| f == 0.0 || (f - 1.0 / 0.9).abs() < 1e-6));
        assert_eq!(factors, DropoutMask::new(3, 0.1).factors(100_001));
        // A seed that differs in either half gives another mask; two of 10 % agree on 0.9^2 + 0.1^2 = 82 % of the
        // positions.
        for seed in [4, 3 + (1 << 32)] {
            let others = DropoutMask::new(seed, 0.1).factors(100_001);
            let equal = others.iter().zip(&factors).filter(|(a, b)| a == b).count() as f64 / 100_001.0;
            assert!((equal - 0.82).abs() < 0.01, "{equal}");
        }
    }
}
