//! The scores of some queries, `[keys, width]`: a query in each lane.

use crate::cpu::attention::head::Head;
use crate::cpu::attention::tiles::MOST_COLUMNS;
use crate::cpu::simd::{exp, ln};

/// A value for each lane.
pub(super) type Lanes = [f32; MOST_COLUMNS];

/// Queries that are computed at once.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    /// Row of the first.
    pub first: usize,
    pub count: usize,
    /// Keys in a matrix of scores, from the first on: at least those that one of the queries attends to.
    pub keys: usize,
}

impl Strip {
    /// Those from row `first` on, at most `width`.
    #[inline(always)]
    pub fn new(head: &Head<'_>, first: usize, width: usize) -> Self {
        let [rows, _] = head.shape();
        let count = (rows - first).min(width);
        Self { first, count, keys: head.num_keys(first + count - 1) }
    }

    /// Sets what belongs to keys after their query.
    #[inline(always)]
    fn hide(self, head: &Head<'_>, width: usize, values: &mut [f32], hidden: f32) {
        if head.causal {
            for key in self.first + 1..self.keys {
                values[key * width..][..width.min(key - self.first)].fill(hidden);
            }
        }
    }
}

/// Replaces scores by probabilities with dropout, and returns their log-sum-exp.
#[inline(always)]
pub(super) fn probabilities(head: &Head<'_>, strip: Strip, width: usize, scores: &mut [f32]) -> Lanes {
    let scores = &mut scores[..strip.keys * width];
    strip.hide(head, width, scores, f32::NEG_INFINITY);
    let scale = head.scale();
    let mut top = [f32::NEG_INFINITY; MOST_COLUMNS];
    for scores in scores.chunks_exact(width) {
        // NaN passes unseen here, and makes the sum NaN below.
        top[..width].iter_mut().zip(scores).for_each(|(top, score)| *top = if *score > *top { *score } else { *top });
    }
    top[..width].iter_mut().for_each(|top| *top *= scale);
    let mut total = [0.0; MOST_COLUMNS];
    for scores in scores.chunks_exact_mut(width) {
        for ((score, top), total) in scores.iter_mut().zip(&top[..width]).zip(&mut total[..width]) {
            *score = exp(score.mul_add(scale, -top));
            *total += *score;
        }
    }
    let inverse: Lanes = std::array::from_fn(|lane| total[lane].recip());
    match head.dropout {
        None => {
            for scores in scores.chunks_exact_mut(width) {
                scores.iter_mut().zip(&inverse[..width]).for_each(|(score, inverse)| *score *= inverse);
            }
        }
        Some(dropout) => {
            let mask = dropout.starting_at_row(strip.first);
            for (key, scores) in scores.chunks_exact_mut(width).enumerate() {
                for (lane, (score, inverse)) in scores.iter_mut().zip(&inverse[..width]).enumerate() {
                    *score *= inverse * mask.factor(lane * dropout.distance + key);
                }
            }
        }
    }
    for (top, total) in top[..width].iter_mut().zip(&total[..width]) {
        *top += if total.is_finite() { ln(*total) } else { *total };
    }
    top
}

/// Replaces scores by probabilities with dropout, and `slopes`, the gradient of the probabilities, by the gradient of
/// the scores. Both are 0 for keys after their query, whatever other rows hold.
#[inline(always)]
pub(super) fn gradients(
    head: &Head<'_>,
    strip: Strip,
    width: usize,
    [scores, slopes]: [&mut [f32]; 2],
    log_sums: &Lanes,
) {
    let (scores, slopes) = (&mut scores[..strip.keys * width], &mut slopes[..strip.keys * width]);
    // So that no infinite product with a hidden key enters a mean.
    strip.hide(head, width, scores, f32::NEG_INFINITY);
    strip.hide(head, width, slopes, 0.0);
    let scale = head.scale();
    let mask = head.dropout.map(|dropout| (dropout.starting_at_row(strip.first), dropout.distance));
    let mut mean = [0.0; MOST_COLUMNS];
    for (key, (scores, slopes)) in scores.chunks_exact_mut(width).zip(slopes.chunks_exact_mut(width)).enumerate() {
        if let Some((mask, distance)) = mask {
            slopes.iter_mut().enumerate().for_each(|(lane, slope)| *slope *= mask.factor(lane * distance + key));
        }
        let lanes = log_sums[..width].iter().zip(&mut mean[..width]);
        for ((score, slope), (log_sum, mean)) in scores.iter_mut().zip(slopes).zip(lanes) {
            *score = exp(score.mul_add(scale, -log_sum));
            *mean += *score * *slope;
        }
    }
    for (key, (scores, slopes)) in scores.chunks_exact_mut(width).zip(slopes.chunks_exact_mut(width)).enumerate() {
        for ((p, slope), mean) in scores.iter_mut().zip(slopes).zip(&mean[..width]) {
            *slope = *p * (*slope - mean) * scale;
        }
        // The gradient of the values needs the probabilities after dropout, that of the scores those before it.
        if let Some((mask, distance)) = mask {
            scores.iter_mut().enumerate().for_each(|(lane, p)| *p *= mask.factor(lane * distance + key));
        }
    }
    strip.hide(head, width, scores, 0.0);
    strip.hide(head, width, slopes, 0.0);
}
