//! 95 % intervals of metrics by the percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
//! ch. 13): the metric is computed again from samples that are drawn with replacement from the evaluated ones.

use dualenc_data::mix;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

/// Samples that are drawn: Efron and Tibshirani, sec. 14.4, name 1000 as the least for intervals.
const RESAMPLES: u64 = 1000;

/// Seed of all draws, so that an evaluation that is run again has the same intervals (ASCII `boot`).
const SEED: u64 = 0x626f_6f74;

/// The quantiles of the ends.
const ENDS: [f64; 2] = [0.025, 0.975];

/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Intervals of some metrics. `num_units` is how many units there are to draw from, and `metrics` computes the metrics
/// from units, given by number. Units are what was sampled when the data was collected: images with all of their
/// captions, for example. A metric that is not a number in some samples has its interval from the others, and NaN ends
/// if there are none.
pub(crate) fn intervals<const N: usize>(
    num_units: usize,
    metrics: impl Fn(&[usize]) -> [f64; N] + Sync,
) -> [[f64; 2]; N] {
    let sample = |resample: u64| {
        let draw = |unit: usize| (mix(SEED, &[resample, unit as u64]) % num_units.max(1) as u64) as usize;
        metrics(&(0..num_units).map(draw).collect::<Vec<_>>())
    };
    let samples: Vec<[f64; N]> = (0..RESAMPLES).into_par_iter().map(sample).collect();
    std::array::from_fn(|metric| {
        let mut values: Vec<f64> =
            samples.iter().map(|sample| sample[metric]).filter(|value| !value.is_nan()).collect();
        values.sort_by(f64::total_cmp);
        ENDS.map(|end| quantile(&values, end))
    })
}

/// The interval of a fraction that no resample can move: 0 or 1. There the ends are those of Wilson's score interval
/// (Wilson, J. Am. Stat. Assoc. 22, 1927), which has a width; elsewhere they are `ends`. `num_units`: how many
/// independent units the fraction is of.
pub(crate) fn of_fraction(value: f64, ends: [f64; 2], num_units: f64) -> [f64; 2] {
    // The score interval of 0 hits of n is 0 to z^2 / (n + z^2).
    let beyond = Z * Z / (num_units + Z * Z);
    if value <= 0.0 {
        [0.0, beyond]
    } else if value >= 1.0 {
        [1.0 - beyond, 1.0]
    } else {
        ends
    }
}

/// The end of the name of an interval, after that of its metric.
pub(crate) const INTERVAL: &str = "_ci95";

/// Adds an interval to metrics under the metric's name and `_ci95`: an array of its two ends.
pub(crate) fn insert(metrics: &mut Map<String, Value>, name: &str, ends: [f64; 2]) {
    metrics.insert(format!("{name}{INTERVAL}"), json!(ends));
}

/// A quantile of ascending values, linear between two of them, as `numpy.quantile` computes it unless asked otherwise.
fn quantile(values: &[f64], share: f64) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let below = place.floor() as usize;
    let (low, high) = (values[below], values[(below + 1).min(last)]);
    low + (high - low) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_equal_numpys() {
        // numpy.quantile([1, 2, 4, 8], q) for q of 0, 0.025, 0.5, 0.975, 1.
        let values = [1.0, 2.0, 4.0, 8.0];
        for (share, expected) in [(0.0, 1.0), (0.025, 1.075), (0.5, 3.0), (0.975, 7.7), (1.0, 8.0)] {
            assert!((quantile(&values, share) - expected).abs() < 1e-12, "{share}");
        }
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn interval_of_a_fraction_is_binomial() {
        // 100 of 400: the normal approximation is 0.25 +- 1.96 * sqrt(0.25 * 0.75 / 400) = 0.2076 to 0.2924.
        let fraction = |units: &[usize]| [units.iter().filter(|&&unit| unit % 4 == 0).count() as f64 / 400.0, 1.0];
        let [[low, high], sure] = intervals(400, fraction);
        assert!((low - 0.2076).abs() < 0.006 && (high - 0.2924).abs() < 0.006, "{low} to {high}");
        assert_eq!(sure, [1.0, 1.0]);
        assert_eq!(intervals(400, fraction)[0], [low, high], "the draws are the same each time");
    }

    #[test]
    fn sure_fractions_have_a_width() {
        // statsmodels' `proportion_confint(60, 60, method="wilson")`: 0.9398 to 1.
        let [low, high] = of_fraction(1.0, [1.0, 1.0], 60.0);
        assert!((low - 0.939_828).abs() < 1e-6 && high == 1.0, "{low} to {high}");
        let [low, high] = of_fraction(0.0, [0.0, 0.0], 60.0);
        assert!(low == 0.0 && (high - 0.060_172).abs() < 1e-6, "{low} to {high}");
        assert_eq!(of_fraction(0.5, [0.4, 0.6], 60.0), [0.4, 0.6]);
    }

    #[test]
    fn missing_values_are_left_out() {
        let first_drawn = |units: &[usize]| [if units.contains(&0) { 1.0 } else { f64::NAN }, f64::NAN];
        let [known, unknown] = intervals(3, first_drawn);
        assert_eq!(known, [1.0, 1.0]);
        assert!(unknown.iter().all(|end| end.is_nan()));
    }
}
