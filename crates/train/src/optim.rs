//! AdamW (Loshchilov and Hutter, arXiv:1711.05101) with the rules of who is decayed, and the global-norm clip.
//!
//! State is kept by the parameter's path, so that a checkpoint can be compared and refused tensor by tensor. On a CPU
//! the update is one fused pass in place; elsewhere the same formula runs as tensor operations.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::{DType, Tensor, TensorData};
use dualenc_model::parameters::{self, ParamUpdate};
use dualenc_model::{DualEncoder, HostTensor, ModelError};

use crate::adamw_rule::{Rule, live_rows};
use crate::checkpoint::Saved;
use crate::config::TrainSection;
use crate::gradients::{Gradient, ParamGradients};

/// PyTorch's `clip_grad_norm_` adds this to the norm it divides by.
const CLIP_EPSILON: f64 = 1e-6;

/// Suffixes of paths of matrices that are not decayed: position and special-token embeddings, tables of relative positions.
const NOT_DECAYED: [&str; 6] = ["positions", "class_token", "distillation_token", "registers", "probe", "table"];

/// The moments of one parameter, as long as it is.
#[derive(Debug, Clone)]
enum Moments {
    Host {
        first: Vec<f32>,
        second: Vec<f32>,
        /// Which rows of a table have moments that are not 0, once it was updated by rows. The others are only decayed.
        live: Option<Vec<bool>>,
    },
    Device(Box<[Tensor<1>; 2]>),
}

/// AdamW over a [`DualEncoder`].
#[derive(Debug)]
pub struct AdamW {
    betas: [f64; 2],
    epsilon: f64,
    weight_decay: f64,
    clip_norm: f64,
    /// The projections' learning rate, as a multiple of the others'.
    projection_rate: f64,
    on_host: bool,
    moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// Fresh, for the parameters that will come by.
    pub fn new(config: &TrainSection, on_host: bool) -> Self {
        Self {
            betas: config.betas,
            epsilon: config.eps,
            weight_decay: config.weight_decay,
            clip_norm: config.clip_grad_norm,
            projection_rate: config.projection_learning_rate.map_or(1.0, |rate| rate / config.learning_rate),
            on_host,
            moments: BTreeMap::new(),
        }
    }

    /// One update. `updates` tells how many a parameter had before; `grad_norm` is that of `gradients`.
    pub fn step(
        &mut self,
        model: DualEncoder,
        gradients: ParamGradients,
        grad_norm: f64,
        learning_rate: f64,
        updates: &dyn Fn(&str) -> u64,
    ) -> DualEncoder {
        let clip = match self.clip_norm {
            limit if limit > 0.0 => (limit / (grad_norm + CLIP_EPSILON)).min(1.0),
            _ => 1.0,
        };
        parameters::update(
            model,
            &mut Update { adamw: self, gradients: gradients.by_path, clip, learning_rate, updates },
        )
    }

    /// The state, by `path.first` and `path.second`, from where it lies.
    ///
    /// # Errors
    /// When the device cannot hand its data over.
    pub fn state(&self) -> Result<BTreeMap<String, Saved<'_>>, ModelError> {
        let mut state = BTreeMap::new();
        for (path, moments) in &self.moments {
            let (first, second) = match moments {
                Moments::Host { first, second, .. } => (Cow::from(first), Cow::from(second)),
                Moments::Device(moments) => {
                    let [first, second] = moments.as_ref().clone();
                    (parameters::host(first)?.values.into(), parameters::host(second)?.values.into())
                }
            };
            for (name, values) in [("first", first), ("second", second)] {
                state.insert(format!("{path}.{name}"), Saved { shape: vec![values.len()], values });
            }
        }
        Ok(state)
    }

    /// Puts a saved state back. Every parameter of `model` that trains must be in it, and nothing else.
    ///
    /// # Errors
    /// [`ModelError::State`] with a line for each tensor that is missing, left over or of another size.
    pub fn restore(&mut self, model: &DualEncoder, mut state: BTreeMap<String, HostTensor>) -> Result<(), ModelError> {
        let mut problems = Vec::new();
        let mut moments = BTreeMap::new();
        for info in parameters::list(model).into_iter().filter(|info| info.trains) {
            let count: usize = info.shape.iter().product();
            let mut take = |name: &str| {
                let key = format!("{}.{name}", info.path);
                match state.remove(&key) {
                    Some(tensor) if tensor.values.len() == count => Some(tensor.values),
                    Some(tensor) => {
                        problems.push(format!("{key}: expected {count} values, found {}", tensor.values.len()));
                        None
                    }
                    None => {
                        problems.push(format!("{key}: not in the file"));
                        None
                    }
                }
            };
            if let (Some(first), Some(second)) = (take("first"), take("second")) {
                moments.insert(info.path, self.moments_of(first, second, model));
            }
        }
        problems.extend(state.into_keys().map(|key| format!("{key}: in the file, but its parameter does not train")));
        if !problems.is_empty() {
            return Err(ModelError::State { problems });
        }
        self.moments = moments;
        Ok(())
    }

    fn moments_of(&self, first: Vec<f32>, second: Vec<f32>, model: &DualEncoder) -> Moments {
        if self.on_host {
            return Moments::Host { first, second, live: None };
        }
        let device = model.device();
        let tensor = |values: Vec<f32>| {
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), &device)
        };
        Moments::Device(Box::new([tensor(first), tensor(second)]))
    }
}

/// Whether weight decay pulls at a parameter: matrices, but no position and no special-token embeddings.
pub fn is_decayed(path: &str, shape: &[usize]) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    shape.len() > 1 && !NOT_DECAYED.contains(&name)
}

/// One step of AdamW on its way through the model.
struct Update<'a> {
    adamw: &'a mut AdamW,
    gradients: BTreeMap<String, Gradient>,
    clip: f64,
    learning_rate: f64,
    updates: &'a dyn Fn(&str) -> u64,
}

impl ParamUpdate for Update<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        let Some(gradient) = self.gradients.remove(path) else { return value };
        let (shape, device) = (value.dims(), value.device());
        let learning_rate = match path.ends_with("_projection.weight") {
            true => self.learning_rate * self.adamw.projection_rate,
            false => self.learning_rate,
        };
        let keep = match is_decayed(path, &shape) {
            true => 1.0 - learning_rate * self.adamw.weight_decay,
            false => 1.0,
        };
        let count = ((self.updates)(path) + 1).min(i32::MAX as u64) as i32;
        let [first_correction, second_correction] = self.adamw.betas.map(|beta| 1.0 - beta.powi(count));
        let rule = Rule {
            betas: self.adamw.betas,
            epsilon: self.adamw.epsilon,
            clip: self.clip,
            keep,
            rate: learning_rate / first_correction,
            second_root: second_correction.sqrt(),
        };
        let count = shape.iter().product();
        let moments = self.adamw.moments.entry(path.to_owned()).or_insert_with(|| match self.adamw.on_host {
            true => Moments::Host { first: vec![0.0; count], second: vec![0.0; count], live: None },
            false => Moments::Device(Box::new([Tensor::zeros([count], &device), Tensor::zeros([count], &device)])),
        });
        match (moments, gradient) {
            (Moments::Host { first, second, live }, gradient) if value.dtype() == DType::F32 => {
                let mut values: Vec<f32> = value.into_data().try_into_vec().unwrap_or_default();
                match gradient {
                    Gradient::Host(gradient) => {
                        *live = None;
                        rule.on_host(&mut values, &gradient, first, second);
                    }
                    Gradient::HostRows { values: gradient, width, read } => {
                        let live = live.get_or_insert_with(|| live_rows(first, second, width));
                        read.iter().for_each(|&row| live[row] = true);
                        rule.on_host_rows(&mut values, &gradient, (first, second), live);
                    }
                    Gradient::Device(_) => {}
                }
                Tensor::from_data(TensorData::new(values, shape), &device)
            }
            (Moments::Device(moments), Gradient::Device(gradient)) => {
                let [first, second] = moments.as_mut();
                rule.on_device(value.reshape([count]), *gradient, first, second).reshape(shape)
            }
            // Both follow from the one device of the run.
            _ => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_norms_and_position_embeddings_are_not_decayed() {
        assert!(is_decayed("text_tower.words", &[10, 4]));
        assert!(is_decayed("text_tower.encoder.blocks.0.mlp.up.weight", &[4, 8]));
        for (path, shape) in [
            ("image_tower.positions", vec![5, 4]),
            ("image_tower.class_token", vec![1, 4]),
            ("image_tower.distillation_token", vec![1, 4]),
            ("text_tower.embedding_norm.weight", vec![4]),
            ("logit_scale", vec![1]),
        ] {
            assert!(!is_decayed(path, &shape), "{path}");
        }
    }
}
