//! Both forms against the formula in Burn's own differentiated operations, on whole matrices.

use burn::tensor::activation::{log_sigmoid, log_softmax, sigmoid};
use burn::tensor::{Device, Tensor, TensorData};

use crate::distillation::fused;
use crate::distillation::teacher::{TeacherLogits, TeacherLoss};
use crate::distillation::tiled::tiled_distillation_loss;

const SCALE: f64 = 20.0;

/// Relative to the largest value of a tensor.
const TOLERANCE: f32 = 5e-6;

/// Unit vectors `[batch, dim]`.
fn units(batch: usize, dim: usize, seed: u32) -> Tensor<2> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..batch * dim).map(|_| next()).collect();
    let x = Tensor::<2>::from_data(TensorData::new(values, [batch, dim]), &Device::flex());
    x.clone() / x.square().sum_dim(1).sqrt()
}

/// The inputs of a loss.
struct Case {
    teacher: [Tensor<2>; 2],
    loss: TeacherLoss,
    masked: Vec<(usize, usize)>,
    batch: usize,
}

impl Case {
    fn new(batch: usize, loss: TeacherLoss, is_masked: bool) -> Self {
        // Two blocks: rows and columns with different numbers of masked logits.
        let of_row =
            |row: usize| (0..batch).filter(move |column| row != *column && (row + 2 * column).is_multiple_of(5));
        let masked =
            (0..if is_masked { batch } else { 0 }).flat_map(|row| of_row(row).map(move |column| (row, column)));
        Self { teacher: [1, 2].map(|seed| units(batch, 9, seed)), loss, masked: masked.collect(), batch }
    }

    fn logits(&self) -> TeacherLogits<'_> {
        let [image, text] = &self.teacher;
        TeacherLogits { image, text, scale: SCALE, loss: self.loss }
    }

    /// The loss, and its gradients by the embeddings, `logit_scale` and `logit_bias`; the backward pass starts from a
    /// factor other than 1.
    fn values(
        &self,
        loss: impl Fn((&Tensor<2>, &Tensor<2>), &Tensor<1>, Option<&Tensor<1>>) -> Tensor<1>,
    ) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let [image, text] = [3, 4].map(|seed| units(self.batch, 7, seed).autodiff().require_grad());
        let [scale, bias] = [1.7, -2.5].map(|value: f32| Tensor::<1>::from_data([value], &device).require_grad());
        let has_bias = self.loss != TeacherLoss::Softmax;
        let loss = loss((&image, &text), &scale, Some(&bias).filter(|_| has_bias));
        let mut gradients = (loss.clone() * 3.0).backward();
        let mut found = vec![vec![loss.into_scalar::<f32>() * 3.0]];
        for leaf in [image, text] {
            found.push(leaf.grad_remove(&mut gradients).unwrap().into_data().try_into_vec().unwrap());
        }
        for leaf in [scale, bias].into_iter().take(if has_bias { 2 } else { 1 }) {
            found.push(leaf.grad_remove(&mut gradients).unwrap().into_data().try_into_vec().unwrap());
        }
        found
    }

    fn plain(&self) -> Vec<Vec<f32>> {
        let mut left_out = vec![0.0f32; self.batch * self.batch];
        self.masked.iter().for_each(|&(row, column)| left_out[row * self.batch + column] = 1.0);
        let left_out = TensorData::new(left_out, [self.batch, self.batch]);
        let left_out = Tensor::<2>::from_data(left_out, &Device::flex());
        let [image, text] = self.teacher.clone();
        let teacher = image.matmul(text.transpose()) * SCALE;
        let batch = self.batch as f64;
        self.values(|(image, text), scale, bias| {
            let logits = image.clone().matmul(text.clone().transpose()) * scale.clone().exp().unsqueeze();
            match (self.loss, bias) {
                (TeacherLoss::Softmax, _) => {
                    let divergence = |dim| {
                        let [p, q] = [&teacher, &logits].map(|z| log_softmax(z.clone() - left_out.clone() * 1e9, dim));
                        (p.clone().exp() * (p - q) * (left_out.clone().neg() + 1.0)).sum()
                    };
                    (divergence(0) + divergence(1)) / (2.0 * batch)
                }
                (TeacherLoss::Sigmoid { bias }, Some(student_bias)) => {
                    let (a, z) = (teacher.clone() + bias, logits + student_bias.clone().unsqueeze());
                    let y = sigmoid(a.clone());
                    let cross = |z: Tensor<2>| {
                        (log_sigmoid(z.clone()) * y.clone() + log_sigmoid(z.neg()) * (y.clone().neg() + 1.0)).neg()
                    };
                    ((cross(z) - cross(a)) * (left_out.clone().neg() + 1.0)).sum() / batch
                }
                (TeacherLoss::Sigmoid { .. }, None) => unreachable!("`values` gives a bias"),
            }
        })
    }
}

#[track_caller]
fn assert_close(what: &str, found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what}, tensor {at}");
        let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let worst = found.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst <= TOLERANCE * largest, "{what}, tensor {at}: {worst} of {largest}");
    }
}

#[test]
fn both_forms_match_plain_formula() {
    for loss in [TeacherLoss::Softmax, TeacherLoss::Sigmoid { bias: -9.0 }] {
        for (batch, is_masked) in [(2, false), (5, true), (67, false), (67, true)] {
            let case = Case::new(batch, loss, is_masked);
            assert_eq!(case.masked.is_empty(), !is_masked);
            let expected = case.plain();
            assert!(expected[0][0] > 1e-2, "{expected:?}");
            for rows in [1, 7, batch] {
                let what = format!("{loss:?}, {rows} of {batch} rows, masked: {is_masked}");
                let fused = case.values(|embeds, scale, bias| {
                    fused::distillation_loss(&case.logits(), embeds, scale, bias, &case.masked, rows * batch).unwrap()
                });
                assert_close(&format!("fused {what}"), &fused, &expected);
                let tiled = case.values(|embeds, scale, bias| {
                    tiled_distillation_loss(&case.logits(), embeds, scale, bias, &case.masked, rows * batch)
                });
                assert_close(&format!("tiled {what}"), &tiled, &expected);
            }
        }
    }
}

#[test]
fn equal_logits_cost_nothing() {
    let device = Device::flex().autodiff();
    let scale = Tensor::<1>::from_data([SCALE.ln() as f32], &device).require_grad();
    let bias = Tensor::<1>::from_data([-9.0f32], &device).require_grad();
    for (loss, bias) in [(TeacherLoss::Softmax, None), (TeacherLoss::Sigmoid { bias: -9.0 }, Some(&bias))] {
        let case = Case::new(40, loss, true);
        let [image, text] = case.teacher.clone().map(|side| side.autodiff().require_grad());
        let embeds = (&image, &text);
        for found in [
            fused::distillation_loss(&case.logits(), embeds, &scale, bias, &case.masked, 1 << 20).unwrap(),
            tiled_distillation_loss(&case.logits(), embeds, &scale, bias, &case.masked, 7 * 40),
        ] {
            let mut gradients = found.clone().backward();
            let gradient = image.grad_remove(&mut gradients).unwrap().abs().max().into_scalar::<f32>();
            let found = found.into_scalar::<f32>();
            assert!(found.abs() < 1e-5 && gradient < 1e-5, "{loss:?}: {found}, {gradient}");
        }
    }
}

#[test]
fn untracked_loss_is_the_same() {
    let case = Case::new(30, TeacherLoss::Softmax, true);
    let [image, text] = [3, 4].map(|seed| units(30, 7, seed));
    let scale = Tensor::<1>::from_data([1.7f32], &Device::flex());
    let loss = |embeds: (&Tensor<2>, &Tensor<2>), scale: &Tensor<1>| {
        fused::distillation_loss(&case.logits(), embeds, scale, None, &case.masked, 90).unwrap().into_scalar::<f32>()
    };
    let tracked = [&image, &text].map(|side| side.clone().autodiff().require_grad());
    assert_eq!(loss((&image, &text), &scale), loss((&tracked[0], &tracked[1]), &scale));
}
