//! The step of an optimiser on a device: all parameters at once, so that a rule can share kernels among them.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use dualenc_model::DualEncoder;
use dualenc_model::parameters::{self, ParamUpdate};

use crate::error::TrainError;
use crate::optim::gradients::Gradient;
use crate::optim::optimizer::{Arrays, Optimizer, State, not_together};
use crate::optim::param_groups::LearningRate;
use crate::optim::rules::update_rule::OnDevice;

/// A parameter with its gradient, flat.
struct Found {
    path: String,
    shape: Vec<usize>,
    value: Tensor<1>,
    gradient: Tensor<1>,
    state: State,
}

impl Optimizer {
    /// As [`Optimizer::step`]. Old and new values are in memory at the same time, which a step has room for: it has
    /// dropped what its backward pass needed.
    pub(super) fn step_on_device(
        &mut self,
        model: DualEncoder,
        gradients: BTreeMap<String, Gradient>,
        clip: f64,
        rate: LearningRate,
        updates: &dyn Fn(&str) -> u64,
    ) -> Result<DualEncoder, TrainError> {
        let mut collect = Collect { optimizer: self, gradients, found: Vec::new(), failure: None };
        let model = parameters::update(model, &mut collect);
        let Collect { mut found, failure, .. } = collect;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let mut steps = Vec::with_capacity(found.len());
        for Found { path, shape, value, gradient, state } in &mut found {
            let update = self.update_of(path, shape, clip, rate, updates)?;
            let Arrays::Device(state) = &mut state.arrays else { return Err(not_together(path)) };
            steps.push(OnDevice { update, value: value.clone(), gradient: gradient.clone(), state });
        }
        self.rule.all_on_device(&mut steps)?;
        let values: Vec<_> = steps.into_iter().map(|step| step.value).collect();
        let mut updated = BTreeMap::new();
        for (Found { path, state, .. }, value) in found.into_iter().zip(values) {
            self.states.insert(path.clone(), state);
            updated.insert(path, value);
        }
        Ok(parameters::update(model, &mut Replace(updated)))
    }
}

/// Gathers the parameters that have a gradient.
struct Collect<'a> {
    optimizer: &'a mut Optimizer,
    gradients: BTreeMap<String, Gradient>,
    found: Vec<Found>,
    failure: Option<TrainError>,
}

impl ParamUpdate for Collect<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        if let Some(gradient) = self.gradients.remove(path) {
            match self.optimizer.found(path, &value, gradient) {
                Ok(found) => self.found.push(found),
                Err(error) => drop(self.failure.get_or_insert(error)),
            }
        }
        value
    }
}

impl Optimizer {
    fn found<const D: usize>(
        &mut self,
        path: &str,
        value: &Tensor<D>,
        gradient: Gradient,
    ) -> Result<Found, TrainError> {
        let shape = value.dims().to_vec();
        let device = value.device();
        let rule = self.rule.as_ref();
        let state = self.states.remove(path).unwrap_or_else(|| State::zeros(rule, &shape, Some(&device)));
        state.assert_fits(rule, path, &shape, &gradient)?;
        let Gradient::Device(gradient) = gradient else { return Err(not_together(path)) };
        let value = value.clone().reshape([shape.iter().product::<usize>()]);
        Ok(Found { path: path.to_owned(), shape, value, gradient: *gradient, state })
    }
}

/// Puts new values in place of the old ones.
struct Replace(BTreeMap<String, Tensor<1>>);

impl ParamUpdate for Replace {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        self.0.remove(path).map_or_else(|| value.clone(), |new| new.reshape(value.dims()))
    }
}
