//! Every rule against golden values of its reference implementation.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_model::{HostTensor, parameters, read_safetensors};

use crate::optim::rules;
use crate::optim::rules::update_rule::{Update, UpdateRule};

// The settings of `scripts/goldens/optim.py`.
const STEPS: usize = 5;
const CLIP: f64 = 0.5;
const WEIGHT_DECAY: f64 = 0.1;

fn rate(step: usize) -> f64 {
    0.01 * (step + 1) as f64
}

/// Tolerance relative to the largest value: values near 0 carry the rounding errors of large terms.
#[track_caller]
fn close(what: &str, found: &[f32], expected: &[f32], relative: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= relative * scale, "{what} {at}: found {found}, expected {expected}");
    }
}

/// State arrays with their names.
type State = Vec<(&'static str, Vec<f32>)>;

/// Runs [`STEPS`] updates of a golden parameter; returns its value after each, and the final state.
fn steps(
    rule: &dyn UpdateRule,
    goldens: &BTreeMap<String, HostTensor>,
    name: &str,
    on_host: bool,
) -> (Vec<Vec<f32>>, State) {
    let HostTensor { shape, mut values } = goldens[&format!("{name}.initial")].clone();
    let device = Device::flex();
    let arrays = rule.state(&shape);
    let mut state: Vec<Vec<f32>> = arrays.iter().map(|(_, count)| vec![0.0; *count]).collect();
    let mut on_device: Vec<Tensor<1>> = arrays.iter().map(|(_, count)| Tensor::zeros([*count], &device)).collect();
    let mut after = Vec::new();
    for step in 0..STEPS {
        let decay_factor = if shape.len() > 1 { 1.0 - rate(step) * WEIGHT_DECAY } else { 1.0 };
        let update = Update { shape: &shape, count: step as i32 + 1, clip: CLIP, decay_factor, rate: rate(step) };
        let mut gradient = goldens[&format!("{name}.gradient.{step}")].values.clone();
        if on_host {
            rule.on_host(update, &mut values, &mut gradient, &mut state).unwrap();
        } else {
            let [value, gradient] = [values, gradient].map(|values| {
                let count = values.len();
                Tensor::from_data(TensorData::new(values, [count]), &device)
            });
            values = parameters::host(rule.on_device(update, value, gradient, &mut on_device).unwrap()).unwrap().values;
        }
        after.push(values.clone());
    }
    if !on_host {
        state = on_device.into_iter().map(|tensor| parameters::host(tensor).unwrap().values).collect();
    }
    (after, arrays.into_iter().map(|(name, _)| name).zip(state).collect())
}

#[test]
fn rules_match_references() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/optim/expected.safetensors");
    let goldens = read_safetensors(&path).unwrap();
    for optimizer in ["adamw", "adafactor", "lion", "sgd"] {
        let text = format!("batch_size = 2\nlearning_rate = 1\noptimizer = '{optimizer}'");
        let rule = rules::from_config(&toml::from_str(&text).unwrap());
        // A matrix that Adafactor factors, one that is too narrow for it, and a vector; for Adafactor also tensors with
        // more dimensions, such as the kernels of convolutions.
        let kernels = ["kernel", "wide_kernel", "tall_kernel", "small_kernel", "stack"];
        let kernels = kernels.iter().filter(|_| optimizer == "adafactor");
        for name in ["matrix", "narrow", "vector"].iter().chain(kernels) {
            for on_host in [true, false] {
                let (after, state) = steps(rule.as_ref(), &goldens, name, on_host);
                for step in [0, STEPS - 1] {
                    let golden = &goldens[&format!("{optimizer}.{name}.{step}")];
                    let what = format!("{optimizer} {name} step {step} on host: {on_host}");
                    close(&what, &after[step], &golden.values, 5e-7);
                }
                for (array, found) in state {
                    let key = format!("{optimizer}.{name}.{array}");
                    close(&key, &found, &goldens[&key].values, 5e-7);
                }
            }
        }
    }
}

#[test]
fn zero_gradient_changes_nothing() {
    for optimizer in ["adamw", "adafactor", "lion", "sgd"] {
        let text = format!("batch_size = 2\nlearning_rate = 1\noptimizer = '{optimizer}'");
        let rule = rules::from_config(&toml::from_str(&text).unwrap());
        for shape in [vec![40, 33], vec![40]] {
            let count = shape.iter().product();
            let mut state: Vec<Vec<f32>> = rule.state(&shape).iter().map(|(_, count)| vec![0.0; *count]).collect();
            let (mut values, mut gradient) = (vec![1.0; count], vec![0.0; count]);
            for count in 1..4 {
                let update = Update { shape: &shape, count, clip: 1.0, decay_factor: 1.0, rate: 0.1 };
                rule.on_host(update, &mut values, &mut gradient, &mut state).unwrap();
            }
            assert!(values.iter().all(|&value| value == 1.0), "{optimizer} {shape:?}");
        }
    }
}
