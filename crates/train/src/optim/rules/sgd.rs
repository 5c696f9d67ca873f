//! Stochastic gradient descent with momentum: PyTorch's `torch.optim.SGD`, where momentum is a decaying sum of
//! gradients rather than a mean, but with decoupled weight decay.

use burn::tensor::Tensor;
use dualenc_kernels::CHUNK;
use rayon::prelude::*;

use crate::error::TrainError;
use crate::optim::rules::update_rule::{Update, UpdateRule, arrays};

/// SGD with momentum.
#[derive(Debug)]
pub(crate) struct Sgd {
    /// Factor of the previous momentum, from 0 to 1.
    pub momentum: f64,
}

impl UpdateRule for Sgd {
    fn state(&self, shape: &[usize]) -> Vec<(&'static str, usize)> {
        vec![("first", shape.iter().product())]
    }

    fn on_host(
        &self,
        update: Update<'_>,
        values: &mut [f32],
        gradient: &mut [f32],
        state: &mut [Vec<f32>],
    ) -> Result<(), TrainError> {
        let [first] = arrays(state)?;
        let [clip, decay_factor, rate, momentum] =
            [update.clip, update.decay_factor, update.rate, self.momentum].map(|number| number as f32);
        let chunks = values.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).zip(first.par_chunks_mut(CHUNK));
        chunks.for_each(|((values, gradient), first)| {
            for ((value, gradient), first) in values.iter_mut().zip(gradient).zip(first) {
                *first = momentum * *first + gradient * clip;
                *value = *value * decay_factor - rate * *first;
            }
        });
        Ok(())
    }

    fn on_device(
        &self,
        update: Update<'_>,
        value: Tensor<1>,
        gradient: Tensor<1>,
        state: &mut [Tensor<1>],
    ) -> Result<Tensor<1>, TrainError> {
        let [first] = arrays(state)?;
        *first = first.clone() * self.momentum + gradient * update.clip;
        Ok(value * update.decay_factor - first.clone() * update.rate)
    }
}
