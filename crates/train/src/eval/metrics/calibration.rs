//! Whether probabilities mean what they say: the expected calibration error (Guo et al., arXiv:1706.04599, sec. 2).

/// Equal-width bins of confidence (arXiv:1706.04599, table 1).
const BINS: usize = 15;

/// Answers of similar confidence.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CalibrationBin {
    /// Number of answers.
    pub count: usize,
    /// Their mean confidence, from 0 to 1; 0 without answers.
    pub confidence: f64,
    /// The fraction of right answers; 0 without answers.
    pub accuracy: f64,
}

/// The bins from low to high confidence; bin `i` holds confidences above `i / 15`, up to `(i + 1) / 15`. `answers`: the
/// confidence of each answer, and whether it is right.
pub(crate) fn bins(answers: impl Iterator<Item = (f64, bool)>) -> Vec<CalibrationBin> {
    let mut bins = vec![CalibrationBin::default(); BINS];
    for (confidence, is_right) in answers {
        let place = (confidence * BINS as f64).ceil() as usize;
        let bin = &mut bins[place.clamp(1, BINS) - 1];
        bin.count += 1;
        bin.confidence += confidence;
        bin.accuracy += f64::from(u8::from(is_right));
    }
    for bin in bins.iter_mut().filter(|bin| bin.count > 0) {
        bin.confidence /= bin.count as f64;
        bin.accuracy /= bin.count as f64;
    }
    bins
}

/// The mean over all answers of the difference between a bin's confidence and accuracy (arXiv:1706.04599, eq. 5).
pub(crate) fn expected_error(bins: &[CalibrationBin]) -> f64 {
    let answers: usize = bins.iter().map(|bin| bin.count).sum();
    let weighted = |bin: &CalibrationBin| bin.count as f64 * (bin.confidence - bin.accuracy).abs();
    bins.iter().map(weighted).sum::<f64>() / answers.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_example_by_hand() {
        // Two answers in the bin (12/15, 13/15] of mean confidence 0.83, one right; one sure and wrong.
        let bins = bins([(0.82, true), (0.84, false), (1.0, false)].into_iter());
        assert_eq!((bins.len(), bins[12].count, bins[14].count), (15, 2, 1));
        assert!((bins[12].confidence - 0.83).abs() < 1e-12);
        assert!((expected_error(&bins) - (2.0 * 0.33 + 1.0) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn edges_belong_to_the_lower_bin() {
        let bins = bins([0.0, 1.0 / 15.0, 0.2].map(|confidence| (confidence, true)).into_iter());
        assert_eq!((bins[0].count, bins[2].count), (2, 1));
    }
}
