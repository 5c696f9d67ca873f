//! Histograms of cosine similarities.

use serde::{Deserialize, Serialize};

/// Bins of a histogram: enough to see two peaks, few enough that each holds some of a few hundred values.
const BINS: usize = 40;

/// Histograms of matching and other pairs over the same bins of equal width.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Similarities {
    /// Lower end of the first bin.
    pub low: f64,
    /// Upper end of the last bin.
    pub high: f64,
    /// Matching pairs.
    pub matching: Histogram,
    /// Other pairs: an image with the caption of another one.
    pub other: Histogram,
    /// Which other pairs these are, as a sentence.
    pub note: Option<String>,
}

/// Counts of values by bin.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Histogram {
    /// Values in each bin.
    pub counts: Vec<u64>,
    /// Mean of the finite values, if there are any.
    pub mean: Option<f64>,
    /// Values that are not finite; they are in no bin.
    pub not_finite: u64,
}

impl Histogram {
    /// Number of finite values.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |total, count| total.saturating_add(*count))
    }

    fn of(values: &[f32], low: f64, high: f64) -> Self {
        let mut histogram = Self { counts: vec![0; BINS], ..Self::default() };
        let mut sum = 0.0;
        for value in values.iter().copied().map(f64::from) {
            if !value.is_finite() {
                histogram.not_finite += 1;
                continue;
            }
            let place = ((value - low) / (high - low) * BINS as f64).floor() as usize;
            histogram.counts[place.min(BINS - 1)] += 1;
            sum += value;
        }
        let total = histogram.total();
        histogram.mean = (total > 0).then(|| sum / total as f64);
        histogram
    }
}

/// The histograms of two lists of cosine similarities. The bins span all finite values, to the next hundredth outwards.
#[must_use]
pub fn similarities(matching: &[f32], other: &[f32]) -> Similarities {
    let finite = || matching.iter().chain(other).copied().map(f64::from).filter(|value| value.is_finite());
    let (low, high) = finite()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (f64::min(low, value), f64::max(high, value)));
    if low > high {
        let none = |values: &[f32]| Histogram { not_finite: values.len() as u64, ..Histogram::default() };
        return Similarities { low: -1.0, high: 1.0, matching: none(matching), other: none(other), note: None };
    }
    let low = (low * 100.0).floor() / 100.0;
    let high = f64::max((high * 100.0).ceil() / 100.0, low + 0.01);
    let [matching, other] = [matching, other].map(|values| Histogram::of(values, low, high));
    Similarities { low, high, matching, other, note: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_in_their_bins() {
        let found = similarities(&[0.91, 1.0], &[0.0, 0.01, 0.5]);
        assert_eq!((found.low, found.high), (0.0, 1.0));
        assert_eq!((found.matching.counts[36], found.matching.counts[39]), (1, 1));
        assert_eq!((found.other.counts[0], found.other.counts[20], found.other.total()), (2, 1, 3));
        assert!((found.matching.mean.unwrap() - 0.955).abs() < 1e-7);
    }

    #[test]
    fn not_finite_values_are_counted_apart() {
        let found = similarities(&[f32::NAN, 0.5], &[f32::INFINITY]);
        assert_eq!((found.matching.total(), found.matching.not_finite), (1, 1));
        assert_eq!((found.other.total(), found.other.not_finite, found.other.mean), (0, 1, None));
    }

    #[test]
    fn nothing_gives_empty_histograms() {
        let found = similarities(&[], &[f32::NAN]);
        assert_eq!((found.matching.total(), found.other.not_finite), (0, 1));
        assert!(found.low < found.high);
    }

    #[test]
    fn equal_values_have_one_bin() {
        let found = similarities(&[0.5; 7], &[]);
        assert!(found.low < found.high);
        assert_eq!(found.matching.counts.iter().filter(|count| **count > 0).count(), 1);
    }
}
