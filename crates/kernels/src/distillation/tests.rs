//! Both forms against the formula in Burn's own differentiated operations, on whole matrices.

use burn::tensor::activation::{log_sigmoid, log_softmax, sigmoid};
use burn::tensor::{Device, Tensor, TensorData};

use crate::contrastive::column_sums;
use crate::contrastive::objective::{ColumnSums, Logits, LossRows};
use crate::distillation::fused;
use crate::distillation::teacher::{TeacherLogits, TeacherLoss};
use crate::distillation::tiled::tiled_distillation_loss;
use crate::distillation::{distillation_loss, teacher_column_sums};
use crate::portable::forms::with_plain_forms;

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
        // Rows and columns have different numbers of masked logits.
        let of_row =
            |row: usize| (0..batch).filter(move |column| row != *column && (row + 2 * column).is_multiple_of(5));
        let masked =
            (0..if is_masked { batch } else { 0 }).flat_map(|row| of_row(row).map(move |column| (row, column)));
        Self { teacher: [1, 2].map(|seed| units(batch, 9, seed)), loss, masked: masked.collect(), batch }
    }

    fn logits(&self) -> TeacherLogits<'_> {
        let [image, text] = &self.teacher;
        TeacherLogits { image, text, scale: SCALE, loss: self.loss, column_log_sums: None }
    }

    /// The loss, and its gradients by the embeddings, `logit_scale` and `logit_bias`; the backward pass starts from a
    /// factor other than 1.
    fn values(&self, loss: impl Fn(Logits<'_>) -> Tensor<1>) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let [image, text] = [3, 4].map(|seed| units(self.batch, 7, seed).autodiff().require_grad());
        let [scale, bias] = [1.7, -2.5].map(|value: f32| Tensor::<1>::from_data([value], &device).require_grad());
        let has_bias = self.loss != TeacherLoss::Softmax;
        let logit_bias = Some(&bias).filter(|_| has_bias);
        let loss = loss(Logits { image_embeds: &image, text_embeds: &text, logit_scale: &scale, logit_bias });
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
        self.values(|Logits { image_embeds, text_embeds, logit_scale, logit_bias }| {
            let cosines = image_embeds.clone().matmul(text_embeds.clone().transpose());
            let logits = cosines * logit_scale.clone().exp().unsqueeze();
            match (self.loss, logit_bias) {
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

    /// The same, added up from the parts of ranges of rows that end at `ends`.
    fn of_rows(&self, ends: &[usize]) -> Vec<Vec<f32>> {
        let starts = std::iter::once(&0).chain(ends);
        let ranges: Vec<_> = starts.zip(ends).map(|(&start, &end)| start..end).collect();
        let [teacher_image, _] = &self.teacher;
        self.values(|logits| {
            let of_ranges = |image: &Tensor<2>| -> Vec<Tensor<2>> {
                ranges.iter().map(|rows| image.clone().slice(rows.clone())).collect()
            };
            let parts = of_ranges(teacher_image).into_iter().zip(of_ranges(logits.image_embeds)).zip(&ranges);
            let parts: Vec<_> = parts.map(|((teacher, student), rows)| (teacher, student, rows.start)).collect();
            let [of_teacher, of_student] = [true, false].map(|is_teacher| {
                let sums = parts.iter().map(|(teacher, student, first)| match is_teacher {
                    true => {
                        teacher_column_sums(&TeacherLogits { image: teacher, ..self.logits() }, &self.masked, *first)
                    }
                    false => column_sums(Logits { image_embeds: student, ..logits }, &self.masked, *first),
                });
                let sums = sums.reduce(ColumnSums::join).unwrap().log_sums();
                Some(sums).filter(|_| self.loss == TeacherLoss::Softmax)
            });
            let losses = parts.iter().map(|(teacher, student, first)| {
                let teacher = TeacherLogits { image: teacher, column_log_sums: of_teacher.as_ref(), ..self.logits() };
                let student = Logits { image_embeds: student, ..logits };
                let rows = LossRows { first: *first, column_log_sums: of_student.clone() };
                distillation_loss(&teacher, student, &self.masked, Some(&rows))
            });
            losses.reduce(|sum, loss| sum + loss).unwrap()
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
        for (batch, is_masked) in [(2, false), (5, true), (67, false), (67, true), (260, true)] {
            let case = Case::new(batch, loss, is_masked);
            assert_eq!(case.masked.is_empty(), !is_masked);
            let expected = case.plain();
            assert!(expected[0][0] > 1e-2, "{expected:?}");
            for rows in [1, 7, batch] {
                let what = format!("{loss:?}, {rows} of {batch} rows, masked: {is_masked}");
                let fused = case.values(|student| {
                    fused::distillation_loss(&case.logits(), student, &case.masked, None, rows * batch).unwrap()
                });
                assert_close(&format!("fused {what}"), &fused, &expected);
                let tiled = case.values(|student| {
                    tiled_distillation_loss(&case.logits(), student, &case.masked, None, rows * batch)
                });
                assert_close(&format!("tiled {what}"), &tiled, &expected);
            }
        }
    }
}

#[test]
fn rows_add_up_to_the_batch() {
    for loss in [TeacherLoss::Softmax, TeacherLoss::Sigmoid { bias: -9.0 }] {
        // In a part of one row, some columns have masked logits alone.
        let case = Case::new(67, loss, true);
        let expected = case.plain();
        for ends in [&[67][..], &[34, 67], &[1, 3, 66, 67], &[9, 18, 27, 35, 43, 51, 59, 67]] {
            let what = format!("{loss:?}, rows up to {ends:?}");
            assert_close(&format!("fused {what}"), &case.of_rows(ends), &expected);
            assert_close(&format!("tiled {what}"), &with_plain_forms(|| case.of_rows(ends)), &expected);
        }
    }
}

/// A part in several tiles is the part in one.
#[test]
fn tiles_of_rows_add_up() {
    for loss in [TeacherLoss::Softmax, TeacherLoss::Sigmoid { bias: -9.0 }] {
        let case = Case::new(67, loss, true);
        let (first, end) = (20, 51);
        let of_tiles = |tile_rows: usize, is_fused: bool| {
            case.values(|logits| {
                let own = |image: &Tensor<2>| image.clone().slice(first..end);
                let (teacher, student) = (own(&case.teacher[0]), own(logits.image_embeds));
                let teacher_sums = teacher_column_sums(&case.logits(), &case.masked, 0).log_sums();
                let sums = column_sums(logits, &case.masked, 0).log_sums();
                let teacher = TeacherLogits { image: &teacher, column_log_sums: Some(&teacher_sums), ..case.logits() };
                let student = Logits { image_embeds: &student, ..logits };
                let rows = Some(LossRows { first, column_log_sums: Some(sums) });
                let tile = tile_rows * case.batch;
                match is_fused {
                    true => fused::distillation_loss(&teacher, student, &case.masked, rows.as_ref(), tile).unwrap(),
                    false => tiled_distillation_loss(&teacher, student, &case.masked, rows.as_ref(), tile),
                }
            })
        };
        let expected = of_tiles(67, true);
        for tile_rows in [1, 7] {
            for is_fused in [true, false] {
                assert_close(&format!("{loss:?} {tile_rows} {is_fused}"), &of_tiles(tile_rows, is_fused), &expected);
            }
        }
    }
}

#[test]
#[should_panic = "softmax over some rows needs the sums of the columns over all"]
fn rows_of_softmax_need_columns_of_both() {
    let case = Case::new(5, TeacherLoss::Softmax, false);
    case.values(|student| {
        let sums = column_sums(student, &[], 0).log_sums();
        let rows = LossRows { first: 0, column_log_sums: Some(sums) };
        distillation_loss(&case.logits(), student, &[], Some(&rows))
    });
}

#[test]
fn equal_logits_cost_nothing() {
    let device = Device::flex().autodiff();
    let scale = Tensor::<1>::from_data([SCALE.ln() as f32], &device).require_grad();
    let bias = Tensor::<1>::from_data([-9.0f32], &device).require_grad();
    for (loss, bias) in [(TeacherLoss::Softmax, None), (TeacherLoss::Sigmoid { bias: -9.0 }, Some(&bias))] {
        let case = Case::new(40, loss, true);
        let [image, text] = case.teacher.clone().map(|side| side.autodiff().require_grad());
        let student = Logits { image_embeds: &image, text_embeds: &text, logit_scale: &scale, logit_bias: bias };
        for found in [
            fused::distillation_loss(&case.logits(), student, &case.masked, None, 1 << 20).unwrap(),
            tiled_distillation_loss(&case.logits(), student, &case.masked, None, 7 * 40),
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
    let loss = |[image_embeds, text_embeds]: [&Tensor<2>; 2]| {
        let student = Logits { image_embeds, text_embeds, logit_scale: &scale, logit_bias: None };
        fused::distillation_loss(&case.logits(), student, &case.masked, None, 90).unwrap().into_scalar::<f32>()
    };
    let tracked = [&image, &text].map(|side| side.clone().autodiff().require_grad());
    assert_eq!(loss([&image, &text]), loss(tracked.each_ref()));
}
