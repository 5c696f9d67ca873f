//! The terms of the loss against PyTorch, and what blends of pairs are.

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_model::parameters;
use serde_json::Value;

use crate::loss::contrastive::{Objective, PairIds};
use crate::loss::mixup::Mixing;
use crate::loss::structure::StructureTerm;
use crate::loss::terms::{LossInputs, LossTerms};

/// Relative to the largest value of a tensor, or to [`SMALL`] where all are smaller.
const TOLERANCE: f32 = 1e-5;

/// A structure term is a difference of logarithms of about 1: their rounding does not shrink with the term.
const SMALL: f32 = 0.05;

fn golden() -> Value {
    expected("terms")
}

/// What PyTorch computed, in the folder `name` of the goldens.
pub(super) fn expected(name: &str) -> Value {
    let path = format!("{}/../../tests/goldens/{name}/expected.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(super) fn numbers(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(values) => values.iter().map(|number| number.as_f64().unwrap() as f32).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

pub(super) fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// `[rows, width]`
pub(super) fn matrix(value: &Value, rows: usize, device: &Device) -> Tensor<2> {
    let values = numbers(value);
    let shape = [rows, values.len() / rows];
    Tensor::from_data(TensorData::new(values, shape), device)
}

pub(super) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    parameters::host(tensor).unwrap().values
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(SMALL, |largest, value| largest.max(value.abs()));
    let worst = found.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(worst <= TOLERANCE * largest, "{what}: {worst} off, of {largest}");
}

#[test]
fn terms_match_pytorch() {
    let golden = golden();
    let inputs = &golden["inputs"];
    let [batch, dim]: [usize; 2] = read(&inputs["shape"]);
    let related: Vec<(usize, usize)> = read(&inputs["related"]);
    let known = |row: usize| {
        let others = related.iter().filter(move |pair| pair.0 == row).map(|pair| pair.1 as u64);
        others.chain([row as u64]).collect()
    };
    let pairs = PairIds { captions: (0..batch as u64).collect(), known: (0..batch).map(known).collect() };
    let mixing = Mixing { share: read(&inputs["mixing"]["share"]), partners: read(&inputs["mixing"]["partners"]) };
    let term = &inputs["structure"];
    let term = StructureTerm {
        weight: read(&term["weight"]),
        warmup_steps: read(&term["warmup_steps"]),
        temperature: read(&term["temperature"]),
    };
    let (plain, device) = (Device::flex(), Device::flex().autodiff());
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 20);
    for case in cases {
        let what = format!(
            "{} {} {} {} {} {}",
            case["loss"],
            case["duplicates"],
            case["label_smoothing"],
            case["widths"],
            case["structure"],
            case["mixing"]
        );
        let sides: Vec<String> = read(&case["structure"]);
        let mixing = Some(&mixing).filter(|_| case["mixing"] == true);
        let terms = LossTerms {
            objective: Objective {
                loss: read(&case["loss"]),
                duplicates: read(&case["duplicates"]),
                label_smoothing: read(&case["label_smoothing"]),
            },
            narrower: read(&case["widths"]),
            structure: Some(term).filter(|_| !sides.is_empty()),
            teacher: None,
            mixup_alpha: mixing.map(|_| 1.0),
        };
        let locked = ["image", "text"].map(|side| {
            let features = matrix(&inputs[format!("locked_{side}")], batch, &plain);
            let features = mixing.map_or(features.clone(), |mixing| mixing.blend(&features));
            sides.iter().any(|name| name == side).then_some(features)
        });
        let features = ["image", "text"].map(|side| matrix(&inputs[side], batch, &device).require_grad());
        let [scale, bias] = ["logit_scale", "logit_bias"]
            .map(|name| Tensor::<1>::from_data([numbers(&inputs[name])[0]], &device).require_grad());
        let loss = terms.loss(LossInputs {
            step: read(&case["step"]),
            pairs: &pairs,
            mixing,
            locked: locked.each_ref().map(Option::as_ref),
            teacher: None,
            features: features.clone(),
            logit_scale: scale.clone(),
            logit_bias: Some(bias.clone()),
        });
        assert_eq!(loss.contrastive.num_duplicates, 4, "{what}");
        assert_close(&what, &host(loss.contrastive.loss.clone()), &numbers(&case["contrastive"]));
        assert_eq!(loss.structure.is_some(), !case["term"].is_null(), "{what}");
        if let Some(found) = loss.structure.clone() {
            assert_close(&what, &host(found), &numbers(&case["term"]));
        }
        assert_close(&what, &host(loss.total.clone()), &numbers(&case["total"]));
        let mut gradients = loss.total.backward();
        for (side, features) in ["image", "text"].iter().zip(&features) {
            let found = host(features.grad_remove(&mut gradients).unwrap());
            assert_eq!(found.len(), batch * dim);
            assert_close(&format!("{what} by {side}"), &found, &numbers(&case[format!("by_{side}")]));
        }
        let found = host(scale.grad_remove(&mut gradients).unwrap());
        assert_close(&format!("{what} by logit_scale"), &found, &numbers(&case["by_logit_scale"]));
        if case["loss"] == "sigmoid" {
            let found = host(bias.grad_remove(&mut gradients).unwrap());
            assert_close(&format!("{what} by logit_bias"), &found, &numbers(&case["by_logit_bias"]));
        }
    }
}

#[test]
fn structure_weight_rises_linearly() {
    let term = StructureTerm { weight: 10.0, warmup_steps: 4, temperature: 0.05 };
    assert_eq!([0, 1, 3, 4, 9].map(|step| term.weight_at(step)), [0.0, 2.5, 7.5, 10.0, 10.0]);
    assert_eq!(StructureTerm { warmup_steps: 0, ..term }.weight_at(0), 10.0);
}

#[test]
fn partners_form_one_circle() {
    for batch in [2, 3, 257] {
        let Mixing { partners, .. } = Mixing::draw(1.0, 42, 7, batch);
        let (mut at, mut seen) = (0, vec![false; batch]);
        for _ in 0..batch {
            assert!(!std::mem::replace(&mut seen[at], true));
            at = partners[at];
        }
        assert_eq!(at, 0);
    }
    let draw = |seed, step| Mixing::draw(1.0, seed, step, 64);
    assert_eq!(draw(1, 2), draw(1, 2));
    for other in [draw(1, 3), draw(2, 2)] {
        assert!(other.share != draw(1, 2).share && other.partners != draw(1, 2).partners);
    }
}

#[test]
fn shares_follow_beta() {
    for alpha in [0.2, 1.0, 4.0] {
        let shares: Vec<f64> = (0..20_000).map(|step| Mixing::draw(alpha, 3, step, 2).share).collect();
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / shares.len() as f64;
        // Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1)).
        let expected = 0.25 / (2.0 * alpha + 1.0);
        assert!((mean - 0.5).abs() < 0.01, "{alpha}: {mean}");
        assert!((variance / expected - 1.0).abs() < 0.04, "{alpha}: {variance}, not {expected}");
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
    }
    // Of uniform draws, a tenth is below 0.1.
    let low = (0..20_000).filter(|&step| Mixing::draw(1.0, 3, step, 2).share < 0.1).count();
    assert!((low as f64 / 2000.0 - 1.0).abs() < 0.1, "{low}");
}

#[test]
fn rows_of_a_pair_are_blended_together() {
    let mixing = Mixing { share: 0.75, partners: vec![1, 2, 0] };
    // Two captions a pair.
    let features = Tensor::<2>::from_data([[0.0], [10.0], [4.0], [14.0], [8.0], [18.0]], &Device::flex());
    assert_eq!(host(mixing.blend(&features)), [1.0, 11.0, 5.0, 15.0, 6.0, 16.0]);
}
