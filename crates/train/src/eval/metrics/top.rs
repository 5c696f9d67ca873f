//! The best columns of every row, and what a softmax over all columns needs.

use crate::error::TrainError;
use crate::eval::metrics::scores::{Answer, Scores};

/// The columns with the highest scores of every row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Top {
    /// Columns per row: at most the number of columns.
    pub k: usize,
    /// `[rows, k]`, flat; the best first, ties in order of columns, scores that are no numbers last.
    answers: Vec<Answer>,
    /// Of each row, the logarithm of the sum of `exp(scale * score)` over all columns.
    log_sums: Vec<f64>,
    scale: f64,
}

impl Top {
    /// Looks for the `k` best columns of every row. `scale`: the factor of the scores in a softmax.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when the stop flag is set.
    pub fn of(scores: &Scores<'_>, k: usize, scale: f64) -> Result<Self, TrainError> {
        let k = k.min(scores.num_columns());
        let mut answers = Vec::with_capacity(scores.num_rows() * k);
        let mut log_sums = Vec::with_capacity(scores.num_rows());
        scores.blocks(|tiles| {
            let mut rows = vec![Row::default(); tiles.rows.len()];
            tiles.each(|scores, columns| {
                for (row, scores) in rows.iter_mut().zip(scores.chunks_exact(columns.len().max(1))) {
                    row.add(scores, columns.start, k, scale);
                }
            })?;
            for row in rows {
                answers.extend(row.best);
                log_sums.push(row.max + row.sum.ln());
            }
            Ok(())
        })?;
        Ok(Self { k, answers, log_sums, scale })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.log_sums.len()
    }

    /// The best columns of a row, the best first.
    pub fn row(&self, row: usize) -> &[Answer] {
        &self.answers[row * self.k..][..self.k]
    }

    /// The probability of a score in a row, in the softmax over all columns.
    pub fn probability(&self, row: usize, score: f32) -> f64 {
        (self.scale * f64::from(score) - self.log_sums[row]).exp()
    }
}

/// A row with scores that come tile by tile.
#[derive(Clone)]
struct Row {
    best: Vec<Answer>,
    /// The largest scaled score so far, which keeps the sum in range.
    max: f64,
    /// Of `exp(scaled score - max)`.
    sum: f64,
}

impl Default for Row {
    fn default() -> Self {
        Self { best: Vec::new(), max: f64::NEG_INFINITY, sum: 0.0 }
    }
}

impl Row {
    /// Adds the scores of the columns from `start` on.
    fn add(&mut self, scores: &[f32], start: usize, k: usize, scale: f64) {
        for (column, &score) in (start..).zip(scores) {
            let answer = Answer { column, score };
            if self.best.len() < k || self.best.last().is_some_and(|&last| answer.is_before(last)) {
                let place = self.best.partition_point(|&better| !answer.is_before(better));
                self.best.truncate(k.saturating_sub(1));
                self.best.insert(place.min(self.best.len()), answer);
            }
        }
        let max = scores.iter().fold(self.max, |max, &score| max.max(scale * f64::from(score)));
        let tile: f64 = scores.iter().map(|&score| (scale * f64::from(score) - max).exp()).sum();
        self.sum = if self.max == f64::NEG_INFINITY { tile } else { self.sum * (self.max - max).exp() + tile };
        self.max = max;
    }
}

#[cfg(test)]
mod tests {
    use dualenc_data::mix;

    use super::*;
    use crate::device::Compute;
    use crate::stop_flag::StopFlag;

    /// Small integers, so that many scores are equal and all sums are exact.
    fn integers(seed: u64, count: usize) -> Vec<f32> {
        (0..count).map(|at| (mix(seed, &[at as u64]) % 5) as f32 - 2.0).collect()
    }

    fn top(rows: &[f32], columns: &[f32], dim: usize, tile: usize, k: usize) -> Top {
        let compute = Compute::select("cpu", None).unwrap();
        let stop = StopFlag::default();
        Top::of(&Scores { rows, columns, dim, device: &compute.device, stop: &stop, tile }, k, 0.7).unwrap()
    }

    #[test]
    fn tiles_find_what_a_sort_finds() {
        let dim = 3;
        let (rows, columns) = (integers(1, 37 * dim), integers(2, 41 * dim));
        for (tile, k) in [(1, 1), (3, 5), (64, 5), (128, 41), (1000, 10), (usize::MAX, 50)] {
            let top = top(&rows, &columns, dim, tile, k);
            assert_eq!((top.len(), top.k), (37, k.min(41)));
            for (at, row) in rows.chunks_exact(dim).enumerate() {
                let dot = |column: &[f32]| row.iter().zip(column).map(|(a, b)| a * b).sum::<f32>();
                let scores: Vec<f32> = columns.chunks_exact(dim).map(dot).collect();
                let mut order: Vec<usize> = (0..scores.len()).collect();
                order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap().then(a.cmp(&b)));
                let found: Vec<usize> = top.row(at).iter().map(|answer| answer.column).collect();
                assert_eq!(found, order[..top.k], "tile {tile}");
                let sum: f64 = scores.iter().map(|&score| (0.7 * f64::from(score)).exp()).sum();
                let expected = (0.7 * f64::from(scores[order[0]])).exp() / sum;
                let probability = top.probability(at, top.row(at)[0].score);
                assert!((probability - expected).abs() < 1e-12, "{probability}, expected {expected}");
            }
        }
    }

    #[test]
    fn nan_is_never_among_the_best() {
        let columns = [f32::NAN, 0.5, f32::NAN, 0.9];
        for tile in [1, 2, 100] {
            let top = top(&[1.0], &columns, 1, tile, 3);
            let found: Vec<usize> = top.row(0).iter().map(|answer| answer.column).collect();
            assert_eq!(found[..2], [3, 1], "tile {tile}");
            assert!(top.row(0)[2].score.is_nan());
        }
    }
}
