//! The kernels that add up by planes.

use burn::tensor::{Tensor, TensorData};
use cubecl::features::Plane;

use super::{constant, devices};
use crate::cube::support::{plane_of, properties};
use crate::tests::{LONG_SUM_TOLERANCE, assert_close, numbers, values};
use crate::{Sequences, attention, sums_of_squares, untracked_attention};

/// A device that does not say that its planes add up gets no kernel that adds up by planes.
#[test]
fn planes_have_to_add_up() {
    let [device, _] = devices();
    let mut properties = properties(&constant(1, [2, 6], &device)).unwrap();
    let size = plane_of(&properties, 6).unwrap();
    assert_eq!(plane_of(&properties, 64 * size as usize + 1), None);
    properties.features.plane.remove(Plane::Ops);
    assert_eq!(plane_of(&properties, 6), None);
}

#[test]
fn long_attention_matches_host() {
    let [found, expected] = devices().map(|device| {
        let sequences = Sequences { lengths: [150; 3].as_slice().into(), heads: 2, causal: false, dropout: None };
        values(attention(&constant(1, [450, 3 * 16], &device), &sequences).unwrap())
    });
    assert_close("attention", LONG_SUM_TOLERANCE, &found, &expected);
}

#[test]
fn untracked_attention_matches_formula() {
    let [device, _] = devices();
    let [query, key, value] = [1, 2, 3].map(|seed| constant(seed, [2, 3, 50, 8], &device));
    let scores = query.clone().matmul(key.clone().swap_dims(2, 3)) * 8f64.powf(-0.5);
    let expected = burn::tensor::activation::softmax(scores, 3).matmul(value.clone());
    let found = untracked_attention(&query, &key, &value).unwrap();
    assert_close("attention", LONG_SUM_TOLERANCE, &values(found), &values(expected));
}

#[test]
fn sums_of_squares_match_host() {
    let [device, _] = devices();
    let counts: Vec<usize> = (0..40).map(|n| [9000, 1, 4096, 256, 4097][n % 5]).collect();
    let expected: Vec<Vec<f32>> = counts.iter().zip(1..).map(|(&count, seed)| numbers(seed, count)).collect();
    let tensors: Vec<Tensor<1>> = expected
        .iter()
        .map(|values| Tensor::from_data(TensorData::new(values.clone(), [values.len()]), &device))
        .collect();
    let found = sums_of_squares(&tensors).unwrap();
    assert!(found.len() < 5, "{} launches", found.len());
    let mut sums = Vec::new();
    for (parts, counts) in found {
        let parts = values(parts);
        assert_eq!(parts.len(), counts.iter().sum::<usize>());
        let mut rest = &parts[..];
        for count in counts {
            let (own, others) = rest.split_at(count);
            sums.push(own.iter().map(|&part| f64::from(part)).sum::<f64>());
            rest = others;
        }
    }
    assert_eq!(sums.len(), expected.len());
    for (found, values) in sums.iter().zip(&expected) {
        let expected: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        assert!((found / expected - 1.0).abs() < 1e-6, "{found} {expected}");
    }
}
