//! What each logit of the softmax loss weighs, and what the losses come to by chance.

use burn::tensor::{Tensor, TensorData};

/// Label smoothing as PyTorch's `cross_entropy` defines it (Szegedy et al., arXiv:1512.00567, sec. 7), in both directions: a share
/// of each target's mass is spread evenly over its candidates, which are all but those that are masked.
///
/// What is spread weighs a logit by a sum of two numbers, of its row and of its column. So the loss falls by a product of
/// sums of embeddings, without a matrix of logits, and the few masked pairs are set right among the targets.
pub(crate) struct Smoothing {
    share: f64,
    /// Of each row and of each column: how many candidates.
    candidates: [Vec<usize>; 2],
}

impl Smoothing {
    pub fn new(share: f64, batch: usize, masked: &[(usize, usize)]) -> Self {
        let mut candidates = [vec![batch; batch], vec![batch; batch]];
        for &(row, column) in masked {
            candidates[0][row] -= 1;
            candidates[1][column] -= 1;
        }
        Self { share, candidates }
    }

    /// The factors of logits in the loss as (row, column, factor), sorted: the mean over both directions and the batch of
    /// target distributions that share their mass among a pair and its `positives`; of `masked` pairs, what
    /// [`Smoothing::apply`] takes too much.
    pub fn targets(&self, positives: &[(usize, usize)], masked: &[(usize, usize)]) -> Vec<(usize, usize, f32)> {
        let batch = self.candidates[0].len();
        let mut masses = [vec![1.0f64; batch], vec![1.0; batch]];
        for &(row, column) in positives {
            masses[0][row] += 1.0;
            masses[1][column] += 1.0;
        }
        let hard = 0.5 * (1.0 - self.share) / batch as f64;
        let factor = |row: usize, column: usize| hard * (1.0 / masses[0][row] + 1.0 / masses[1][column]);
        let pairs = (0..batch).map(|pair| (pair, pair)).chain(positives.iter().copied());
        let mut factors: Vec<_> = pairs.map(|(row, column)| (row, column, factor(row, column) as f32)).collect();
        if self.share > 0.0 {
            let spread = |row: usize, column: usize| (self.spread(0, row) + self.spread(1, column)) as f32;
            factors.extend(masked.iter().map(|&(row, column)| (row, column, -spread(row, column))));
        }
        factors.sort_unstable_by_key(|&(row, column, _)| (row, column));
        factors
    }

    /// What a logit of row (0) or column (1) `at` is weighed by.
    fn spread(&self, direction: usize, at: usize) -> f64 {
        0.5 * self.share / (self.candidates[direction].len() * self.candidates[direction][at]) as f64
    }

    /// Lowers `loss` `[1]` by every logit's weight times the logit.
    pub fn apply(&self, loss: Tensor<1>, image: &Tensor<2>, text: &Tensor<2>, logit_scale: &Tensor<1>) -> Tensor<1> {
        if self.share == 0.0 {
            return loss;
        }
        let batch = self.candidates[0].len();
        // Of one side the embeddings by their weights, and all alike; of the other the other way round.
        let weigh = |embeds: &Tensor<2>, weights: [&dyn Fn(usize) -> f64; 2]| {
            let values = weights.iter().flat_map(|weight| (0..batch).map(move |at| weight(at) as f32)).collect();
            let device = embeds.device().without_autodiff();
            Tensor::<2>::from_data(TensorData::new::<f32, _>(values, [2, batch]), &device).matmul(embeds.clone())
        };
        let images = weigh(image, [&|row| self.spread(0, row), &|_| 1.0]);
        let texts = weigh(text, [&|_| 1.0, &|column| self.spread(1, column)]);
        loss - (images * texts).sum() * logit_scale.clone().exp()
    }

    /// The loss of equal logits: the mean logarithm of the number of candidates.
    pub fn chance(&self) -> f64 {
        let logarithms = self.candidates.iter().flatten().map(|&candidates| (candidates as f64).ln());
        logarithms.sum::<f64>() / (2 * self.candidates[0].len()) as f64
    }
}

/// The least sigmoid loss of equal logits: the entropy of whether a pair matches, times the pairs a row has.
pub(crate) fn sigmoid_chance(batch: usize, positives: usize, masked: usize) -> f64 {
    let pairs = (batch * batch - masked) as f64;
    let share = (batch + positives) as f64 / pairs;
    let term = |share: f64| if share > 0.0 { -share * share.ln() } else { 0.0 };
    (term(share) + term(1.0 - share)) * pairs / batch as f64
}
