//! Lion (Chen et al., arXiv:2302.06675, alg. 2): steps along the sign of the momentum, so that every value moves by the
//! learning rate.

use burn::tensor::Tensor;
use dualenc_kernels::CHUNK;
use rayon::prelude::*;

use crate::error::TrainError;
use crate::optim::rules::live_rows::{mark, update_rows};
use crate::optim::rules::update_rule::{RowsWithGradient, Update, UpdateRule, arrays};

/// Lion.
#[derive(Debug)]
pub(crate) struct Lion {
    /// Weights of the old momentum: in the direction of this step, and in the new momentum.
    pub betas: [f64; 2],
}

impl UpdateRule for Lion {
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
        let ([beta1, beta2], gradient) = (self.betas, gradient * update.clip);
        let direction = (first.clone() * beta1 + gradient.clone() * (1.0 - beta1)).sign();
        *first = first.clone() * beta2 + gradient * (1.0 - beta2);
        Ok(value * update.decay_factor - direction * update.rate)
    }
}

impl Lion {
    fn update(&self, update: Update<'_>, values: &mut [f32], gradient: &[f32], first: &mut [f32]) {
        let [beta1, beta2] = self.betas.map(|beta| beta as f32);
        let [rest1, rest2] = self.betas.map(|beta| (1.0 - beta) as f32);
        let [clip, decay_factor, rate] = [update.clip, update.decay_factor, update.rate].map(|number| number as f32);
        for ((value, gradient), first) in values.iter_mut().zip(gradient).zip(first) {
            let gradient = gradient * clip;
            *value = *value * decay_factor - rate * sign(beta1 * *first + rest1 * gradient);
            *first = beta2 * *first + rest2 * gradient;
        }
    }
}

/// -1, 0 or 1. Unlike `f32::signum`, 0 for 0.
fn sign(value: f32) -> f32 {
    f32::from(i8::from(value > 0.0) - i8::from(value < 0.0))
}
