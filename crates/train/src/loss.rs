//! The contrastive losses. Shapes: `[batch, dim]` embeddings, `[batch, batch]` logits with images as rows.

use std::collections::{BTreeSet, HashMap, HashSet};

use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use dualenc_kernels::{PairLoss, pair_loss};

use crate::config::{Duplicates, Loss};

/// What the data say about the pairs of a batch: a caption is a number, equal for equal captions.
#[derive(Debug, Clone)]
pub struct PairIds {
    /// The caption of each pair, `[batch]`.
    pub captions: Vec<u64>,
    /// Every caption that the data list for the image of each pair, `[batch, any]`.
    pub known: Vec<Vec<u64>>,
}

impl PairIds {
    /// The pairs of an image (row) and another pair's text (column) that the data call true: the caption is one of the
    /// image's own. Two pairs of one image match so, as do two of one caption, and two drawings of one thing that have
    /// captions in common but happened to draw different ones.
    fn matches(&self) -> Vec<(usize, usize)> {
        let mut columns: HashMap<u64, Vec<usize>> = HashMap::new();
        for (column, caption) in self.captions.iter().enumerate() {
            columns.entry(*caption).or_default().push(column);
        }
        let of_row = |(row, known): (usize, &Vec<u64>)| {
            let others = known.iter().filter_map(|caption| columns.get(caption)).flatten();
            others.filter(|&&column| column != row).map(move |&column| (row, column)).collect::<BTreeSet<_>>()
        };
        self.known.iter().enumerate().flat_map(of_row).collect()
    }
}

/// A loss with what it found in the batch.
#[derive(Debug)]
pub struct BatchLoss {
    /// `[1]`, the mean over the batch.
    pub loss: Tensor<1>,
    /// Images for which the batch holds another pair's caption that is true of them too.
    pub num_duplicates: usize,
}

/// The loss of a batch of L2-normalised embeddings.
///
/// `logit_scale` `[1]` is a logarithm; `logit_bias` `[1]` belongs to the sigmoid loss.
pub fn contrastive_loss(
    kind: Loss,
    duplicates: Duplicates,
    embeds: (Tensor<2>, Tensor<2>),
    logit_scale: Tensor<1>,
    logit_bias: Option<Tensor<1>>,
    pairs: &PairIds,
) -> BatchLoss {
    let matches = pairs.matches();
    let num_duplicates = matches.iter().map(|(row, _)| row).collect::<HashSet<_>>().len();
    let matches = match duplicates {
        Duplicates::Ignore => Vec::new(),
        _ => matches,
    };
    let (image_embeds, text_embeds) = embeds;
    let [batch, _] = image_embeds.dims();
    let tiled = pair_loss(
        &image_embeds,
        &text_embeds,
        &logit_scale,
        logit_bias.as_ref(),
        &match kind {
            Loss::Softmax => PairLoss::Softmax {
                targets: target_factors(batch, if duplicates == Duplicates::Mask { &[] } else { &matches }).into(),
                masked: if duplicates == Duplicates::Mask { matches.clone() } else { Vec::new() }.into(),
            },
            Loss::Sigmoid => {
                let of = |kind| if duplicates == kind { matches.clone() } else { Vec::new() };
                PairLoss::Sigmoid { positives: of(Duplicates::Positives).into(), masked: of(Duplicates::Mask).into() }
            }
        },
    );
    if let Some(loss) = tiled {
        return BatchLoss { loss, num_duplicates };
    }
    let logits = image_embeds.matmul(text_embeds.transpose()) * logit_scale.exp().unsqueeze();
    BatchLoss { loss: plain_loss(kind, duplicates, logits, logit_bias, &matches), num_duplicates }
}

/// The loss of a whole matrix of logits, without `logit_bias`.
fn plain_loss(
    kind: Loss,
    duplicates: Duplicates,
    logits: Tensor<2>,
    logit_bias: Option<Tensor<1>>,
    matches: &[(usize, usize)],
) -> Tensor<1> {
    match kind {
        Loss::Softmax => softmax_loss(logits, duplicates, matches),
        Loss::Sigmoid => {
            let logits = match logit_bias {
                Some(bias) => logits + bias.unsqueeze(),
                None => logits,
            };
            sigmoid_loss(logits, duplicates, matches)
        }
    }
}

/// Symmetric InfoNCE: the mean of the cross-entropies over texts and over images (CLIP, arXiv:2103.00020, fig. 3).
///
/// Written as `logsumexp - target logit`: one exponential a logit and direction, no matrix of probabilities.
fn softmax_loss(logits: Tensor<2>, duplicates: Duplicates, matches: &[(usize, usize)]) -> Tensor<1> {
    let [batch, _] = logits.dims();
    let device = logits.device().without_autodiff();
    let (candidates, targets) = match duplicates {
        Duplicates::Mask if !matches.is_empty() => (
            logits.clone().mask_fill(pair_mask(batch, matches, &device), f32::NEG_INFINITY),
            mean_targets(batch, &[], &device),
        ),
        Duplicates::Positives => (logits.clone(), mean_targets(batch, matches, &device)),
        _ => (logits.clone(), mean_targets(batch, &[], &device)),
    };
    let over_texts = log_sum_exp(candidates.clone(), 1).mean();
    let over_images = log_sum_exp(candidates, 0).mean();
    (over_texts + over_images) * 0.5 - (logits * targets).sum()
}

/// log of the sum of exponentials along `dim`, kept as a dimension of 1.
fn log_sum_exp(logits: Tensor<2>, dim: usize) -> Tensor<2> {
    let largest = logits.clone().detach().max_dim(dim);
    (logits - largest.clone()).exp().sum_dim(dim).log() + largest
}

/// The mean, over both directions and the batch, of target distributions that share their mass among a pair and its
/// matches: the factors of logits in the loss as (row, column, factor), sorted.
fn target_factors(batch: usize, matches: &[(usize, usize)]) -> Vec<(usize, usize, f32)> {
    let (mut of_image, mut of_text) = (vec![1.0f32; batch], vec![1.0f32; batch]);
    for &(row, column) in matches {
        of_image[row] += 1.0;
        of_text[column] += 1.0;
    }
    let factor = |row: usize, column: usize| 0.5 * (1.0 / of_image[row] + 1.0 / of_text[column]) / batch as f32;
    let pairs = (0..batch).map(|pair| (pair, pair)).chain(matches.iter().copied());
    let mut factors: Vec<_> = pairs.map(|(row, column)| (row, column, factor(row, column))).collect();
    factors.sort_unstable_by_key(|&(row, column, _)| (row, column));
    factors
}

/// [`target_factors`] as `[batch, batch]`.
fn mean_targets(batch: usize, matches: &[(usize, usize)], device: &Device) -> Tensor<2> {
    let mut targets = vec![0.0f32; batch * batch];
    for (row, column, factor) in target_factors(batch, matches) {
        targets[row * batch + column] = factor;
    }
    Tensor::from_data(TensorData::new(targets, [batch, batch]), device)
}

/// `[batch, batch]`, true at `matches`.
fn pair_mask(batch: usize, matches: &[(usize, usize)], device: &Device) -> Tensor<2, Bool> {
    let mut mask = vec![false; batch * batch];
    for &(row, column) in matches {
        mask[row * batch + column] = true;
    }
    Tensor::from_data(TensorData::new(mask, [batch, batch]), device)
}

/// Every pair of an image and a text as a binary question (SigLIP, arXiv:2303.15343, alg. 1).
fn sigmoid_loss(logits: Tensor<2>, duplicates: Duplicates, matches: &[(usize, usize)]) -> Tensor<1> {
    let [batch, _] = logits.dims();
    let mut signs = vec![-1.0f32; batch * batch];
    let mut weights = vec![1.0f32; batch * batch];
    for pair in 0..batch {
        signs[pair * batch + pair] = 1.0;
    }
    for &(row, column) in matches {
        match duplicates {
            Duplicates::Positives => signs[row * batch + column] = 1.0,
            Duplicates::Mask => weights[row * batch + column] = 0.0,
            Duplicates::Ignore => {}
        }
    }
    let device = logits.device().without_autodiff();
    let constant = |values| Tensor::<2>::from_data(TensorData::new(values, [batch, batch]), &device);
    let likelihoods = log_sigmoid(logits * constant(signs));
    let likelihoods = match duplicates {
        Duplicates::Mask if !matches.is_empty() => likelihoods * constant(weights),
        _ => likelihoods,
    };
    likelihoods.sum() * (-1.0 / batch as f64)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    /// Four pairs: the second and the third count as the same caption. Their embeddings differ, unlike a real tower's, since
    /// equal ones would give soft and hard targets the same loss.
    fn pairs() -> PairIds {
        // The third image is also known by the fourth pair's caption, but not the fourth by the third's.
        PairIds { captions: vec![10, 11, 11, 12], known: vec![vec![10], vec![11], vec![11, 12], vec![12, 99]] }
    }

    fn embeds(rows: [[f32; 2]; 4]) -> Tensor<2> {
        Tensor::from_data(rows, &Device::flex())
    }

    fn logits() -> [[f64; 4]; 4] {
        let (image, text) = rows();
        image.map(|i| text.map(|t| 2.0 * f64::from(i[0] * t[0] + i[1] * t[1])))
    }

    fn rows() -> ([[f32; 2]; 4], [[f32; 2]; 4]) {
        ([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.8, -0.6]], [[0.8, 0.6], [0.0, 1.0], [0.28, 0.96], [1.0, 0.0]])
    }

    fn loss(kind: Loss, duplicates: Duplicates) -> (f64, usize) {
        let (image, text) = rows();
        let scale = Tensor::from_data([2.0f32.ln()], &Device::flex());
        let bias = Some(Tensor::from_data([-0.5f32], &Device::flex()));
        let batch = contrastive_loss(kind, duplicates, (embeds(image), embeds(text)), scale, bias, &pairs());
        (f64::from(batch.loss.into_scalar::<f32>()), batch.num_duplicates)
    }

    /// Cross-entropies written out, with `target(i, j)` the mass of logit `(i, j)` and `kept` the negatives.
    fn written_out(target: impl Fn(usize, usize) -> f64, kept: impl Fn(usize, usize) -> bool) -> f64 {
        let z = logits();
        let cells = || (0..4).flat_map(|a| (0..4).map(move |b| (a, b)));
        let row = |a: usize| (0..4).filter(|&b| kept(a, b)).map(|b| z[a][b].exp()).sum::<f64>();
        let column = |b: usize| (0..4).filter(|&a| kept(a, b)).map(|a| z[a][b].exp()).sum::<f64>();
        let row_mass = |a: usize| (0..4).map(|b| target(a, b)).sum::<f64>();
        let column_mass = |b: usize| (0..4).map(|a| target(a, b)).sum::<f64>();
        let term = |(a, b): (usize, usize)| {
            target(a, b) / row_mass(a) * (row(a).ln() - z[a][b])
                + target(a, b) / column_mass(b) * (column(b).ln() - z[a][b])
        };
        let total: f64 = cells().map(term).sum();
        total / 8.0
    }

    fn related(a: usize, b: usize) -> bool {
        a == b || [(1, 2), (2, 1), (2, 3)].contains(&(a, b))
    }

    #[test]
    fn softmax_equals_the_cross_entropies_written_out() {
        let diagonal = |a, b| f64::from(u8::from(a == b));
        let cases = [
            (Duplicates::Ignore, written_out(diagonal, |_, _| true)),
            (Duplicates::Positives, written_out(|a, b| f64::from(u8::from(related(a, b))), |_, _| true)),
            (Duplicates::Mask, written_out(diagonal, |a, b| a == b || !related(a, b))),
        ];
        for (duplicates, expected) in cases {
            let (found, count) = loss(Loss::Softmax, duplicates);
            assert!((found - expected).abs() < 1e-6, "{duplicates:?}: {found} instead of {expected}");
            assert_eq!(count, 2);
        }
        assert!((cases_differ(Loss::Softmax)) > 1e-2);
    }

    #[test]
    fn softmax_that_ignores_duplicates_is_the_references_loss() {
        let logits: Tensor<2> = Tensor::from_data(logits().map(|row| row.map(|value| value as f32)), &Device::flex());
        let expected = f64::from(dualenc_model::clip_loss(logits).into_scalar::<f32>());
        let (found, _) = loss(Loss::Softmax, Duplicates::Ignore);
        assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
    }

    fn cases_differ(kind: Loss) -> f64 {
        let ignore = loss(kind, Duplicates::Ignore).0;
        let others = [loss(kind, Duplicates::Positives).0, loss(kind, Duplicates::Mask).0];
        others.iter().map(|other| (other - ignore).abs()).fold(f64::MAX, f64::min)
    }

    #[test]
    fn sigmoid_equals_the_likelihoods_written_out() {
        let z = logits();
        let likelihood = |a: usize, b: usize, sign: f64| -(1.0 + (-sign * (z[a][b] - 0.5)).exp()).ln();
        for (duplicates, matched) in
            [(Duplicates::Ignore, Some(-1.0)), (Duplicates::Positives, Some(1.0)), (Duplicates::Mask, None)]
        {
            let mut expected = 0.0;
            for a in 0..4 {
                for b in 0..4 {
                    let sign = if a == b {
                        Some(1.0)
                    } else if related(a, b) {
                        matched
                    } else {
                        Some(-1.0)
                    };
                    expected -= sign.map_or(0.0, |sign| likelihood(a, b, sign)) / 4.0;
                }
            }
            let (found, _) = loss(Loss::Sigmoid, duplicates);
            assert!((found - expected).abs() < 1e-6, "{duplicates:?}: {found} instead of {expected}");
        }
        assert!(cases_differ(Loss::Sigmoid) > 1e-2);
    }

    /// Numbers in -1..1 that look random.
    fn noise(seed: u64, count: usize) -> Vec<f32> {
        (0..count as u64).map(|n| dualenc_data::mix(seed, &[n]) as f32 / u64::MAX as f32 * 2.0 - 1.0).collect()
    }

    #[test]
    fn the_loss_without_a_matrix_of_logits_has_the_value_and_the_gradients_of_the_plain_one() {
        let (batch, dim) = (150, 24);
        let leaf = |seed, shape: [usize; 2]| -> Tensor<2> {
            let device = Device::flex().autodiff();
            Tensor::from_data(TensorData::new(noise(seed, shape[0] * shape[1]), shape), &device).require_grad()
        };
        let scalar = |value: f32| Tensor::<1>::from_data([value], &Device::flex().autodiff()).require_grad();
        let pairs = PairIds {
            captions: (0..batch).map(|n| n % 140).collect(),
            known: (0..batch).map(|n| vec![n % 140, (n * 7) % 150]).collect(),
        };
        let matches = pairs.matches();
        assert!(matches.len() > 50);
        for kind in [Loss::Softmax, Loss::Sigmoid] {
            for duplicates in [Duplicates::Ignore, Duplicates::Positives, Duplicates::Mask] {
                let run = |plain: bool| {
                    let (image, text) = (leaf(1, [batch as usize, dim]), leaf(2, [batch as usize, dim]));
                    let (scale, bias) = (scalar(1.5), scalar(-0.7));
                    let embeds = (dualenc_model::normalize(image.clone()), dualenc_model::normalize(text.clone()));
                    let loss = match plain {
                        true => {
                            let logits = embeds.0.matmul(embeds.1.transpose()) * scale.clone().exp().unsqueeze();
                            let matches = if duplicates == Duplicates::Ignore { &[][..] } else { &matches };
                            plain_loss(kind, duplicates, logits, Some(bias.clone()), matches)
                        }
                        false => {
                            let bias = Some(bias.clone()).filter(|_| kind == Loss::Sigmoid);
                            contrastive_loss(kind, duplicates, embeds, scale.clone(), bias, &pairs).loss
                        }
                    };
                    let mut all = (loss.clone() * 3.0).backward();
                    let host = |tensor: Option<Tensor<1>>| -> Vec<f32> {
                        tensor.map_or_else(Vec::new, |tensor| dualenc_model::parameters::host(tensor).unwrap().values)
                    };
                    let flat = |tensor: Option<Tensor<2>>| host(tensor.map(|t| t.reshape([batch as usize * dim])));
                    let mut values = host(Some(loss.without_autodiff()));
                    values.extend(flat(image.grad_remove(&mut all)));
                    values.extend(flat(text.grad_remove(&mut all)));
                    values.extend(host(scale.grad_remove(&mut all)));
                    if kind == Loss::Sigmoid {
                        values.extend(host(bias.grad_remove(&mut all)));
                    }
                    values
                };
                let (found, expected) = (run(false), run(true));
                assert_eq!(found.len(), expected.len());
                for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let close = (found - expected).abs() <= 1e-6 * expected.abs().max(1.0);
                    assert!(close, "{kind:?} {duplicates:?} [{place}]: {found} instead of {expected}");
                }
            }
        }
    }
}
