//! Both forms against the formula in Burn's own differentiated operations, on whole matrices.

use std::ops::Range;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};

use crate::structure::fused;
use crate::structure::tiled::tiled_structure_loss;

const TEMPERATURE: f64 = 0.05;

/// Centred unit vectors `[batch, dim]`; every third is close to the one before it.
fn centred(batch: usize, dim: usize, seed: u32, device: &Device) -> Tensor<2> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for at in 0..batch {
        let new: Vec<f32> = (0..dim).map(|_| next()).collect();
        let near = |old: &Vec<f32>| old.iter().zip(&new).map(|(old, new)| old + 0.1 * new).collect();
        rows.push(if at % 3 == 2 { near(&rows[at - 1]) } else { new });
    }
    let x = Tensor::<2>::from_data(TensorData::new(rows.concat(), [batch, dim]), device);
    let units = x.clone() / x.square().sum_dim(1).sqrt();
    units.clone() - units.mean_dim(0)
}

fn plain(reference: &Tensor<2>, embeds: &Tensor<2>) -> Tensor<1> {
    let [batch, _] = embeds.dims();
    let probabilities = |x: &Tensor<2>| softmax(x.clone().matmul(x.clone().transpose()) / TEMPERATURE, 1) + 1e-12;
    let (p, q) = (probabilities(reference), probabilities(embeds));
    let mean = (p.clone() + q.clone()) * 0.5;
    let divergence = |of: Tensor<2>| (mean.clone() * (mean.clone().log() - of.log())).sum();
    (divergence(p) + divergence(q)) / (2.0 * batch as f64)
}

/// The loss and its gradient; the backward pass starts from a factor other than 1.
fn values(batch: usize, loss: impl Fn(&Tensor<2>, &Tensor<2>) -> Tensor<1>) -> (f32, Vec<f32>) {
    let device = Device::flex();
    let reference = centred(batch, 19, 1, &device);
    let embeds = centred(batch, 11, 2, &device).autodiff().require_grad();
    let loss = loss(&reference, &embeds);
    let mut gradients = (loss.clone() * 3.0).backward();
    let gradient = embeds.grad_remove(&mut gradients).unwrap();
    (loss.into_scalar::<f32>(), gradient.into_data().try_into_vec().unwrap())
}

#[test]
fn both_forms_match_plain_formula() {
    for batch in [2, 3, 150] {
        let (expected, gradient) = values(batch, plain);
        assert!(expected > 1e-2 || batch < 150, "{expected}");
        for rows in [1, 7, batch] {
            let fused = values(batch, |reference, embeds| {
                fused::structure_loss(reference, embeds, TEMPERATURE, 0..batch, rows * batch).unwrap()
            });
            let tiled = values(batch, |reference, embeds| {
                tiled_structure_loss(reference, embeds, TEMPERATURE, 0..batch, rows * batch)
            });
            for (form, (found, by_embeds)) in [("fused", fused), ("tiled", tiled)] {
                assert_close(&format!("{form} {rows}/{batch}"), (found, &by_embeds), (expected, &gradient));
            }
        }
    }
}

#[test]
fn rows_add_up_to_the_batch() {
    let batch = 150;
    let (expected, gradient) = values(batch, plain);
    for ends in [&[150][..], &[75, 150], &[1, 3, 149, 150], &[19, 38, 57, 76, 95, 114, 132, 150]] {
        // Parts in one tile, and in several.
        for tile_rows in [batch, 7] {
            let sum = |loss: &dyn Fn(&Tensor<2>, &Tensor<2>, Range<usize>) -> Tensor<1>| {
                values(batch, |reference, embeds| {
                    let starts = std::iter::once(&0).chain(ends);
                    let parts = starts.zip(ends).map(|(&start, &end)| loss(reference, embeds, start..end));
                    parts.reduce(|sum, part| sum + part).unwrap()
                })
            };
            let tile = tile_rows * batch;
            let fused = sum(&|reference, embeds, rows| {
                fused::structure_loss(reference, embeds, TEMPERATURE, rows, tile).unwrap()
            });
            let tiled =
                sum(&|reference, embeds, rows| tiled_structure_loss(reference, embeds, TEMPERATURE, rows, tile));
            for (form, (found, by_embeds)) in [("fused", fused), ("tiled", tiled)] {
                assert_close(&format!("{form} {tile_rows} {ends:?}"), (found, &by_embeds), (expected, &gradient));
            }
        }
    }
}

#[track_caller]
fn assert_close(what: &str, (found, by_embeds): (f32, &[f32]), (expected, gradient): (f32, &[f32])) {
    // A difference of logarithms of about 1: their rounding does not shrink with the difference.
    assert!((found - expected).abs() < 1e-5 * expected.max(0.05), "{what}: {found}, not {expected}");
    let largest = gradient.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let worst = by_embeds.iter().zip(gradient).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(worst < 1e-5 * largest.max(0.05), "{what}: {worst} of {largest}");
}

#[test]
fn equal_neighbourhoods_cost_nothing() {
    let x = centred(40, 9, 3, &Device::flex());
    let turned = x.clone().flip([1]);
    for loss in [fused::structure_loss(&x, &turned, TEMPERATURE, 0..40, 1 << 20), None] {
        let loss = loss.unwrap_or_else(|| tiled_structure_loss(&x, &turned, TEMPERATURE, 0..40, 1 << 20));
        assert!(loss.into_scalar::<f32>().abs() < 1e-6);
    }
}
