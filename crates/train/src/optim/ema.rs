//! Exponential moving average (EMA) of the weights (Polyak and Juditsky, 1992). The decay warms up as in TensorFlow's
//! `ExponentialMovingAverage` with `num_updates`: at the n-th update it is min(decay, (1 + n) / (10 + n)).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, Tensor, TensorData};
use dualenc_kernels::CHUNK;
use dualenc_model::parameters::{self, ParamUpdate};
use dualenc_model::{DualEncoder, HostTensor, ModelError};
use rayon::prelude::*;

use crate::optim::state_tensor::StateTensor;

/// Averages by parameter path. Each starts at the value of its parameter before the parameter's first update.
#[derive(Debug)]
pub(crate) struct Ema {
    decay: f64,
    on_host: bool,
    averages: BTreeMap<String, Average>,
    /// Paths of the parameters that the current stage trains.
    live: BTreeSet<String>,
}

#[derive(Debug)]
struct Average {
    shape: Vec<usize>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Host(Vec<f32>),
    Device(Box<Tensor<1>>),
}

impl Ema {
    /// Creates an empty average. `on_host`: as in [`Optimizer::new`](crate::Optimizer::new).
    pub fn new(decay: f64, on_host: bool) -> Self {
        Self { decay, on_host, averages: BTreeMap::new(), live: BTreeSet::new() }
    }

    /// Replaces all averages by saved ones. `model`: for its device.
    pub fn restore(&mut self, saved: BTreeMap<String, HostTensor>, model: &DualEncoder) {
        let device = model.device();
        let values = |values: Vec<f32>| {
            if self.on_host {
                return Values::Host(values);
            }
            let count = values.len();
            Values::Device(Box::new(Tensor::from_data(TensorData::new(values, [count]), &device)))
        };
        let average = |tensor: HostTensor| Average { shape: tensor.shape, values: values(tensor.values) };
        self.averages = saved.into_iter().map(|(path, tensor)| (path, average(tensor))).collect();
    }

    /// Starts a stage: averages the trainable parameters of `model` from now on. Averages of other parameters stay as
    /// they are.
    ///
    /// # Errors
    /// [`ModelError::Device`] when the device cannot return its data.
    pub fn begin(&mut self, model: &DualEncoder) -> Result<(), ModelError> {
        let training: Vec<_> = parameters::list(model).into_iter().filter(|info| info.trains).collect();
        self.live = training.into_iter().map(|info| info.path).collect();
        if self.live.iter().all(|path| self.averages.contains_key(path)) {
            return Ok(());
        }
        let mut fresh = Ema::new(self.decay, self.on_host);
        fresh.restore(parameters::collect(model, parameters::ParamFilter::Trainable)?, model);
        for (path, average) in fresh.averages {
            self.averages.entry(path).or_insert(average);
        }
        Ok(())
    }

    /// Averages in the `value` that the `count`-th update of the parameter at `path` produced, and returns it.
    pub fn take<const D: usize>(&mut self, path: &str, value: Tensor<D>, count: u64) -> Tensor<D> {
        let Some(average) = self.averages.get_mut(path).filter(|_| self.live.contains(path)) else { return value };
        let count = count as f64;
        let share = 1.0 - self.decay.min((1.0 + count) / (10.0 + count));
        let (shape, device) = (value.shape(), value.device());
        match &mut average.values {
            // Nothing else owns the value, so its memory is read without a copy.
            Values::Host(sums) if value.dtype() == DType::F32 => {
                let values: Vec<f32> = value.into_data().try_into_vec().unwrap_or_default();
                let share = share as f32;
                let chunks = sums.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
                chunks.for_each(|(sums, values)| {
                    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += share * (value - *sum));
                });
                Tensor::from_data(TensorData::new(values, shape), &device)
            }
            Values::Host(_) => value,
            Values::Device(sums) => {
                let flat = value.clone().reshape([shape.num_elements()]);
                **sums = sums.as_ref().clone() + (flat - sums.as_ref().clone()) * share;
                value
            }
        }
    }

    /// The averages by path, for a checkpoint. Host memory is not copied.
    ///
    /// # Errors
    /// [`ModelError::Device`] when the device cannot return its data.
    pub fn state(&self) -> Result<BTreeMap<String, StateTensor<'_>>, ModelError> {
        let mut state = BTreeMap::new();
        for (path, average) in &self.averages {
            let values: Cow<'_, [f32]> = match &average.values {
                Values::Host(values) => Cow::Borrowed(values),
                Values::Device(values) => parameters::host(values.as_ref().clone())?.values.into(),
            };
            state.insert(path.clone(), StateTensor { shape: average.shape.clone(), values });
        }
        Ok(state)
    }

    /// Replaces the parameters of `model` by their averages.
    pub fn averaged(&self, model: DualEncoder) -> DualEncoder {
        parameters::update(model, &mut UseAverages { averages: &self.averages })
    }
}

struct UseAverages<'a> {
    averages: &'a BTreeMap<String, Average>,
}

impl ParamUpdate for UseAverages<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        match self.averages.get(path).map(|average| &average.values) {
            None => value,
            Some(Values::Host(values)) => {
                Tensor::from_data(TensorData::new(values.clone(), value.shape()), &value.device())
            }
            Some(Values::Device(values)) => values.as_ref().clone().reshape(value.shape()),
        }
    }
}
