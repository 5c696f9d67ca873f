//! What every optimiser is: a formula for one parameter, over host memory and as tensor operations. A file holds one each.

use std::fmt::Debug;

use burn::tensor::Tensor;

use crate::adafactor_rule::Adafactor;
use crate::adamw_rule::AdamW;
use crate::config::{OptimizerKind, TrainSection, default};
use crate::lion_rule::Lion;
use crate::sgd_rule::Sgd;

/// Elements that one task updates.
pub(crate) const CHUNK: usize = 1 << 14;

/// What a rule is told of one update of one parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Update<'a> {
    /// The parameter's.
    pub shape: &'a [usize],
    /// Which of the parameter's own updates this is, from 1.
    pub count: i32,
    /// What the gradient is multiplied with, so that the norm of all fits the limit.
    pub clip: f64,
    /// What decoupled weight decay leaves of the value.
    pub keep: f64,
    /// The learning rate.
    pub rate: f64,
}

/// The rows of a table that can have a gradient.
pub(crate) struct RowsWithGradient<'a> {
    /// Values of a row.
    pub width: usize,
    /// Their numbers, sorted.
    pub read: &'a [usize],
}

/// The formula of an optimiser. Everything is flat; state comes in the order of [`UpdateRule::state`] and starts as zeros.
pub(crate) trait UpdateRule: Debug + Send + Sync {
    /// Name and length of each array that is kept of a parameter of this shape.
    fn state(&self, shape: &[usize]) -> Vec<(&'static str, usize)>;

    /// In place. What is left in `gradient` is of no use.
    fn on_host(&self, update: Update<'_>, values: &mut [f32], gradient: &mut [f32], state: &mut [Vec<f32>]);

    /// The same for a table of which all but few rows have a gradient of 0. `live` is the rule's to keep and begins as
    /// `None`.
    fn on_host_rows(
        &self,
        update: Update<'_>,
        values: &mut [f32],
        gradient: &mut [f32],
        _rows: RowsWithGradient<'_>,
        state: &mut [Vec<f32>],
        _live: &mut Option<Vec<bool>>,
    ) {
        self.on_host(update, values, gradient, state);
    }

    /// As tensor operations.
    fn on_device(
        &self,
        update: Update<'_>,
        value: Tensor<1>,
        gradient: Tensor<1>,
        state: &mut [Tensor<1>],
    ) -> Tensor<1>;
}

/// The rule that `config` names.
pub(crate) fn rule_of(config: &TrainSection) -> Box<dyn UpdateRule> {
    let kind = config.optimizer;
    let momentum = config.momentum.unwrap_or(default::MOMENTUM);
    let betas = config.betas.or(default::betas(kind)).unwrap_or_default();
    match kind {
        OptimizerKind::AdamW => Box::new(AdamW { betas, epsilon: config.eps.unwrap_or(default::EPS) }),
        OptimizerKind::Adafactor => Box::new(Adafactor { momentum }),
        OptimizerKind::Lion => Box::new(Lion { betas }),
        OptimizerKind::Sgd => Box::new(Sgd { momentum }),
    }
}

#[cfg(feature = "flex")]
#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use burn::tensor::{Device, TensorData};
    use dualenc_model::{HostTensor, parameters, read_safetensors};

    use super::*;

    /// As `scripts/goldens/optim.py` has it.
    const STEPS: usize = 5;
    const CLIP: f64 = 0.5;
    const WEIGHT_DECAY: f64 = 0.1;

    fn rate(step: usize) -> f64 {
        0.01 * (step + 1) as f64
    }

    /// Some close to 0 are wrong by what the large ones are rounded by.
    #[track_caller]
    fn close(what: &str, found: &[f32], expected: &[f32], relative: f32) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let scale = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() <= relative * scale, "{what} {at}: found {found}, expected {expected}");
        }
    }

    /// Arrays by their names.
    type State = Vec<(&'static str, Vec<f32>)>;

    /// Steps of the rule on one parameter of the fixture, by one of the two forms; gives its value after each, and its state.
    fn steps(
        rule: &dyn UpdateRule,
        goldens: &BTreeMap<String, HostTensor>,
        name: &str,
        on_host: bool,
    ) -> (Vec<Vec<f32>>, State) {
        let HostTensor { shape, mut values } = goldens[&format!("{name}.initial")].clone();
        let device = Device::flex();
        let kept = rule.state(&shape);
        let mut state: Vec<Vec<f32>> = kept.iter().map(|(_, count)| vec![0.0; *count]).collect();
        let mut on_device: Vec<Tensor<1>> = kept.iter().map(|(_, count)| Tensor::zeros([*count], &device)).collect();
        let mut after = Vec::new();
        for step in 0..STEPS {
            let keep = if shape.len() > 1 { 1.0 - rate(step) * WEIGHT_DECAY } else { 1.0 };
            let update = Update { shape: &shape, count: step as i32 + 1, clip: CLIP, keep, rate: rate(step) };
            let mut gradient = goldens[&format!("{name}.gradient.{step}")].values.clone();
            if on_host {
                rule.on_host(update, &mut values, &mut gradient, &mut state);
            } else {
                let [value, gradient] = [values, gradient].map(|values| {
                    let count = values.len();
                    Tensor::from_data(TensorData::new(values, [count]), &device)
                });
                values = parameters::host(rule.on_device(update, value, gradient, &mut on_device)).unwrap().values;
            }
            after.push(values.clone());
        }
        if !on_host {
            state = on_device.into_iter().map(|tensor| parameters::host(tensor).unwrap().values).collect();
        }
        (after, kept.into_iter().map(|(name, _)| name).zip(state).collect())
    }

    #[test]
    fn every_rule_takes_the_steps_of_its_reference_in_both_forms() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/optim/expected.safetensors");
        let goldens = read_safetensors(&path).unwrap();
        for optimizer in ["adamw", "adafactor", "lion", "sgd"] {
            let text = format!("batch_size = 2\nlearning_rate = 1\noptimizer = '{optimizer}'");
            let rule = rule_of(&toml::from_str(&text).unwrap());
            // A factored matrix, one too narrow for that, a vector.
            for name in ["matrix", "narrow", "vector"] {
                for on_host in [true, false] {
                    let (after, state) = steps(rule.as_ref(), &goldens, name, on_host);
                    for step in [0, STEPS - 1] {
                        let golden = &goldens[&format!("{optimizer}.{name}.{step}")];
                        let what = format!("{optimizer} {name} step {step} on host: {on_host}");
                        close(&what, &after[step], &golden.values, 1e-6);
                    }
                    for (array, found) in state {
                        let key = format!("{optimizer}.{name}.{array}");
                        close(&key, &found, &goldens[&key].values, 2e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn no_gradient_moves_nothing() {
        for optimizer in ["adamw", "adafactor", "lion", "sgd"] {
            let text = format!("batch_size = 2\nlearning_rate = 1\noptimizer = '{optimizer}'");
            let rule = rule_of(&toml::from_str(&text).unwrap());
            for shape in [vec![40, 33], vec![40]] {
                let count = shape.iter().product();
                let mut state: Vec<Vec<f32>> = rule.state(&shape).iter().map(|(_, count)| vec![0.0; *count]).collect();
                let (mut values, mut gradient) = (vec![1.0; count], vec![0.0; count]);
                for count in 1..4 {
                    let update = Update { shape: &shape, count, clip: 1.0, keep: 1.0, rate: 0.1 };
                    rule.on_host(update, &mut values, &mut gradient, &mut state);
                }
                assert!(values.iter().all(|&value| value == 1.0), "{optimizer} {shape:?}");
            }
        }
    }
}
