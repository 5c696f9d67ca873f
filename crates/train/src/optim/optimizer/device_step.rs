//! The step of an optimiser on a device: several parameters at once, so that a rule can share kernels among them.

use std::collections::BTreeMap;

use burn::tensor::{Shape, Tensor};
use dualenc_model::DualEncoder;
use dualenc_model::parameters::{self, ParamUpdate};

use crate::error::TrainError;
use crate::optim::gradients::Gradient;
use crate::optim::optimizer::{Arrays, Optimizer, State, not_together};
use crate::optim::param_groups::LearningRate;
use crate::optim::rules::update_rule::{OnDevice, Update};

/// Parameters that are updated at once, at most: two launches where a device binds few buffers (6 parameters), and one
/// elsewhere (`MOST` of `cube::bundle` in `dualenc_kernels`). Only these have old and new values and state in memory at
/// the same time.
const AT_ONCE: usize = 12;

/// A parameter that waits for others with the same constants. All tensors are flat.
struct Waiting {
    kept: Kept,
    value: Tensor<1>,
    gradient: Tensor<1>,
}

/// What is left of a parameter after its update, beside its value.
struct Kept {
    path: String,
    shape: Vec<usize>,
    /// Names of the arrays of its state.
    names: Vec<&'static str>,
    arrays: Vec<Tensor<1>>,
}

impl Optimizer {
    /// As [`Optimizer::step`].
    pub(super) fn step_on_device(
        &mut self,
        model: DualEncoder,
        gradients: BTreeMap<String, Gradient>,
        control: Tensor<1>,
        rate: LearningRate,
        updates: &dyn Fn(&str) -> u64,
    ) -> Result<DualEncoder, TrainError> {
        let (groups, updated) = (Vec::new(), BTreeMap::new());
        let mut step =
            DeviceStep { optimizer: self, gradients, control, rate, updates, groups, updated, failure: None };
        let model = parameters::update(model, &mut step);
        let updated = step.finish()?;
        Ok(parameters::update(model, &mut Replace(updated)))
    }
}

/// A step, as a visitor of the model's parameters. It leaves a placeholder for each that it updates, so that the model
/// does not hold old values.
struct DeviceStep<'a> {
    optimizer: &'a mut Optimizer,
    gradients: BTreeMap<String, Gradient>,
    /// Clips, and decides whether anything changes.
    control: Tensor<1>,
    rate: LearningRate,
    updates: &'a dyn Fn(&str) -> u64,
    /// Parameters that wait, by what their updates share: all but the shape.
    groups: Vec<(Update<'static>, Vec<Waiting>)>,
    /// Shapes and flat new values, by path.
    updated: BTreeMap<String, (Vec<usize>, Tensor<1>)>,
    /// Why the step is incomplete.
    failure: Option<TrainError>,
}

impl ParamUpdate for DeviceStep<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        // Parameters without a gradient do not train: `assert_complete`.
        let Some(gradient) = self.gradients.remove(path).filter(|_| self.failure.is_none()) else { return value };
        let device = value.device();
        if let Err(error) = self.collect(path, value, gradient) {
            self.failure = Some(error);
        }
        Tensor::empty([1usize; D], &device)
    }
}

impl DeviceStep<'_> {
    /// Adds a parameter to those that wait, and updates its group once that is full.
    fn collect<const D: usize>(&mut self, path: &str, value: Tensor<D>, gradient: Gradient) -> Result<(), TrainError> {
        let (shape, device) = (value.dims().to_vec(), value.device());
        // The control clips, not the constants of an update.
        let update = self.optimizer.update_of(path, &[], 1.0, self.rate, self.updates)?;
        let Optimizer { rule, states, .. } = &mut *self.optimizer;
        let state = states.remove(path).unwrap_or_else(|| State::zeros(rule.as_ref(), &shape, Some(&device)));
        state.assert_fits(rule.as_ref(), path, &shape, &gradient)?;
        let State { names, arrays: Arrays::Device(arrays) } = state else { return Err(not_together(path)) };
        let Gradient::Device(gradient) = gradient else { return Err(not_together(path)) };
        let value = value.reshape([shape.iter().product::<usize>()]);
        let kept = Kept { path: path.to_owned(), shape, names, arrays };
        let waiting = Waiting { kept, value, gradient: *gradient };
        match self.groups.iter_mut().find(|(other, _)| *other == update) {
            Some((_, group)) => group.push(waiting),
            None => self.groups.push((update, vec![waiting])),
        }
        match self.groups.iter().position(|(_, group)| group.len() >= AT_ONCE) {
            Some(full) => {
                let (update, group) = self.groups.swap_remove(full);
                self.update_group(update, group)
            }
            None => Ok(()),
        }
    }

    /// Updates parameters with the same constants. Their old values, gradients and state are dropped.
    fn update_group(&mut self, update: Update<'static>, group: Vec<Waiting>) -> Result<(), TrainError> {
        let parted = group.into_iter().map(|Waiting { kept, value, gradient }| (kept, (value, gradient)));
        let (mut kept, tensors): (Vec<Kept>, Vec<(Tensor<1>, Tensor<1>)>) = parted.unzip();
        let mut parameters = Vec::with_capacity(kept.len());
        for (Kept { shape, arrays, .. }, (value, gradient)) in kept.iter_mut().zip(tensors) {
            let update = Update { shape: shape.as_slice(), ..update };
            parameters.push(OnDevice { update, value, gradient, state: arrays.as_mut_slice() });
        }
        let values = self.optimizer.rule.all_on_device(parameters, &self.control)?;
        for (Kept { path, shape, names, arrays }, value) in kept.into_iter().zip(values) {
            self.optimizer.states.insert(path.clone(), State { names, arrays: Arrays::Device(arrays) });
            self.updated.insert(path, (shape, value));
        }
        Ok(())
    }

    /// Updates the parameters that still wait. Returns shapes and new values of all, by path.
    fn finish(mut self) -> Result<BTreeMap<String, (Vec<usize>, Tensor<1>)>, TrainError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        for (update, group) in std::mem::take(&mut self.groups) {
            self.update_group(update, group)?;
        }
        Ok(self.updated)
    }
}

/// Puts new values in place of the placeholders.
struct Replace(BTreeMap<String, (Vec<usize>, Tensor<1>)>);

impl ParamUpdate for Replace {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        match self.0.remove(path) {
            Some((shape, new)) => new.reshape(Shape::from(shape)),
            None => value,
        }
    }
}
