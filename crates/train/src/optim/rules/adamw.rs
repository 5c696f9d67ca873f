//! AdamW (Loshchilov and Hutter, arXiv:1711.05101, alg. 2).

use burn::tensor::Tensor;
use dualenc_kernels::{AdamWStep, CHUNK, DeviceParameter, adamw_on_host, adamw_steps};
use rayon::prelude::*;

use crate::error::TrainError;
use crate::optim::rules::live_rows::{mark, update_rows};
use crate::optim::rules::update_rule::{OnDevice, RowsWithGradient, Update, UpdateRule, arrays};

/// AdamW.
#[derive(Debug)]
pub(crate) struct AdamW {
    /// Weights of the old first and second moment.
    pub betas: [f64; 2],
    /// Added to the square root of the second moment.
    pub epsilon: f64,
}

impl AdamW {
    fn formula(&self, update: Update<'_>) -> Formula {
        let [first_correction, second_correction] = self.betas.map(|beta| 1.0 - beta.powi(update.count));
        Formula {
            betas: self.betas,
            epsilon: self.epsilon,
            clip: update.clip,
            decay_factor: update.decay_factor,
            rate: update.rate / first_correction,
            second_root: second_correction.sqrt(),
        }
    }
}

impl UpdateRule for AdamW {
    fn state(&self, shape: &[usize]) -> Vec<(&'static str, usize)> {
        let count = shape.iter().product();
        vec![("first", count), ("second", count)]
    }

    fn on_host(
        &self,
        update: Update<'_>,
        values: &mut [f32],
        gradient: &mut [f32],
        state: &mut [Vec<f32>],
    ) -> Result<(), TrainError> {
        let [first, second] = arrays(state)?;
        self.formula(update).on_host(values, gradient, first, second);
        Ok(())
    }

    /// `live` marks rows with moments that are not 0; the others are only decayed.
    fn on_host_rows(
        &self,
        update: Update<'_>,
        values: &mut [f32],
        gradient: &mut [f32],
        with_gradient: RowsWithGradient<'_>,
        state: &mut [Vec<f32>],
        live: &mut Option<Vec<bool>>,
    ) -> Result<(), TrainError> {
        let [first, second] = arrays(state)?;
        let live = mark(live, [first, second], &with_gradient);
        self.formula(update).on_host_rows(values, gradient, [first, second], live);
        Ok(())
    }

    fn on_device(
        &self,
        update: Update<'_>,
        value: Tensor<1>,
        gradient: Tensor<1>,
        state: &mut [Tensor<1>],
    ) -> Result<Tensor<1>, TrainError> {
        let [first, second] = arrays(state)?;
        Ok(self.formula(update).on_device(value, gradient, first, second))
    }

    /// One kernel takes several parameters with equal constants.
    fn all_on_device(
        &self,
        mut parameters: Vec<OnDevice<'_>>,
        control: &Tensor<1>,
    ) -> Result<Vec<Tensor<1>>, TrainError> {
        let steps: Vec<AdamWStep> = parameters.iter().map(|it| self.formula(it.update).step()).collect();
        let Some(step) = steps.first().copied().filter(|first| steps.iter().all(|step| step == first)) else {
            return self.each_on_device(parameters, control);
        };
        let inputs = parameters.iter_mut().map(|OnDevice { value, gradient, state, .. }| {
            let [first, second] = arrays(state)?;
            let moments = [first.clone(), second.clone()];
            Ok(DeviceParameter { value: value.clone(), gradient: gradient.clone(), moments })
        });
        // Its inputs are dropped at once: a parameter that is updated by itself frees what it was updated from.
        let updated = adamw_steps(&inputs.collect::<Result<Vec<_>, TrainError>>()?, control, step);
        let Some(updated) = updated else { return self.each_on_device(parameters, control) };
        let mut values = Vec::with_capacity(parameters.len());
        for (OnDevice { state, .. }, new) in parameters.into_iter().zip(updated) {
            let [first, second] = arrays(state)?;
            [*first, *second] = new.moments;
            values.push(new.value);
        }
        Ok(values)
    }
}

/// The constants of one update of one parameter, bias corrections included.
struct Formula {
    betas: [f64; 2],
    epsilon: f64,
    clip: f64,
    decay_factor: f64,
    /// Learning rate over the first moment's bias correction.
    rate: f64,
    /// Square root of the second moment's bias correction.
    second_root: f64,
}

impl Formula {
    fn step(&self) -> AdamWStep {
        let Self { betas, epsilon, clip: _, decay_factor, rate, second_root } = *self;
        AdamWStep { betas, epsilon, decay_factor, rate, second_root }
    }

    /// One fused pass over the four arrays.
    fn on_host(&self, values: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let step = self.step();
        let chunks = values.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
        let moments = first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
        chunks.zip(moments).for_each(|((values, gradient), (first, second))| {
            adamw_on_host(values, gradient, [first, second], step, self.clip);
        });
    }

    /// The same for a table in which only `live` rows have moments or gradients other than 0. The formula only decays
    /// the others, so their gradients and moments are not read.
    fn on_host_rows(&self, values: &mut [f32], gradient: &[f32], moments: [&mut [f32]; 2], live: &[bool]) {
        update_rows(
            live,
            self.decay_factor as f32,
            (values, gradient),
            moments,
            |values, gradient, [first, second]| {
                self.on_host(values, gradient, first, second);
            },
        );
    }

    fn on_device(
        &self,
        value: Tensor<1>,
        gradient: Tensor<1>,
        first: &mut Tensor<1>,
        second: &mut Tensor<1>,
    ) -> Tensor<1> {
        let [beta1, beta2] = self.betas;
        let gradient = gradient * self.clip;
        *first = first.clone() * beta1 + gradient.clone() * (1.0 - beta1);
        *second = second.clone() * beta2 + gradient.square() * (1.0 - beta2);
        value * self.decay_factor
            - first.clone() * self.rate / (second.clone().sqrt() / self.second_root + self.epsilon)
    }
}

#[cfg(test)]
mod tests {
    use dualenc_model::parameters;

    use super::*;
    use crate::optim::rules::live_rows::rows_with_state;

    fn formula() -> Formula {
        Formula {
            betas: [0.9, 0.99],
            epsilon: 1e-8,
            clip: 0.5,
            decay_factor: 0.999,
            rate: 1.0,
            second_root: 0.01f64.sqrt(),
        }
    }

    #[test]
    fn first_step_follows_gradient_sign() {
        // Both bias corrections cancel, so a value moves by the learning rate against the sign of its gradient.
        let (mut values, mut first, mut second) = (vec![2.0, -1.0], vec![0.0; 2], vec![0.0; 2]);
        Formula { rate: 0.1 / (1.0 - 0.9), second_root: (1.0f64 - 0.99).sqrt(), ..formula() }.on_host(
            &mut values,
            &[0.4, -3.0],
            &mut first,
            &mut second,
        );
        assert!((values[0] - (2.0 * 0.999 - 0.1)).abs() < 1e-5, "{values:?}");
        assert!((values[1] - (-0.999 + 0.1)).abs() < 1e-5, "{values:?}");
        assert!((first[0] - 0.02).abs() < 1e-7 && (second[0] - 0.0004).abs() < 1e-8);
    }

    #[test]
    fn skipped_rows_match_full_update() {
        let (width, rows) = (3, 5);
        let value = |n: usize| (n as f32 * 0.7).sin();
        let (mut by_rows, mut whole): (Vec<f32>, Vec<f32>) = (0..width * rows).map(|n| (value(n), value(n))).unzip();
        let mut moments =
            [const { [const { Vec::new() }; 2] }; 2].map(|pair| pair.map(|_: Vec<f32>| vec![0.0; width * rows]));
        let [[first, second], [whole_first, whole_second]] = &mut moments;
        let mut live = rows_with_state([first, second], width);
        for updated in [vec![1], vec![3, 4], vec![1]] {
            let mut gradient = vec![0.0; width * rows];
            for row in updated {
                live[row] = true;
                (0..width).for_each(|n| gradient[row * width + n] = 0.1 + value(n + 7));
            }
            formula().on_host_rows(&mut by_rows, &gradient, [first, second], &live);
            formula().on_host(&mut whole, &gradient, whole_first, whole_second);
        }
        assert_eq!(by_rows, whole);
        assert_eq!((&*first, &*second), (&*whole_first, &*whole_second));
        assert_eq!(rows_with_state([first, second], width), [false, true, false, true, true]);
    }

    #[cfg(feature = "flex")]
    #[test]
    fn host_and_device_agree() {
        let device = burn::tensor::Device::flex();
        let tensor = |values: [f32; 3]| Tensor::<1>::from_data(values, &device);
        let (values, gradient) = ([0.5f32, -2.0, 3.0], [1.0f32, -0.2, 1e-3]);
        let (mut on_host, mut first, mut second) = (values.to_vec(), vec![0.1, 0.2, -0.3], vec![0.01, 0.02, 0.03]);
        let (mut first_tensor, mut second_tensor) = (tensor([0.1, 0.2, -0.3]), tensor([0.01, 0.02, 0.03]));
        let on_device = formula().on_device(tensor(values), tensor(gradient), &mut first_tensor, &mut second_tensor);
        formula().on_host(&mut on_host, &gradient, &mut first, &mut second);
        let close = |tensor: Tensor<1>, expected: &[f32]| {
            let found = parameters::host(tensor).unwrap().values;
            assert!(
                found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs().max(1.0)),
                "{found:?} {expected:?}"
            );
        };
        close(on_device, &on_host);
        close(first_tensor, &first);
        close(second_tensor, &second);
    }
}
