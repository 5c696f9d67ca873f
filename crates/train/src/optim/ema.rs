//! Exponential moving averages of the parameters that train (Polyak and Juditsky, 1992; as TensorFlow's
//! `ExponentialMovingAverage` with `num_updates`, and timm's `ModelEmaV3` with warm-up).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, Tensor, TensorData};
use dualenc_model::parameters::{self, ParamUpdate};
use dualenc_model::{DualEncoder, HostTensor, ModelError};
use rayon::prelude::*;

use crate::run_dir::checkpoint::Saved;

/// Values that one thread averages at a time.
const CHUNK: usize = 1 << 14;

/// The averages by the paths of their parameters. One begins with the value that its parameter had before its first update.
#[derive(Debug)]
pub(crate) struct Ema {
    decay: f64,
    on_host: bool,
    averages: BTreeMap<String, Average>,
    /// Those whose parameters train now.
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
    /// Of nothing yet; `on_host` as [`AdamW::new`](crate::AdamW::new).
    pub fn new(decay: f64, on_host: bool) -> Self {
        Self { decay, on_host, averages: BTreeMap::new(), live: BTreeSet::new() }
    }

    /// Puts saved averages back.
    pub fn restore(&mut self, saved: BTreeMap<String, HostTensor>, model: &DualEncoder) {
        let device = model.device();
        let values = |values: Vec<f32>| match self.on_host {
            true => Values::Host(values),
            false => {
                let count = values.len();
                Values::Device(Box::new(Tensor::from_data(TensorData::new(values, [count]), &device)))
            }
        };
        let average = |tensor: HostTensor| Average { shape: tensor.shape, values: values(tensor.values) };
        self.averages = saved.into_iter().map(|(path, tensor)| (path, average(tensor))).collect();
    }

    /// From here on the parameters of `model` that train are averaged, each from its own first update; the others' averages
    /// stay as they are.
    ///
    /// # Errors
    /// When the device cannot hand its data over.
    pub fn begin(&mut self, model: &DualEncoder) -> Result<(), ModelError> {
        let training: Vec<_> = parameters::list(model).into_iter().filter(|info| info.trains).collect();
        self.live = training.into_iter().map(|info| info.path).collect();
        if self.live.iter().all(|path| self.averages.contains_key(path)) {
            return Ok(());
        }
        let mut fresh = Ema::new(self.decay, self.on_host);
        fresh.restore(parameters::collect(model, parameters::Which::Trainable)?, model);
        for (path, average) in fresh.averages {
            self.averages.entry(path).or_insert(average);
        }
        Ok(())
    }

    /// Takes in the value that an update, the `count`th of its parameter, left at `path`, and hands it back.
    pub fn take<const D: usize>(&mut self, path: &str, value: Tensor<D>, count: u64) -> Tensor<D> {
        let Some(average) = self.averages.get_mut(path).filter(|_| self.live.contains(path)) else { return value };
        let count = count as f64;
        let share = 1.0 - self.decay.min((1.0 + count) / (10.0 + count));
        let (shape, device) = (value.shape(), value.device());
        match &mut average.values {
            // The value's only owner: its memory is read where it lies.
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

    /// The averages by path, from where they lie.
    ///
    /// # Errors
    /// When the device cannot hand its data over.
    pub fn state(&self) -> Result<BTreeMap<String, Saved<'_>>, ModelError> {
        let mut state = BTreeMap::new();
        for (path, average) in &self.averages {
            let values: Cow<'_, [f32]> = match &average.values {
                Values::Host(values) => Cow::Borrowed(values),
                Values::Device(values) => parameters::host(values.as_ref().clone())?.values.into(),
            };
            state.insert(path.clone(), Saved { shape: average.shape.clone(), values });
        }
        Ok(state)
    }

    /// `model` with the averages in the place of their parameters.
    pub fn averaged(&self, model: DualEncoder) -> DualEncoder {
        parameters::update(model, &mut Averaged(self))
    }
}

struct Averaged<'a>(&'a Ema);

impl ParamUpdate for Averaged<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        match self.0.averages.get(path).map(|average| &average.values) {
            None => value,
            Some(Values::Host(values)) => {
                Tensor::from_data(TensorData::new(values.clone(), value.shape()), &value.device())
            }
            Some(Values::Device(values)) => values.as_ref().clone().reshape(value.shape()),
        }
    }
}
