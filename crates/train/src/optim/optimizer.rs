//! The optimiser over the whole model: owns the state, clips by the global norm, and applies a rule of `optim::rules`
//! to each parameter with the learning rate and decay of `param_groups`.
//!
//! State is keyed by the parameters' paths, so that a checkpoint can be checked tensor by tensor. On a CPU, updates
//! work in place; on other devices the same formulas run as tensor operations.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};
use dualenc_model::parameters::{self, ParamUpdate};
use dualenc_model::{DualEncoder, HostTensor, ModelError};

use crate::config::TrainSection;
use crate::error::TrainError;
use crate::optim::gradients::{Gradient, ParamGradients};
use crate::optim::param_groups::{LearningRate, ParamGroups};
use crate::optim::rules;
use crate::optim::rules::update_rule::{RowsWithGradient, Update, UpdateRule};
use crate::optim::state_tensor::StateTensor;

/// Added to the gradient norm before dividing by it, as in PyTorch's `clip_grad_norm_`.
const CLIP_EPSILON: f64 = 1e-6;

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
        /// Marks the rows of a table whose state is not 0. `None` until the table is updated row by row.
        live: Option<Vec<bool>>,
    },
    Device(Vec<Tensor<1>>),
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

    /// Updates the parameters of `model` that have a gradient.
    ///
    /// `grad_norm` is the global L2 norm of `gradients`; `updates` returns the number of earlier updates of a
    /// parameter, by path. Updates are in place only if nothing else shares the model's tensors.
    pub fn step(
        &mut self,
        model: DualEncoder,
        gradients: ParamGradients,
        grad_norm: f64,
        rate: LearningRate,
        updates: &dyn Fn(&str) -> u64,
    ) -> DualEncoder {
        let clip = if self.clip_norm > 0.0 { (self.clip_norm / (grad_norm + CLIP_EPSILON)).min(1.0) } else { 1.0 };
        parameters::update(model, &mut Step { optimizer: self, gradients: gradients.by_path, clip, rate, updates })
    }

    /// The state for a checkpoint, by path and array name, such as `logit_scale.first`. Host memory is not copied.
    ///
    /// # Errors
    /// [`ModelError::Device`] when the device cannot return its data.
    pub fn state(&self) -> Result<BTreeMap<String, StateTensor<'_>>, ModelError> {
        let mut tensors = BTreeMap::new();
        for (path, state) in &self.states {
            let arrays: Vec<Cow<'_, [f32]>> = match &state.arrays {
                Arrays::Host { arrays, .. } => arrays.iter().map(|array| Cow::from(array.as_slice())).collect(),
                Arrays::Device(tensors) => {
                    let read = |tensor: &Tensor<1>| parameters::host(tensor.clone()).map(|read| read.values.into());
                    tensors.iter().map(read).collect::<Result<_, _>>()?
                }
            };
            for (name, values) in state.names.iter().zip(arrays) {
                tensors.insert(format!("{path}.{name}"), StateTensor { shape: vec![values.len()], values });
            }
        }
        Ok(tensors)
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
        for info in parameters::list(model).into_iter().filter(|info| info.trains) {
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
        problems.extend(saved.into_keys().map(|key| format!("{key}: in the file, but its parameter does not train")));
        if !problems.is_empty() {
            return Err(ModelError::State { problems });
        }
        self.states = states;
        Ok(())
    }
}

/// A step, as a visitor of the model's parameters.
struct Step<'a> {
    optimizer: &'a mut Optimizer,
    gradients: BTreeMap<String, Gradient>,
    clip: f64,
    rate: LearningRate,
    updates: &'a dyn Fn(&str) -> u64,
}

impl ParamUpdate for Step<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        let Some(gradient) = self.gradients.remove(path) else { return value };
        let (shape, device) = (value.dims(), value.device());
        let options = self.optimizer.param_groups.options(path);
        let rate = options.rate(self.rate);
        let decay_factor = 1.0 - rate * options.weight_decay.unwrap_or_default();
        let count = ((self.updates)(path) + 1).min(i32::MAX as u64) as i32;
        let update = Update { shape: &shape, count, clip: self.clip, decay_factor, rate };
        let Optimizer { rule, states, on_host, .. } = &mut *self.optimizer;
        let state = states.entry(path.to_owned()).or_insert_with(|| {
            let zeros = rule.state(&shape).into_iter().map(|(name, count)| (name, vec![0.0; count]));
            State::new(zeros.collect(), (!*on_host).then_some(&device))
        });
        match (&mut state.arrays, gradient) {
            (Arrays::Host { arrays, live }, gradient) if value.dtype() == DType::F32 => {
                let mut values: Vec<f32> = value.into_data().try_into_vec().unwrap_or_default();
                match gradient {
                    Gradient::Host(mut gradient) => {
                        *live = None;
                        rule.on_host(update, &mut values, &mut gradient, arrays);
                    }
                    Gradient::HostRows { values: mut gradient, width, rows } => {
                        let with_gradient = RowsWithGradient { width, rows: &rows };
                        rule.on_host_rows(update, &mut values, &mut gradient, with_gradient, arrays, live);
                    }
                    Gradient::Device(_) => {}
                }
                Tensor::from_data(TensorData::new(values, shape), &device)
            }
            (Arrays::Device(tensors), Gradient::Device(gradient)) => {
                let count: usize = shape.iter().product();
                rule.on_device(update, value.reshape([count]), *gradient, tensors).reshape(shape)
            }
            // Unreachable: state and gradient are both on the host or both on the device.
            _ => value,
        }
    }
}
