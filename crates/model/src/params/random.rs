//! Random numbers as pure functions of a seed and a name: no state to save, and the same values on every backend.

use rayon::prelude::*;

/// One step of SplitMix64 (Steele, Lea, Flood 2014): a bijective mix of 64 bits.
fn split_mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Derives the seed of the stream `name` from `seed`.
pub(crate) fn named_seed(seed: u64, name: &str) -> u64 {
    name.bytes().fold(split_mix(seed), |state, byte| split_mix(state ^ u64::from(byte)))
}

/// The uniform number in (0, 1) at `index` of the stream `seed`.
fn fraction(seed: u64, index: u64) -> f64 {
    // 53 bits, offset by half a step to exclude 0, of which Box-Muller takes the logarithm.
    ((split_mix(seed ^ split_mix(index)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Draws `count` normal numbers with mean 0 and standard deviation `std` (Box-Muller).
pub(crate) fn normal(seed: u64, count: usize, std: f64) -> Vec<f32> {
    let draw = |index: usize| {
        let radius = (-2.0 * fraction(seed, 2 * index as u64).ln()).sqrt();
        let angle = std::f64::consts::TAU * fraction(seed, 2 * index as u64 + 1);
        (std * radius * angle.cos()) as f32
    };
    (0..count).into_par_iter().map(draw).collect()
}

/// Draws `count` uniform numbers between `-bound` and `bound`.
pub(crate) fn uniform(seed: u64, count: usize, bound: f64) -> Vec<f32> {
    (0..count).into_par_iter().map(|index| (bound * (2.0 * fraction(seed, index as u64) - 1.0)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_mean_and_deviation() {
        let values = normal(named_seed(7, "weight"), 100_000, 0.02);
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / 1e5;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 3e-4, "{mean}");
        assert!((variance.sqrt() - 0.02).abs() < 3e-4, "{variance}");
    }
}
