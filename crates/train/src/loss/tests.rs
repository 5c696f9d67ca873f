//! The losses against whole matrices of logits, against sums written out, and against PyTorch.

use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Bool, Device, TensorData};
use dualenc_kernels::{Logits, tiled_pair_loss};
use serde_json::Value;

use burn::tensor::Tensor;
use dualenc_model::parameters;

use crate::config::{Duplicates, Loss};
use crate::loss::contrastive::*;
use crate::loss::targets::{SlotTargets, contrastive_loss};

const ALL_DUPLICATES: [Duplicates; 3] = [Duplicates::Ignore, Duplicates::Positives, Duplicates::Mask];

/// The loss of a whole matrix of logits `[batch, batch]`, to which `logit_bias` is added here: what every other form is
/// compared with.
fn plain_loss(objective: Objective, logits: Tensor<2>, logit_bias: Tensor<1>, matches: &[(usize, usize)]) -> Tensor<1> {
    match objective.loss {
        Loss::Softmax => plain_softmax(logits, objective, matches),
        Loss::Sigmoid => plain_sigmoid(logits + logit_bias.unsqueeze(), objective.duplicates, matches),
    }
}

/// Cross-entropies in both directions, with matrices of target probabilities.
fn plain_softmax(
    logits: Tensor<2>,
    Objective { duplicates, label_smoothing: smoothing, .. }: Objective,
    matches: &[(usize, usize)],
) -> Tensor<1> {
    let [batch, _] = logits.dims();
    let matches_if = |mode| if duplicates == mode { matches } else { &[] };
    let direction = |transposed: bool| {
        let place =
            |(row, column): (usize, usize)| if transposed { column * batch + row } else { row * batch + column };
        let (mut targets, mut unmasked) = (vec![0.0f64; batch * batch], vec![1.0f64; batch * batch]);
        let positives = (0..batch).map(|n| (n, n)).chain(matches_if(Duplicates::Positives).iter().copied());
        positives.for_each(|pair| targets[place(pair)] = 1.0);
        matches_if(Duplicates::Mask).iter().for_each(|&pair| unmasked[place(pair)] = 0.0);
        for (targets, unmasked) in targets.chunks_mut(batch).zip(unmasked.chunks(batch)) {
            let (mass, candidates) = (targets.iter().sum::<f64>(), unmasked.iter().sum::<f64>());
            let smooth = |(target, unmasked): (&mut f64, &f64)| {
                *target = (1.0 - smoothing) * *target / mass + smoothing * unmasked / candidates;
            };
            targets.iter_mut().zip(unmasked).for_each(smooth);
        }
        let device = logits.device().without_autodiff();
        let targets: Vec<f32> = targets.into_iter().map(|target| target as f32).collect();
        let targets = Tensor::<2>::from_data(TensorData::new(targets, [batch, batch]), &device);
        let masked: Vec<bool> = unmasked.into_iter().map(|unmasked| unmasked == 0.0).collect();
        let masked = Tensor::<2, Bool>::from_data(TensorData::new(masked, [batch, batch]), &device);
        let logits = if transposed { logits.clone().transpose() } else { logits.clone() };
        let candidates = logits.clone().mask_fill(masked, f32::NEG_INFINITY);
        let top = candidates.clone().detach().max_dim(1);
        let sums = (candidates - top.clone()).exp().sum_dim(1).log() + top;
        (sums.mean() - (logits * targets).sum() / batch as f64) * 0.5
    };
    direction(false) + direction(true)
}

fn plain_sigmoid(logits: Tensor<2>, duplicates: Duplicates, matches: &[(usize, usize)]) -> Tensor<1> {
    let [batch, _] = logits.dims();
    let (mut signs, mut weights) = (vec![-1.0f32; batch * batch], vec![1.0f32; batch * batch]);
    (0..batch).for_each(|pair| signs[pair * batch + pair] = 1.0);
    for &(row, column) in matches {
        match duplicates {
            Duplicates::Positives => signs[row * batch + column] = 1.0,
            Duplicates::Mask => weights[row * batch + column] = 0.0,
            Duplicates::Ignore => {}
        }
    }
    let device = logits.device().without_autodiff();
    let constant = |values| Tensor::<2>::from_data(TensorData::new(values, [batch, batch]), &device);
    (log_sigmoid(logits * constant(signs)) * constant(weights)).sum() * (-1.0 / batch as f64)
}

/// Four pairs, of which the second and the third have the same caption. The embeddings of both differ, unlike those of
/// a real tower: equal ones would give soft and hard targets the same loss.
fn pairs() -> PairIds {
    // The fourth caption also belongs to the third image, but not the third caption to the fourth image.
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
    let batch =
        contrastive_loss(Objective::new(kind, duplicates), (embeds(image), embeds(text)), scale, bias, &pairs());
    (f64::from(batch.loss.into_scalar::<f32>()), batch.num_duplicates)
}

/// Cross-entropies written out. `target(i, j)`: mass of logit `(i, j)`; `candidate(i, j)`: whether it is not masked.
fn written_out(target: impl Fn(usize, usize) -> f64, candidate: impl Fn(usize, usize) -> bool) -> f64 {
    let z = logits();
    let cells = || (0..4).flat_map(|a| (0..4).map(move |b| (a, b)));
    let row = |a: usize| (0..4).filter(|&b| candidate(a, b)).map(|b| z[a][b].exp()).sum::<f64>();
    let column = |b: usize| (0..4).filter(|&a| candidate(a, b)).map(|a| z[a][b].exp()).sum::<f64>();
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
fn softmax_matches_cross_entropies() {
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
    assert!(cases_differ(Loss::Softmax) > 1e-2);
}

#[test]
fn softmax_matches_clip_loss() {
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
fn sigmoid_matches_likelihoods() {
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
        let (found, count) = loss(Loss::Sigmoid, duplicates);
        assert_eq!(count, 2);
        assert!((found - expected).abs() < 1e-6, "{duplicates:?}: {found} instead of {expected}");
    }
    assert!(cases_differ(Loss::Sigmoid) > 1e-2);
}

/// Pseudo-random numbers from -1 to 1.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|n| dualenc_data::mix(seed, &[n]) as f32 / u64::MAX as f32 * 2.0 - 1.0).collect()
}

/// The inputs of a loss: embeddings `[batch, dim]` of both sides, and the scalars.
struct Case {
    objective: Objective,
    embeds: [Vec<f32>; 2],
    shape: [usize; 2],
    scale: f32,
    bias: f32,
}

impl Case {
    /// Computes `loss` of embeddings, scale and bias. Returns the loss and its gradients: by both embeddings, by the
    /// scale's logarithm and, for sigmoid, by the bias. The backward pass starts from a factor other than 1.
    fn values(&self, loss: impl FnOnce([Tensor<2>; 2], Tensor<1>, Tensor<1>) -> Tensor<1>) -> Vec<f32> {
        let device = Device::flex().autodiff();
        let leaf = |values: &Vec<f32>| {
            Tensor::<2>::from_data(TensorData::new(values.clone(), self.shape), &device).require_grad()
        };
        let leaves = self.embeds.each_ref().map(leaf);
        let [scale, bias] =
            [self.scale, self.bias].map(|value| Tensor::<1>::from_data([value], &device).require_grad());
        let loss = loss(leaves.clone(), scale.clone(), bias.clone());
        let mut gradients = (loss.clone() * 4.0).backward();
        let host = |tensor: Tensor<1>| parameters::host(tensor).unwrap().values;
        let mut values = host(loss.without_autodiff());
        for leaf in leaves {
            let gradient = leaf.grad_remove(&mut gradients).unwrap() / 4.0;
            values.extend(host(gradient.reshape([self.shape[0] * self.shape[1]])));
        }
        values.extend(host(scale.grad_remove(&mut gradients).unwrap() / 4.0));
        if self.objective.loss == Loss::Sigmoid {
            values.extend(host(bias.grad_remove(&mut gradients).unwrap() / 4.0));
        }
        values
    }

    fn plain(&self, matches: &[(usize, usize)]) -> Vec<f32> {
        self.values(|[image, text], scale, bias| {
            let logits = image.matmul(text.transpose()) * scale.exp().unsqueeze();
            plain_loss(self.objective, logits, bias, matches)
        })
    }

    fn found(&self, pairs: &PairIds) -> Vec<f32> {
        self.values(|[image, text], scale, bias| {
            contrastive_loss(self.objective, (image, text), scale, Some(bias), pairs).loss
        })
    }

    /// In Burn's own operations and in tiles of `rows` rows, as on a device without a kernel.
    fn tiled(&self, pairs: &PairIds, rows: usize) -> Vec<f32> {
        self.values(|[image, text], scale, bias| {
            let logit_bias = Some(&bias).filter(|_| self.objective.loss == Loss::Sigmoid);
            let targets = SlotTargets::of(self.objective, self.shape[0], &pairs.matches(0));
            let logits = Logits { image_embeds: &image, text_embeds: &text, logit_scale: &scale, logit_bias };
            let loss = tiled_pair_loss(logits, targets.pair_loss(), None, rows * self.shape[0]);
            targets.smoothed(loss, (&image, &text), &scale)
        })
    }

    /// Compares the loss, and the gradients of embeddings, scale and bias, each relative to its largest value.
    #[track_caller]
    fn assert_close(&self, what: &str, found: &[f32], expected: &[f32]) {
        let objective = self.objective;
        assert_eq!(found.len(), expected.len());
        let count = self.shape[0] * self.shape[1];
        let mut start = 0;
        for (name, count) in [("loss", 1), ("image", count), ("text", count), ("logit_scale", 1), ("logit_bias", 1)] {
            let end = (start + count).min(found.len());
            let (found, expected) = (&found[start..end], &expected[start..end]);
            let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
                let close = (found - expected).abs() <= TOLERANCE * largest;
                assert!(close, "{what}: {objective:?} {name}[{at}]: {found} instead of {expected}");
            }
            start = end;
        }
        assert_eq!(start, found.len());
    }
}

/// Relative to the largest value of a tensor; at most 1.3e-6 was measured.
const TOLERANCE: f32 = 2.5e-6;

/// Normalises rows of `dim` values to length 1.
fn units(mut values: Vec<f32>, dim: usize) -> Vec<f32> {
    for row in values.chunks_mut(dim) {
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        row.iter_mut().for_each(|value| *value /= norm);
    }
    values
}

fn objectives() -> [Objective; 4] {
    let softmax = |label_smoothing| Objective { label_smoothing, ..Objective::default() };
    [softmax(0.0), softmax(0.1), softmax(0.5), Objective { loss: Loss::Sigmoid, ..Objective::default() }]
}

#[test]
fn kernel_and_tiles_match_plain_loss() {
    let (batch, dim) = (150, 24);
    let pairs = PairIds {
        captions: (0..batch as u64).map(|n| n % 140).collect(),
        known: (0..batch as u64).map(|n| vec![n % 140, (n * 7) % 150]).collect(),
    };
    let matches = pairs.matches(0);
    assert!(matches.len() > 50);
    for objective in objectives() {
        for duplicates in ALL_DUPLICATES {
            let embeds = [1, 2].map(|seed| units(noise(seed, batch * dim), dim));
            let objective = Objective { duplicates, ..objective };
            let case = Case { objective, embeds, shape: [batch, dim], scale: 1.5, bias: -0.7 };
            let expected = case.plain(&matches);
            case.assert_close("kernel", &case.found(&pairs), &expected);
            for rows in [1, 7, 64, batch] {
                case.assert_close(&format!("{rows} rows per tile"), &case.tiled(&pairs, rows), &expected);
            }
        }
    }
}

#[test]
fn matches_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/losses/expected.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let numbers = |value: &Value| -> Vec<f32> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
    };
    let inputs = &golden["inputs"];
    let shape: [usize; 2] = serde_json::from_value(inputs["shape"].clone()).unwrap();
    let related: Vec<(usize, usize)> = serde_json::from_value(inputs["related"].clone()).unwrap();
    let known = |row: usize| {
        let others = related.iter().filter(move |pair| pair.0 == row).map(|pair| pair.1 as u64);
        others.chain([row as u64]).collect()
    };
    let pairs = PairIds { captions: (0..shape[0] as u64).collect(), known: (0..shape[0]).map(known).collect() };
    assert_eq!(pairs.matches(0), related);
    let mut compared = 0;
    for expected in golden["cases"].as_array().unwrap() {
        let objective = Objective {
            loss: serde_json::from_value(expected["loss"].clone()).unwrap(),
            duplicates: serde_json::from_value(expected["duplicates"].clone()).unwrap(),
            label_smoothing: expected["label_smoothing"].as_f64().unwrap(),
        };
        let case = Case {
            objective,
            embeds: ["image", "text"].map(|side| numbers(&inputs[side])),
            shape,
            scale: inputs["logit_scale"].as_f64().unwrap() as f32,
            bias: inputs["logit_bias"].as_f64().unwrap() as f32,
        };
        let mut values = vec![expected["value"].as_f64().unwrap() as f32];
        ["image", "text"].iter().for_each(|side| values.extend(numbers(&expected[side])));
        values.push(expected["logit_scale"].as_f64().unwrap() as f32);
        if objective.loss == Loss::Sigmoid {
            values.push(expected["logit_bias"].as_f64().unwrap() as f32);
        }
        case.assert_close("kernel", &case.found(&pairs), &values);
        for rows in [1, 3, 8] {
            case.assert_close(&format!("{rows} rows per tile"), &case.tiled(&pairs, rows), &values);
        }
        compared += 1;
    }
    assert_eq!(compared, 12);
}

#[test]
fn equal_embeddings_have_chance_loss() {
    let spread_of = |embeds: [f32; 8]| {
        let tensor = Tensor::<2>::from_data(TensorData::new(embeds.to_vec(), [4, 2]), &Device::flex());
        spread(&tensor).into_scalar::<f32>()
    };
    assert!(spread_of([0.6, 0.8, 0.6, 0.8, 0.6, 0.8, 0.6, 0.8]).abs() < 1e-6);
    assert!((spread_of([1.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, -1.0]) - 1.0).abs() < 1e-6);

    let equal = || embeds([[0.6, 0.8]; 4]);
    for objective in objectives() {
        for duplicates in ALL_DUPLICATES {
            let loss_of_bias = |bias: f32| {
                let scale = Tensor::from_data([0.0f32], &Device::flex());
                let bias = Some(Tensor::from_data([bias], &Device::flex()));
                contrastive_loss(Objective { duplicates, ..objective }, (equal(), equal()), scale, bias, &pairs())
            };
            // Searches the best of all equal logits; for sigmoid, it is the log odds of a match.
            let losses = (-400..400).map(|bias| loss_of_bias(bias as f32 / 100.0).loss.into_scalar::<f32>());
            let lowest = f64::from(losses.fold(f32::MAX, f32::min));
            let chance = loss_of_bias(0.0).chance;
            assert!((lowest - chance).abs() < 1e-4, "{objective:?} {duplicates:?}: {lowest}, not {chance}");
            let spread = parameters::host(loss_of_bias(0.0).spread).unwrap().values;
            assert!(spread.len() == 2 && spread.iter().all(|spread| spread.abs() < 1e-6), "{spread:?}");
        }
    }
}
