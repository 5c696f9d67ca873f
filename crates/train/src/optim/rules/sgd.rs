//! Stochastic gradient descent with momentum: PyTorch's `torch.optim.SGD`, where momentum is a decaying sum of
//! gradients rather than a mean, but with decoupled weight decay.

use burn::tensor::Tensor;
use dualenc_kernels::CHUNK;
use rayon::prelude::*;

use crate::error::TrainError;
use crate::optim::rules::live_rows::{mark, update_rows};
use crate::optim::rules::update_rule::{RowsWithGradient, Update, UpdateRule, arrays};

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
        let chunks = values.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).zip(first.par_chunks_mut(CHUNK));
        chunks.for_each(|((values, gradient), first)| self.update(update, values, gradient, first));
        Ok(())
    }

    /// `live` marks rows with momentum; the others are only decayed.
    fn on_host_rows(
        &self,
        update: Update<'_>,
        values: &mut [f32],
        gradient: &mut [f32],
        with_gradient: RowsWithGradient<'_>,
        state: &mut [Vec<f32>],
        live: &mut Option<Vec<bool>>,
    ) -> Result<(), TrainError> {
        let [first] = arrays(state)?;
        let live = mark(live, [first], &with_gradient);
        let decay_factor = update.decay_factor as f32;
        update_rows(live, decay_factor, (values, gradient), [first], |values, gradient, [first]| {
            self.update(update, values, gradient, first);
        });
        if self.momentum == 0.0 {
            // The gradient of one update is gone with the next: only the rows of this one are other than 0 now.
            live.fill(false);
            with_gradient.rows.iter().for_each(|&row| live[row] = true);
        }
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

impl Sgd {
    fn update(&self, update: Update<'_>, values: &mut [f32], gradient: &[f32], first: &mut [f32]) {
        let [clip, decay_factor, rate, momentum] =
            [update.clip, update.decay_factor, update.rate, self.momentum].map(|number| number as f32);
        for ((value, gradient), first) in values.iter_mut().zip(gradient).zip(first) {
            *first = momentum * *first + gradient * clip;
            *value = *value * decay_factor - rate * *first;
        }
    }
}
