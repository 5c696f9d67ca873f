//! The optimiser over the whole model: owns the state, clips by the global norm, and applies a rule of `optim::rules`
//! to each parameter with the learning rate and decay of `param_groups`.
//!
//! State is keyed by the parameters' paths, so that a checkpoint can be checked tensor by tensor. On a CPU, updates
//! work in place; on other devices the same formulas run as tensor operations.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, Device, Tensor, TensorData};
use dualenc_model::parameters::{self, ParamUpdate};
use dualenc_model::{DualEncoder, HostTensor, ModelError};

use crate::config::TrainSection;
use crate::error::TrainError;
use crate::optim::clip::Clip;
use crate::optim::gradients::{Gradient, ParamGradients};
use crate::optim::param_groups::{LearningRate, ParamGroups};
use crate::optim::rules;
use crate::optim::rules::update_rule::{RowsWithGradient, Update, UpdateRule};
use crate::optim::state_tensor::StateTensor;

/// The rule's state of one parameter.
#[derive(Debug)]
struct State {
    /// Names of the arrays, in order.
    names: Vec<&'static str>,
    arrays: Arrays,
}

#[derive(Debug)]
enum Arrays {
    Host {
        arrays: Vec<Vec<f32>>,
        /// Marks the rows of a table with a state that is not 0. `None` until the table is updated row by row.
        live: Option<Vec<bool>>,
    },
    Device(Vec<Tensor<1>>),
}

impl Arrays {
    /// Number of values of each array.
    fn lengths(&self) -> Vec<usize> {
        match self {
            Self::Host { arrays, .. } => arrays.iter().map(Vec::len).collect(),
            Self::Device(tensors) => tensors.iter().map(|tensor| tensor.dims()[0]).collect(),
        }
    }
}

impl State {
    /// Places `arrays` on `device`, or in host memory if it is `None`.
    fn new(arrays: Vec<(&'static str, Vec<f32>)>, device: Option<&Device>) -> Self {
        let (names, arrays): (Vec<_>, Vec<_>) = arrays.into_iter().unzip();
        let arrays = match device {
            None => Arrays::Host { arrays, live: None },
            Some(device) => Arrays::Device(arrays.into_iter().map(|values| flat_tensor(values, device)).collect()),
        };
        Self { names, arrays }
    }

    /// The state of a parameter that was never updated, placed as by [`State::new`].
    fn zeros(rule: &dyn UpdateRule, shape: &[usize], device: Option<&Device>) -> Self {
        let zeros = rule.state(shape).into_iter().map(|(name, count)| (name, vec![0.0; count]));
        Self::new(zeros.collect(), device)
    }

    /// Checks that the gradient of a parameter and this state are as long as they should be.
    fn assert_fits(
        &self,
        rule: &dyn UpdateRule,
        path: &str,
        shape: &[usize],
        gradient: &Gradient,
    ) -> Result<(), TrainError> {
        let lengths: Vec<usize> = rule.state(shape).into_iter().map(|(_, count)| count).collect();
        let found = [&[gradient.len()][..], &self.arrays.lengths()].concat();
        let expected = [&[shape.iter().product()][..], &lengths].concat();
        if found == expected {
            return Ok(());
        }
        Err(TrainError::Internal(format!(
            "gradient and optimiser state of `{path}` have {found:?} values, expected {expected:?}"
        )))
    }
}

fn read_later(tensor: &Tensor<1>) -> StateTensor<'_> {
    let read = move || parameters::host(tensor.clone()).map(|read| read.values);
    StateTensor::read_by(tensor.dims().to_vec(), read)
}

fn flat_tensor(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

/// An optimiser over the trainable parameters of a [`DualEncoder`].
#[derive(Debug)]
pub struct Optimizer {
    rule: Box<dyn UpdateRule>,
    param_groups: ParamGroups,
    /// Limit of the global gradient norm; 0: no limit.
    clip_norm: f64,
    on_host: bool,
    states: BTreeMap<String, State>,
}

impl Optimizer {
    /// Creates an optimiser without state. `model`: with every parameter trainable that any stage trains. `on_host`:
    /// keep the state in host memory and update in place; for devices that compute there.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when a `[[train.group]]` matches no trainable parameter, or has no effect.
    pub fn new(config: &TrainSection, model: &DualEncoder, on_host: bool) -> Result<Self, TrainError> {
        Ok(Self {
            rule: rules::from_config(config),
            param_groups: ParamGroups::resolve(config, model)?,
            clip_norm: config.clip_grad_norm,
            on_host,
            states: BTreeMap::new(),
        })
    }

    /// Learning rate and weight decay of each parameter.
    pub(crate) fn param_groups(&self) -> &ParamGroups {
        &self.param_groups
    }

    /// Updates the trainable parameters of `model`.
    ///
    /// `clip` is that of the global L2 norm of `gradients`; `updates` returns the number of earlier updates of a
    /// parameter, by path. Updates are in place only if nothing else shares the model's tensors.
    ///
    /// # Errors
    /// [`TrainError::Internal`] when the gradients are not those of the trainable parameters, or gradient, state and
    /// parameter do not fit each other. The update is then incomplete, and the optimiser of no further use.
    pub fn step(
        &mut self,
        model: DualEncoder,
        gradients: ParamGradients,
        clip: Clip,
        rate: LearningRate,
        updates: &dyn Fn(&str) -> u64,
    ) -> Result<DualEncoder, TrainError> {
        assert_complete(&model, &gradients)?;
        let gradients = gradients.by_path;
        if !self.on_host {
            let control = clip.control(&model.device());
            return self.step_on_device(model, gradients, control, rate, updates);
        }
        let clip = match clip {
            Clip::Known(factor) => factor,
            Clip::OnDevice(_) => {
                return Err(TrainError::Internal("the host updates, but a device decides of it".to_owned()));
            }
        };
        let mut step = Step { optimizer: self, gradients, clip, rate, updates, failure: None };
        let model = parameters::update(model, &mut step);
        step.failure.map_or(Ok(model), Err)
    }

    /// What the update of a parameter depends on beside its tensors.
    fn update_of<'a>(
        &self,
        path: &str,
        shape: &'a [usize],
        clip: f64,
        rate: LearningRate,
        updates: &dyn Fn(&str) -> u64,
    ) -> Result<Update<'a>, TrainError> {
        let options = self.param_groups.options(path)?;
        let rate = options.rate(rate);
        let decay_factor = 1.0 - rate * options.weight_decay.unwrap_or_default();
        let count = (updates(path) + 1).min(i32::MAX as u64) as i32;
        Ok(Update { shape, count, clip, decay_factor, rate })
    }

    /// Limit of the global gradient norm; 0: no limit.
    pub(crate) fn max_norm(&self) -> f64 {
        self.clip_norm
    }

    /// Whether updates are made in host memory.
    pub(crate) fn on_host(&self) -> bool {
        self.on_host
    }

    /// Drops the state of parameters that `is_updated` does not take: of a step that changed nothing.
    pub(crate) fn retain(&mut self, is_updated: impl Fn(&str) -> bool) {
        self.states.retain(|path, _| is_updated(path));
    }

    /// Values of the state of all parameters.
    pub(crate) fn num_values(&self) -> usize {
        self.states.values().flat_map(|state| state.arrays.lengths()).sum()
    }

    /// The state for a checkpoint, by path and array name, such as `logit_scale.first`. Nothing is copied yet, and host
    /// memory never.
    pub fn state(&self) -> BTreeMap<String, StateTensor<'_>> {
        let mut tensors = BTreeMap::new();
        for (path, state) in &self.states {
            let arrays: Vec<StateTensor<'_>> = match &state.arrays {
                Arrays::Host { arrays, .. } => {
                    arrays.iter().map(|array| StateTensor::of(vec![array.len()], array.as_slice())).collect()
                }
                Arrays::Device(tensors) => tensors.iter().map(read_later).collect(),
            };
            let names = state.names.iter().map(|name| format!("{path}.{name}"));
            tensors.extend(names.zip(arrays));
        }
        tensors
    }

    /// Restores a saved state. It must have exactly the arrays of the trainable parameters of `model`.
    ///
    /// # Errors
    /// [`ModelError::State`] with a line for each array that is missing, unexpected or of another length; the state is
    /// unchanged then.
    pub fn restore(&mut self, model: &DualEncoder, mut saved: BTreeMap<String, HostTensor>) -> Result<(), ModelError> {
        let mut problems = Vec::new();
        let mut states = BTreeMap::new();
        let device = (!self.on_host).then(|| model.device());
        let mut training = BTreeSet::new();
        for info in parameters::list(model).into_iter().filter(|info| info.trains) {
            training.insert(info.path.clone());
            let mut arrays = Vec::new();
            for (name, count) in self.rule.state(&info.shape) {
                let key = format!("{}.{name}", info.path);
                match saved.remove(&key) {
                    Some(tensor) if tensor.values.len() == count => arrays.push((name, tensor.values)),
                    Some(tensor) => {
                        problems.push(format!("{key}: expected {count} values, found {}", tensor.values.len()));
                    }
                    None => problems.push(format!("{key}: not in the file")),
                }
            }
            states.insert(info.path, State::new(arrays, device.as_ref()));
        }
        problems.extend(saved.into_keys().map(|key| {
            let trains = key.rsplit_once('.').is_some_and(|(path, _)| training.contains(path));
            let why = if trains { "the optimiser keeps no such state of it" } else { "its parameter does not train" };
            format!("{key}: in the file, but {why}")
        }));
        if !problems.is_empty() {
            return Err(ModelError::State { problems });
        }
        self.states = states;
        Ok(())
    }
}

/// Checks that exactly the trainable parameters of `model` have a gradient.
fn assert_complete(model: &DualEncoder, gradients: &ParamGradients) -> Result<(), TrainError> {
    let training = parameters::list(model).into_iter().filter(|info| info.trains);
    let training: BTreeSet<String> = training.map(|info| info.path).collect();
    let without = training.iter().filter(|path| !gradients.by_path.contains_key(*path));
    let surplus = gradients.by_path.keys().filter(|path| !training.contains(*path));
    let problems = without.map(|path| format!("`{path}` trains, but has no gradient"));
    let problems = problems.chain(surplus.map(|path| format!("`{path}` has a gradient, but does not train")));
    let problems: Vec<String> = problems.collect();
    match &problems[..] {
        [] => Ok(()),
        [first] => Err(TrainError::Internal(first.clone())),
        [first, more @ ..] => Err(TrainError::Internal(format!("{first}, and {} more like it", more.len()))),
    }
}

/// A step, as a visitor of the model's parameters.
struct Step<'a> {
    optimizer: &'a mut Optimizer,
    gradients: BTreeMap<String, Gradient>,
    clip: f64,
    rate: LearningRate,
    updates: &'a dyn Fn(&str) -> u64,
    /// Why the step is incomplete.
    failure: Option<TrainError>,
}

impl ParamUpdate for Step<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        // Parameters without a gradient do not train: `assert_complete`.
        let Some(gradient) = self.gradients.remove(path).filter(|_| self.failure.is_none()) else { return value };
        let device = value.device();
        self.updated(path, value, gradient).unwrap_or_else(|error| {
            self.failure = Some(error);
            Tensor::from_data(TensorData::new(Vec::<f32>::new(), [0; D]), &device)
        })
    }
}

impl Step<'_> {
    fn updated<const D: usize>(
        &mut self,
        path: &str,
        value: Tensor<D>,
        gradient: Gradient,
    ) -> Result<Tensor<D>, TrainError> {
        let (shape, device, dtype) = (value.dims(), value.device(), value.dtype());
        let update = self.optimizer.update_of(path, &shape, self.clip, self.rate, self.updates)?;
        let Optimizer { rule, states, .. } = &mut *self.optimizer;
        let state = states.entry(path.to_owned()).or_insert_with(|| State::zeros(rule.as_ref(), &shape, None));
        state.assert_fits(rule.as_ref(), path, &shape, &gradient)?;
        match (&mut state.arrays, gradient) {
            (Arrays::Host { arrays, live }, Gradient::Host(mut gradient)) if dtype == DType::F32 => {
                let mut values = parameters::host(value)?.values;
                *live = None;
                rule.on_host(update, &mut values, &mut gradient, arrays)?;
                Ok(Tensor::from_data(TensorData::new(values, shape), &device))
            }
            (Arrays::Host { arrays, live }, Gradient::HostRows { values: mut gradient, width, rows })
                if dtype == DType::F32 =>
            {
                let mut values = parameters::host(value)?.values;
                let with_gradient = RowsWithGradient { width, rows: &rows };
                rule.on_host_rows(update, &mut values, &mut gradient, with_gradient, arrays, live)?;
                Ok(Tensor::from_data(TensorData::new(values, shape), &device))
            }
            (Arrays::Host { .. }, Gradient::Host(_) | Gradient::HostRows { .. }) => {
                Err(TrainError::Internal(format!("`{path}` trains in {dtype:?}, but is updated in f32")))
            }
            (Arrays::Host { .. }, Gradient::Device(_)) | (Arrays::Device(_), _) => Err(not_together(path)),
        }
    }
}

fn not_together(path: &str) -> TrainError {
    TrainError::Internal(format!(
        "gradient and optimiser state of `{path}` are not both on the host or both on the device"
    ))
}

mod device_step;
#[cfg(feature = "flex")]
#[cfg(test)]
mod tests;
