//! Every rule against golden values of its reference implementation.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_model::{HostTensor, parameters, read_safetensors};

use crate::optim::rules;
use crate::optim::rules::update_rule::{RowsWithGradient, Update, UpdateRule};

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

/// A table of 7 rows of 40 values, updated by whole gradients or by the rows that have one.
struct Table {
    values: Vec<f32>,
    state: Vec<Vec<f32>>,
    live: Option<Vec<bool>>,
}

const TABLE: [usize; 2] = [7, 40];

impl Table {
    fn new(rule: &dyn UpdateRule) -> Self {
        let count = TABLE.iter().product();
        let values = (0..count).map(|n| (n as f32 * 0.7).sin()).collect();
        let state = rule.state(&TABLE).into_iter().map(|(_, count)| vec![0.0; count]).collect();
        Self { values, state, live: None }
    }

    fn update(&mut self, rule: &dyn UpdateRule, step: usize, rows: &[usize], by_rows: bool) {
        let [_, width] = TABLE;
        let mut gradient = vec![0.0; self.values.len()];
        for &row in rows {
            let of_row = gradient[row * width..][..width].iter_mut().enumerate();
            of_row.for_each(|(n, value)| *value = ((row * 31 + n * 7 + step) as f32).cos());
        }
        let decay_factor = 1.0 - rate(step) * WEIGHT_DECAY;
        let update = Update { shape: &TABLE, count: step as i32 + 1, clip: CLIP, decay_factor, rate: rate(step) };
        let Self { values, state, live } = self;
        let with_gradient = RowsWithGradient { width, rows };
        match by_rows {
            true => rule.on_host_rows(update, values, &mut gradient, with_gradient, state, live),
            false => rule.on_host(update, values, &mut gradient, state),
        }
        .unwrap();
    }

    fn bits(&self) -> Vec<u32> {
        self.values.iter().chain(self.state.iter().flatten()).map(|value| value.to_bits()).collect()
    }
}

#[test]
fn rows_left_out_have_the_bits_of_whole_updates() {
    for settings in ["adamw'", "adafactor'", "lion'", "sgd'", "sgd'\nmomentum = 0.0"] {
        let text = format!("batch_size = 2\nlearning_rate = 1\noptimizer = '{settings}");
        let rule = rules::from_config(&toml::from_str(&text).unwrap());
        let [mut by_rows, mut whole] = [(); 2].map(|()| Table::new(rule.as_ref()));
        // Rows 0 and 5 never have a gradient, rows 1 and 6 one with gaps of several steps.
        let batches: [&[usize]; 9] = [&[1, 2], &[2, 3], &[], &[3], &[1, 6], &[4], &[2], &[], &[1, 6]];
        for (step, rows) in batches.into_iter().enumerate() {
            by_rows.update(rule.as_ref(), step, rows, true);
            whole.update(rule.as_ref(), step, rows, false);
            assert_eq!(by_rows.bits(), whole.bits(), "{settings} step {step}");
            if [2, 5].contains(&step) {
                // As after a resume: which rows have state follows from the state.
                by_rows.live = None;
            }
        }
    }
}

#[test]
fn rows_without_state_are_not_read() {
    for settings in ["adamw'", "lion'", "sgd'", "sgd'\nmomentum = 0.0"] {
        let text = format!("batch_size = 2\nlearning_rate = 1\noptimizer = '{settings}");
        let rule = rules::from_config(&toml::from_str(&text).unwrap());
        let mut table = Table::new(rule.as_ref());
        let [rows, width] = TABLE;
        let update = Update { shape: &TABLE, count: 1, clip: CLIP, decay_factor: 0.9, rate: 0.1 };
        let mut live = Some(vec![false; rows]);
        for step in 0..2 {
            // NaN where nothing may be read: it would spread to values and state.
            let mut gradient = vec![f32::NAN; rows * width];
            gradient[3 * width..4 * width].fill(1.0);
            let with_gradient = RowsWithGradient { width, rows: &[3] };
            let Table { values, state, .. } = &mut table;
            rule.on_host_rows(update, values, &mut gradient, with_gradient, state, &mut live).unwrap();
            assert!(
                table.values.iter().chain(table.state.iter().flatten()).all(|it| it.is_finite()),
                "{settings} {step}"
            );
        }
    }
}
