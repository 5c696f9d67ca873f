//! The weights of the logits in the softmax loss, and the losses of a model that guesses.

use burn::tensor::{Float, Tensor, TensorData};
use dualenc_kernels::upload;

/// Label smoothing as in PyTorch's `cross_entropy` (Szegedy et al., arXiv:1512.00567, sec. 7), in both directions: a
/// fraction of each target's mass is spread evenly over its candidates, which are all pairs that are not masked.
///
/// The spread mass gives each logit a weight that is the sum of a number of its row and a number of its column. Its
/// part of the loss is therefore a product of weighted sums of embeddings, which needs no matrix of logits. The few
/// masked pairs are corrected among the targets.
pub(crate) struct Smoothing {
    /// Fraction of the mass that is spread, from 0 to 1.
    fraction: f64,
    /// Number of candidates of each row and of each column.
    candidates: [Vec<usize>; 2],
}

impl Smoothing {
    pub fn new(fraction: f64, batch: usize, masked: &[(usize, usize)]) -> Self {
        let mut candidates = [vec![batch; batch], vec![batch; batch]];
        for &(row, column) in masked {
            candidates[0][row] -= 1;
            candidates[1][column] -= 1;
        }
        Self { fraction, candidates }
    }

    /// The target weights of logits as (row, column, weight), sorted.
    ///
    /// They are the mean over both directions and the batch of target distributions that divide their mass evenly among
    /// a pair and its `positives`. For `masked` pairs, they cancel what [`Smoothing::apply`] subtracts.
    pub fn targets(&self, positives: &[(usize, usize)], masked: &[(usize, usize)]) -> Vec<(usize, usize, f32)> {
        let batch = self.candidates[0].len();
        let mut masses = [vec![1.0f64; batch], vec![1.0; batch]];
        for &(row, column) in positives {
            masses[0][row] += 1.0;
            masses[1][column] += 1.0;
        }
        let hard = 0.5 * (1.0 - self.fraction) / batch as f64;
        let factor = |row: usize, column: usize| hard * (1.0 / masses[0][row] + 1.0 / masses[1][column]);
        let pairs = (0..batch).map(|pair| (pair, pair)).chain(positives.iter().copied());
        let mut factors: Vec<_> = pairs.map(|(row, column)| (row, column, factor(row, column) as f32)).collect();
        if self.fraction > 0.0 {
            let spread = |row: usize, column: usize| (self.spread(0, row) + self.spread(1, column)) as f32;
            factors.extend(masked.iter().map(|&(row, column)| (row, column, -spread(row, column))));
        }
        factors.sort_unstable_by_key(|&(row, column, _)| (row, column));
        factors
    }

    /// Weight of the logits of row (direction 0) or column (direction 1) `at`.
    fn spread(&self, direction: usize, at: usize) -> f64 {
        0.5 * self.fraction / (self.candidates[direction].len() * self.candidates[direction][at]) as f64
    }

    /// Subtracts the weighted sum of all logits from `loss` `[1]`. `image` and `text` are `[batch, dim]`, `logit_scale`
    /// `[1]` is a logarithm.
    pub fn apply(&self, loss: Tensor<1>, image: &Tensor<2>, text: &Tensor<2>, logit_scale: &Tensor<1>) -> Tensor<1> {
        if self.fraction == 0.0 {
            return loss;
        }
        let batch = self.candidates[0].len();
        // Two sums of embeddings `[2, dim]`: images weighted by row and unweighted, texts unweighted and by column.
        let weigh = |embeds: &Tensor<2>, weights: [&dyn Fn(usize) -> f64; 2]| {
            let values = weights.iter().flat_map(|weight| (0..batch).map(move |at| weight(at) as f32)).collect();
            let device = embeds.device().without_autodiff();
            upload::<2, Float>(TensorData::new::<f32, _>(values, [2, batch]), &device).matmul(embeds.clone())
        };
        let images = weigh(image, [&|row| self.spread(0, row), &|_| 1.0]);
        let texts = weigh(text, [&|_| 1.0, &|column| self.spread(1, column)]);
        loss - (images * texts).sum() * logit_scale.clone().exp()
    }

    /// The loss if all logits are equal: the mean logarithm of the number of candidates.
    pub fn chance(&self) -> f64 {
        let logarithms = self.candidates.iter().flatten().map(|&candidates| (candidates as f64).ln());
        logarithms.sum::<f64>() / (2 * self.candidates[0].len()) as f64
    }
}

/// The lowest sigmoid loss if all logits are equal: the entropy of whether a pair matches, times the number of pairs
/// per row of a slot. `positives` and `masked`: numbers of pairs off the diagonals of all slots.
pub(crate) fn sigmoid_chance([batch, slots]: [usize; 2], positives: usize, masked: usize) -> f64 {
    let texts = batch * slots;
    let pairs = (batch * texts - masked) as f64;
    let matching = (texts + positives) as f64 / pairs;
    let term = |probability: f64| if probability > 0.0 { -probability * probability.ln() } else { 0.0 };
    (term(matching) + term(1.0 - matching)) * pairs / texts as f64
}
