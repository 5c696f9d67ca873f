use std::path::Path;

use burn::tensor::Device;
use dualenc_data::mix;
use serde_json::Value;

use super::*;
use crate::closed_form::head_map::{HeadMap, HeadMaps};
use crate::closed_form::moments::{Block, Moments, Shift};
use crate::closed_form::span::Spans;

/// About normal, with standard deviation 1.
fn noise(seed: u64, at: usize) -> f64 {
    let uniform = |word| (mix(seed, &[at as u64, word]) >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
    (0..12).map(uniform).sum()
}

fn moments_of(images: &[f32], texts: &[f32], pairs: &[(usize, f64)], num_images: usize) -> Moments {
    let block = Block { images: images.to_vec(), texts: texts.to_vec(), pairs: pairs.to_vec() };
    let mut moments = Moments::new(Shift::of(&block, num_images));
    moments.add(&block, |_| true, &Device::flex()).unwrap();
    moments
}

fn fixture() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/closed_form/cca.json");
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str::<Value>(&text).unwrap().as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn case_moments(case: &Value) -> Moments {
    let floats = |name: &str| numbers(&case[name]).into_iter().map(|value| value as f32).collect::<Vec<_>>();
    let image_of = numbers(&case["image_of"]);
    let pairs: Vec<(usize, f64)> =
        image_of.iter().zip(numbers(&case["weights"])).map(|(&image, weight)| (image as usize, weight)).collect();
    moments_of(&floats("images"), &floats("texts"), &pairs, case["num_images"].as_u64().unwrap() as usize)
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-12f64, |scale, value| scale.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * scale, "{what} {at}: {found}, expected {expected}");
    }
}

#[test]
fn covariances_equal_numpy() {
    for case in fixture() {
        let found = case_moments(&case).covariances();
        for (side, name) in ["image", "text"].into_iter().enumerate() {
            assert_close(&found.means[side], &numbers(&case[format!("{name}_mean")]), 1e-6, "mean");
            assert_close(&found.within[side].values, &numbers(&case[format!("{name}_cov")]), 1e-5, "covariance");
        }
        assert_close(&found.between.values, &numbers(&case["cross_cov"]), 1e-5, "cross-covariance");
    }
}

#[test]
fn solutions_equal_scipy() {
    for case in fixture() {
        let name = case["name"].as_str().unwrap();
        let method = if case["method"] == "ridge" { Method::Ridge } else { Method::Cca };
        let centred = case["beside_means"].as_bool().unwrap();
        let covariances = case_moments(&case).covariances().beside_means([centred; 2]);
        let dims = case["dims"].as_u64().unwrap() as usize;
        let found = covariances.solve(method, case["ridge"].as_f64().unwrap(), dims).unwrap();
        assert_close(&found.strengths, &numbers(&case["strengths"]), 1e-5, name);
        // Directions have either sign: what both sides give together is compared.
        let map = |weighted: bool| {
            let mut images = found.maps[0].clone();
            for (row, strength) in images.rows_mut().zip(&found.strengths).filter(|_| weighted) {
                row.iter_mut().for_each(|value| *value *= strength);
            }
            images.transposed().times_transposed(&found.maps[1].transposed())
        };
        assert_close(&map(true).values, &numbers(&case["product"]), 1e-3, name);
        let gram = found.maps[0].transposed().times_transposed(&found.maps[0].transposed());
        assert_close(&gram.values, &numbers(&case["image_gram"]), 1e-3, name);
    }
}

#[test]
fn heads_map_means_to_zero_at_size_one() {
    let (count, dim) = (400, 6);
    let images: Vec<f32> = (0..count * 5).map(|at| (noise(1, at) + 7.0 + (at % 5) as f64) as f32).collect();
    let texts: Vec<f32> =
        (0..count * 4).map(|at| images[at / 4 * 5 + at % 4] * 0.5 + noise(2, at) as f32 * 0.3 - 2.0).collect();
    let pairs: Vec<(usize, f64)> = (0..count).map(|at| (at, 1.0)).collect();
    let moments = moments_of(&images, &texts, &pairs, count);
    let block = Block { images: images.clone(), texts: texts.clone(), pairs };
    let spans = Spans::new([count; 2], &Shift::of(&block, count));
    for has_bias in [[true; 2], [false; 2], [true, false]] {
        let covariances = moments.covariances().beside_means(has_bias.map(|has_bias| !has_bias));
        let solution = covariances.solve(Method::Cca, 1e-3, dim).unwrap();
        let (covariances, solution) = (&covariances, &solution);
        let maps = HeadMaps { covariances, solution, spans: &spans, power: 1.0, dim, has_bias, seed: 1 };
        for side in [0, 1] {
            let HeadMap { weight, bias } = maps.of(side);
            let width = weight.len() / dim;
            assert_eq!((width, bias.len()), ([5, 4][side], dim));
            let (mut squares, inputs) = (0.0, [&images, &texts][side]);
            for output in 0..dim {
                let of_row = |row: &[f32]| -> f64 {
                    (0..width).map(|at| f64::from(row[at]) * f64::from(weight[at * dim + output])).sum()
                };
                let shift = if has_bias[side] { f64::from(bias[output]) } else { 0.0 };
                squares += inputs.chunks(width).map(|row| (of_row(row) + shift).powi(2)).sum::<f64>();
                let product: f64 =
                    (0..width).map(|at| f64::from(weight[at * dim + output]) * covariances.means[side][at]).sum();
                let found = product + if has_bias[side] { f64::from(bias[output]) } else { 0.0 };
                assert!(found.abs() < 1e-5, "{has_bias:?} {side} {output}: {found}");
                // No output is dead, not even those that no direction is left for.
                assert!((0..width).any(|at| weight[at * dim + output] != 0.0));
            }
            let size = (squares / count as f64).sqrt();
            assert!((size - 1.0).abs() < 1e-3, "{has_bias:?} {side}: {size}");
        }
    }
}

#[test]
fn finds_what_both_sides_share() {
    // One number in common, each side hidden among noise of larger variance.
    let count = 3000;
    let shared: Vec<f64> = (0..count).map(|at| noise(5, at)).collect();
    let side = |seed: u64, width: usize| -> Vec<f32> {
        let value = |at: usize| 4.0 * noise(seed, at) + if at % width == 1 { shared[at / width] * 4.0 } else { 0.0 };
        (0..count * width).map(|at| value(at) as f32).collect()
    };
    let pairs: Vec<(usize, f64)> = (0..count).map(|at| (at, 1.0)).collect();
    let covariances = moments_of(&side(6, 5), &side(7, 3), &pairs, count).covariances();
    let found = covariances.solve(Method::Cca, 1e-4, 3).unwrap();
    // Half of the variance of the second value is shared, on each side.
    assert!((found.strengths[0] - 0.5).abs() < 0.05 && found.strengths[1] < 0.1, "{:?}", found.strengths);
    for map in &found.maps {
        let first = map.row(0);
        let others = first.iter().enumerate().filter(|(at, _)| *at != 1).map(|(_, value)| value.abs());
        assert!(first[1].abs() > 8.0 * others.fold(0.0, f64::max), "{first:?}");
    }
}

#[test]
fn fewer_pairs_than_directions() {
    let (count, width) = (6, 20);
    let values = |seed| (0..count * width).map(|at| noise(seed, at) as f32).collect::<Vec<_>>();
    let pairs: Vec<(usize, f64)> = (0..count).map(|at| (at, 1.0)).collect();
    let covariances = moments_of(&values(1), &values(2), &pairs, count).covariances();
    let found = covariances.solve(Method::Cca, 1e-2, width).unwrap();
    // Centred, 6 pairs span 5 directions.
    assert_eq!(found.strengths.len(), 5, "{:?}", found.strengths);
    assert!(found.maps.iter().all(|map| map.values.iter().all(|value| value.is_finite())));
}

#[test]
fn unusable_features_are_refused() {
    let pairs: Vec<(usize, f64)> = (0..40).map(|at| (at, 1.0)).collect();
    let varied: Vec<f32> = (0..120).map(|at| noise(3, at) as f32).collect();
    // 0.1 has no exact mean.
    let constant = vec![0.1f32; 120];
    let error = |images: &[f32], texts: &[f32]| {
        moments_of(images, texts, &pairs, 40).covariances().solve(Method::Cca, 1e-2, 3).unwrap_err().to_string()
    };
    assert!(error(&constant, &varied).contains("the image tower are the same for every pair"));
    assert!(error(&varied, &constant).contains("the text tower are the same for every pair"));
    let mut spoiled = varied.clone();
    spoiled[7] = f32::NAN;
    assert!(error(&varied, &spoiled).contains("without a root"));
}

#[test]
fn moments_add_up() {
    let (count, device) = (90, Device::flex());
    let images: Vec<f32> = (0..count * 4).map(|at| (noise(1, at) + 3.0) as f32).collect();
    let texts: Vec<f32> = (0..count * 3).map(|at| noise(2, at) as f32).collect();
    let pairs: Vec<(usize, f64)> = (0..count).map(|at| (at, 1.0 + (at % 3) as f64)).collect();
    let block = Block { images, texts, pairs };
    let new = Moments::new(Shift::of(&block, count));
    let part = |keep: &dyn Fn(usize) -> bool| {
        let mut moments = new.clone();
        moments.add(&block, keep, &device).unwrap();
        moments
    };
    let whole = part(&|_| true);
    let sum = part(&|image| image % 5 == 0).with(&part(&|image| image % 5 != 0));
    assert_eq!((sum.pairs, whole.pairs), (count, count));
    let (sum, whole) = (sum.covariances(), whole.covariances());
    for side in [0, 1] {
        assert_close(&sum.within[side].values, &whole.within[side].values, 1e-6, "covariance");
        assert_close(&sum.means[side], &whole.means[side], 1e-9, "mean");
    }
    assert_close(&sum.between.values, &whole.between.values, 1e-5, "cross-covariance");
}

#[test]
fn moments_do_not_depend_on_threads() {
    let (images, texts, [wide, narrow]) = (700, 1500, [150, 70]);
    let values = |seed, count: usize| (0..count).map(|at| noise(seed, at) as f32).collect::<Vec<_>>();
    let (of_images, of_texts) = (values(1, images * wide), values(2, texts * narrow));
    // Some images have no text, and others several, not one after the other.
    let pairs: Vec<(usize, f64)> = (0..texts).map(|at| (at * 7 % (images - 3), [1.0, 0.5, 0.0][at % 3])).collect();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| moments_of(&of_images, &of_texts, &pairs, images))
    };
    let found = with(1);
    assert!(found == with(2) && found == with(5));
    // The forms of other devices compute the same.
    let tensors = dualenc_kernels::with_plain_forms(|| moments_of(&of_images, &of_texts, &pairs, images));
    let [found, tensors] = [found, tensors].map(|moments| moments.covariances());
    assert_close(&found.between.values, &tensors.between.values, 1e-5, "cross-covariance");
    for side in [0, 1] {
        assert_close(&found.means[side], &tensors.means[side], 1e-12, "mean");
        assert_close(&found.within[side].values, &tensors.within[side].values, 1e-5, "covariance");
    }
}

#[test]
fn pairs_that_wait_are_those_of_their_blocks() {
    let (images, width) = (40, 5);
    let values: Vec<f32> = (0..images * width).map(|at| noise(3, at) as f32).collect();
    let pairs: Vec<(usize, f64)> = (0..images).map(|at| (at, 1.0)).collect();
    let block = Block { images: values.clone(), texts: values, pairs };
    let is_in = |image: usize| image % 3 == 1;
    let mut apart = Block::empty();
    assert_eq!((apart.append(&block, images, is_in), apart.append(&block, images, is_in)), (13, 26));
    let (mut found, mut expected) = {
        let none = Moments::new(Shift::of(&block, images));
        (none.clone(), none)
    };
    found.add(&apart, |_| true, &Device::flex()).unwrap();
    (0..2).for_each(|_| expected.add(&block, is_in, &Device::flex()).unwrap());
    assert_eq!(found.pairs, 26);
    let [found, expected] = [found, expected].map(|moments| moments.covariances());
    assert_close(&found.between.values, &expected.between.values, 1e-6, "cross-covariance");
    assert_close(&found.means[0], &expected.means[0], 1e-12, "mean");
}
