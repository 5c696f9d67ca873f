//! The optimiser over the model: whose state lies where, and the global-norm clip. What an update does to a parameter is its
//! rule's (`update_rule.rs`); how fast and with how much decay, the table's of `param_rules.rs`.
//!
//! State is kept by the parameter's path, so that a checkpoint can be compared and refused tensor by tensor. On a CPU
//! an update works in place; elsewhere the same formula runs as tensor operations.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};
use dualenc_model::parameters::{self, ParamUpdate};
use dualenc_model::{DualEncoder, HostTensor, ModelError};

use crate::config::{OptimizerKind, TrainSection, default};
use crate::error::TrainError;
use crate::optim::adafactor::Adafactor;
use crate::optim::adamw::AdamW;
use crate::optim::gradients::{Gradient, ParamGradients};
use crate::optim::lion::Lion;
use crate::optim::param_groups::{LearningRate, ParamRules};
use crate::optim::rule::{RowsWithGradient, Update, UpdateRule};
use crate::optim::sgd::Sgd;
use crate::run_dir::checkpoint::Saved;

/// PyTorch's `clip_grad_norm_` adds this to the norm it divides by.
const CLIP_EPSILON: f64 = 1e-6;

/// What the rule keeps of one parameter.
#[derive(Debug)]
struct State {
    /// Of its arrays, in their order.
    names: Vec<&'static str>,
    arrays: Arrays,
}

#[derive(Debug)]
enum Arrays {
    Host {
        arrays: Vec<Vec<f32>>,
        /// Rows of a table that are not as they began, once it was updated by rows.
        live: Option<Vec<bool>>,
    },
    Device(Vec<Tensor<1>>),
}

impl State {
    /// `device`: where tensors go; `None`: to host memory.
    fn new(arrays: Vec<(&'static str, Vec<f32>)>, device: Option<&Device>) -> Self {
        let (names, arrays): (Vec<_>, Vec<_>) = arrays.into_iter().unzip();
        let tensor = |device| {
            move |values: Vec<f32>| {
                let count = values.len();
                Tensor::from_data(TensorData::new(values, [count]), device)
            }
        };
        let arrays = match device {
            None => Arrays::Host { arrays, live: None },
            Some(device) => Arrays::Device(arrays.into_iter().map(tensor(device)).collect()),
        };
        Self { names, arrays }
    }
}

/// An optimiser over a [`DualEncoder`].
#[derive(Debug)]
pub struct Optimizer {
    rule: Box<dyn UpdateRule>,
    params: ParamRules,
    clip_norm: f64,
    on_host: bool,
    states: BTreeMap<String, State>,
}

impl Optimizer {
    /// Fresh, for all of `model` that ever trains.
    ///
    /// # Errors
    /// When a `[[train.group]]` is of none of its parameters.
    pub fn new(config: &TrainSection, model: &DualEncoder, on_host: bool) -> Result<Self, TrainError> {
        Ok(Self {
            rule: rule_of(config),
            params: ParamRules::resolve(config, model)?,
            clip_norm: config.clip_grad_norm,
            on_host,
            states: BTreeMap::new(),
        })
    }

    /// The rates and decays of the parameters.
    pub(crate) fn params(&self) -> &ParamRules {
        &self.params
    }

    /// One update. `updates` tells how many a parameter had before; `grad_norm` is that of `gradients`.
    pub fn step(
        &mut self,
        model: DualEncoder,
        gradients: ParamGradients,
        grad_norm: f64,
        rate: LearningRate,
        updates: &dyn Fn(&str) -> u64,
    ) -> DualEncoder {
        let clip = match self.clip_norm {
            limit if limit > 0.0 => (limit / (grad_norm + CLIP_EPSILON)).min(1.0),
            _ => 1.0,
        };
        parameters::update(model, &mut Step { optimizer: self, gradients: gradients.by_path, clip, rate, updates })
    }

    /// The state, by path and name such as `logit_scale.first`, from where it lies.
    ///
    /// # Errors
    /// When the device cannot hand its data over.
    pub fn state(&self) -> Result<BTreeMap<String, Saved<'_>>, ModelError> {
        let mut saved = BTreeMap::new();
        for (path, state) in &self.states {
            let arrays: Vec<Cow<'_, [f32]>> = match &state.arrays {
                Arrays::Host { arrays, .. } => arrays.iter().map(|array| Cow::from(array.as_slice())).collect(),
                Arrays::Device(tensors) => {
                    let read = |tensor: &Tensor<1>| parameters::host(tensor.clone()).map(|read| read.values.into());
                    tensors.iter().map(read).collect::<Result<_, _>>()?
                }
            };
            for (name, values) in state.names.iter().zip(arrays) {
                saved.insert(format!("{path}.{name}"), Saved { shape: vec![values.len()], values });
            }
        }
        Ok(saved)
    }

    /// Puts a saved state back. Every parameter of `model` that trains must be in it, and nothing else.
    ///
    /// # Errors
    /// [`ModelError::State`] with a line for each tensor that is missing, left over or of another size.
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

/// One step on its way through the model.
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
        let param = self.optimizer.params.of(path);
        let rate = param.rate(self.rate);
        let keep = 1.0 - rate * param.decay.unwrap_or_default();
        let count = ((self.updates)(path) + 1).min(i32::MAX as u64) as i32;
        let update = Update { shape: &shape, count, clip: self.clip, keep, rate };
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
                    Gradient::HostRows { values: mut gradient, width, read } => {
                        let rows = RowsWithGradient { width, read: &read };
                        rule.on_host_rows(update, &mut values, &mut gradient, rows, arrays, live);
                    }
                    Gradient::Device(_) => {}
                }
                Tensor::from_data(TensorData::new(values, shape), &device)
            }
            (Arrays::Device(tensors), Gradient::Device(gradient)) => {
                let count: usize = shape.iter().product();
                rule.on_device(update, value.reshape([count]), *gradient, tensors).reshape(shape)
            }
            // Both follow from the one device of the run.
            _ => value,
        }
    }
}
