//! AdamW (Loshchilov and Hutter, arXiv:1711.05101) with the rules of who is decayed, and the global-norm clip.
//!
//! State is kept by the parameter's path, so that a checkpoint can be compared and refused tensor by tensor. On a CPU
//! the update is one fused pass in place; elsewhere the same formula runs as tensor operations.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::Module;
use burn::module::{ModuleVisitor, Param};
use burn::tensor::{DType, Gradients, Tensor, TensorData};
use dualenc_model::parameters::{self, ParamUpdate, PathStack};
use dualenc_model::{DualEncoder, HostTensor, ModelError, TokenSequences};
use rayon::prelude::*;

use crate::config::TrainSection;

/// Elements of one chunk of a sum: chunks are summed in order, whatever the number of threads.
const SUM_CHUNK: usize = 1 << 14;

/// Rows of a table that one task updates at least.
const ROWS_A_TASK: usize = 64;

/// PyTorch's `clip_grad_norm_` adds this to the norm it divides by.
const CLIP_EPSILON: f64 = 1e-6;

/// Suffixes of paths of matrices that are not decayed: position and special-token embeddings, tables of relative positions.
const NOT_DECAYED: [&str; 6] = ["positions", "class_token", "distillation_token", "registers", "probe", "table"];

/// Gradients of one backward pass, by path, flat.
#[derive(Debug)]
pub struct ParamGradients {
    by_path: BTreeMap<String, Gradient>,
}

#[derive(Debug)]
enum Gradient {
    Host(Vec<f32>),
    /// Of a table of which few rows were read.
    HostRows {
        values: Vec<f32>,
        width: usize,
        /// The rows that can differ from 0, sorted.
        read: Vec<usize>,
    },
    Device(Box<Tensor<1>>),
}

/// Rows of an embedding table that a batch read: no other row of its gradient differs from 0.
#[derive(Debug, Clone)]
pub struct RowsRead {
    path: &'static str,
    rows: Vec<usize>,
}

impl RowsRead {
    /// Of the word table.
    pub fn of_words(tokens: &TokenSequences) -> Self {
        let rows: BTreeSet<usize> = tokens.ids.iter().flatten().map(|&id| id as usize).collect();
        Self { path: "text_tower.words", rows: rows.into_iter().collect() }
    }
}

impl ParamGradients {
    /// Takes the gradients of every parameter of `model` that trains; `on_host` as [`AdamW::new`]. `read` tells which rows
    /// of a table are worth a look.
    ///
    /// # Errors
    /// When the device cannot hand its data over.
    pub fn take(
        model: &DualEncoder,
        gradients: &mut Gradients,
        read: Option<RowsRead>,
        on_host: bool,
    ) -> Result<Self, ModelError> {
        struct Take<'a> {
            stack: PathStack,
            gradients: &'a mut Gradients,
            by_path: BTreeMap<String, (Tensor<1>, usize)>,
        }
        impl ModuleVisitor for Take<'_> {
            fn enter_module(&mut self, name: &str, container: &str) {
                self.stack.enter(name, container);
            }
            fn exit_module(&mut self, _: &str, container: &str) {
                self.stack.exit(container);
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(gradient) = param.val().grad_remove(self.gradients) {
                    let dims = gradient.dims();
                    let (count, width) = (dims.iter().product::<usize>(), dims[D - 1]);
                    self.by_path.insert(self.stack.path(), (gradient.reshape([count]), width));
                }
            }
        }
        let mut take = Take { stack: PathStack::default(), gradients, by_path: BTreeMap::new() };
        model.visit(&mut take);
        let gradient = |(path, (tensor, width)): (String, (Tensor<1>, usize))| {
            if !on_host {
                return Ok((path, Gradient::Device(Box::new(tensor))));
            }
            // The tensor's only owner: its memory is taken over, not copied.
            let values = parameters::host(tensor)?.values;
            let gradient = match read.as_ref().filter(|read| read.path == path) {
                Some(read) => Gradient::HostRows { values, width, read: read.rows.clone() },
                None => Gradient::Host(values),
            };
            Ok((path, gradient))
        };
        Ok(Self { by_path: take.by_path.into_iter().map(gradient).collect::<Result<_, ModelError>>()? })
    }
}

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

    /// The global L2 norm of the gradients, before clipping.
    ///
    /// # Errors
    /// When the device cannot hand its data over.
    pub fn grad_norm(&self, gradients: &ParamGradients) -> Result<f64, ModelError> {
        let mut squares = 0.0;
        let mut on_device = Vec::new();
        for gradient in gradients.by_path.values() {
            match gradient {
                Gradient::Host(values) => {
                    let chunks: Vec<f64> = values.par_chunks(SUM_CHUNK).map(sum_of_squares).collect();
                    squares += chunks.iter().sum::<f64>();
                }
                Gradient::HostRows { values, width, read } => {
                    let row = |&row: &usize| sum_of_squares(&values[row * width..][..*width]);
                    squares += read.par_iter().map(row).collect::<Vec<f64>>().iter().sum::<f64>();
                }
                Gradient::Device(tensor) => on_device.push(tensor.as_ref().clone().square().sum()),
            }
        }
        if !on_device.is_empty() {
            let sums = parameters::host(Tensor::cat(on_device, 0))?.values;
            squares += sums.iter().map(|&sum| f64::from(sum)).sum::<f64>();
        }
        Ok(squares.sqrt())
    }

    /// One update. `step` counts from 0; `grad_norm` is that of `gradients`.
    pub fn step(
        &mut self,
        model: DualEncoder,
        gradients: ParamGradients,
        grad_norm: f64,
        learning_rate: f64,
        step: u64,
    ) -> DualEncoder {
        let clip = match self.clip_norm {
            limit if limit > 0.0 => (limit / (grad_norm + CLIP_EPSILON)).min(1.0),
            _ => 1.0,
        };
        let count = (step + 1).min(i32::MAX as u64) as i32;
        let corrections = self.betas.map(|beta| 1.0 - beta.powi(count));
        parameters::update(
            model,
            &mut Update { adamw: self, gradients: gradients.by_path, clip, learning_rate, corrections },
        )
    }

    /// The state, by `path.first` and `path.second`.
    ///
    /// # Errors
    /// When the device cannot hand its data over.
    pub fn state(&self) -> Result<BTreeMap<String, HostTensor>, ModelError> {
        let mut state = BTreeMap::new();
        for (path, moments) in &self.moments {
            let (first, second) = match moments.clone() {
                Moments::Host { first, second, .. } => (first, second),
                Moments::Device(moments) => {
                    let [first, second] = *moments;
                    (parameters::host(first)?.values, parameters::host(second)?.values)
                }
            };
            for (name, values) in [("first", first), ("second", second)] {
                state.insert(format!("{path}.{name}"), HostTensor { shape: vec![values.len()], values });
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

fn sum_of_squares(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum()
}

/// One step of AdamW on its way through the model.
struct Update<'a> {
    adamw: &'a mut AdamW,
    gradients: BTreeMap<String, Gradient>,
    clip: f64,
    learning_rate: f64,
    /// 1 - beta^t of both betas.
    corrections: [f64; 2],
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
        let [first_correction, second_correction] = self.corrections;
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

/// Which rows of `width` have a moment that is not 0.
fn live_rows(first: &[f32], second: &[f32], width: usize) -> Vec<bool> {
    let rows = first.par_chunks(width).zip(second.par_chunks(width));
    rows.map(|(first, second)| first.iter().chain(second).any(|&moment| moment != 0.0)).collect()
}

/// The numbers of one update of one parameter.
struct Rule {
    betas: [f64; 2],
    epsilon: f64,
    clip: f64,
    keep: f64,
    rate: f64,
    second_root: f64,
}

impl Rule {
    /// In one pass over four arrays.
    fn on_host(&self, values: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let [beta1, beta2] = self.betas.map(|beta| beta as f32);
        let (rest1, rest2) = ((1.0 - self.betas[0]) as f32, (1.0 - self.betas[1]) as f32);
        let (clip, keep, rate) = (self.clip as f32, self.keep as f32, self.rate as f32);
        let (root, epsilon) = (self.second_root as f32, self.epsilon as f32);
        let chunks = values.par_chunks_mut(SUM_CHUNK).zip(gradient.par_chunks(SUM_CHUNK));
        let moments = first.par_chunks_mut(SUM_CHUNK).zip(second.par_chunks_mut(SUM_CHUNK));
        chunks.zip(moments).for_each(|((values, gradient), (first, second))| {
            let parameters = values.iter_mut().zip(gradient).zip(first.iter_mut().zip(second));
            for ((value, gradient), (first, second)) in parameters {
                let gradient = gradient * clip;
                *first = beta1 * *first + rest1 * gradient;
                *second = beta2 * *second + rest2 * gradient * gradient;
                *value = *value * keep - rate * *first / (second.sqrt() / root + epsilon);
            }
        });
    }

    /// The same where all but the `live` rows have moments and gradients of 0: the formula then only decays them, and
    /// neither gradient nor moments are read.
    fn on_host_rows(
        &self,
        values: &mut [f32],
        gradient: &[f32],
        (first, second): (&mut [f32], &mut [f32]),
        live: &[bool],
    ) {
        let keep = self.keep as f32;
        let width = values.len() / live.len().max(1);
        let rows = values.par_chunks_mut(width).zip(gradient.par_chunks(width)).zip(live).with_min_len(ROWS_A_TASK);
        let moments = first.par_chunks_mut(width).zip(second.par_chunks_mut(width)).with_min_len(ROWS_A_TASK);
        rows.zip(moments).for_each(|(((values, gradient), live), (first, second))| match live {
            true => self.on_host(values, gradient, first, second),
            false if keep != 1.0 => values.iter_mut().for_each(|value| *value *= keep),
            false => {}
        });
    }

    /// As tensor operations.
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
        value * self.keep - first.clone() * self.rate / (second.clone().sqrt() / self.second_root + self.epsilon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule { betas: [0.9, 0.99], epsilon: 1e-8, clip: 0.5, keep: 0.999, rate: 1.0, second_root: 0.01f64.sqrt() }
    }

    #[test]
    fn the_fused_update_is_the_formula_of_the_paper() {
        // First step: both corrections cancel, so a parameter moves by the learning rate against its gradient's sign.
        let (mut values, mut first, mut second) = (vec![2.0, -1.0], vec![0.0; 2], vec![0.0; 2]);
        Rule { rate: 0.1 / (1.0 - 0.9), second_root: (1.0f64 - 0.99).sqrt(), ..rule() }.on_host(
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
    fn rows_that_no_gradient_reached_are_updated_by_the_same_formula() {
        let (width, rows) = (3, 5);
        let value = |n: usize| (n as f32 * 0.7).sin();
        let (mut by_rows, mut whole): (Vec<f32>, Vec<f32>) = (0..width * rows).map(|n| (value(n), value(n))).unzip();
        let mut moments =
            [const { [const { Vec::new() }; 2] }; 2].map(|pair| pair.map(|_: Vec<f32>| vec![0.0; width * rows]));
        let [[first, second], [whole_first, whole_second]] = &mut moments;
        let mut live = live_rows(first, second, width);
        for read in [vec![1], vec![3, 4], vec![1]] {
            let mut gradient = vec![0.0; width * rows];
            for row in read {
                live[row] = true;
                (0..width).for_each(|n| gradient[row * width + n] = 0.1 + value(n + 7));
            }
            rule().on_host_rows(&mut by_rows, &gradient, (first, second), &live);
            rule().on_host(&mut whole, &gradient, whole_first, whole_second);
        }
        assert_eq!(by_rows, whole);
        assert_eq!((&*first, &*second), (&*whole_first, &*whole_second));
        assert_eq!(live_rows(first, second, width), [false, true, false, true, true]);
    }

    #[cfg(feature = "flex")]
    #[test]
    fn both_forms_of_the_update_agree() {
        let device = burn::tensor::Device::flex();
        let tensor = |values: [f32; 3]| Tensor::<1>::from_data(values, &device);
        let (values, gradient) = ([0.5f32, -2.0, 3.0], [1.0f32, -0.2, 1e-3]);
        let (mut on_host, mut first, mut second) = (values.to_vec(), vec![0.1, 0.2, -0.3], vec![0.01, 0.02, 0.03]);
        let (mut first_tensor, mut second_tensor) = (tensor([0.1, 0.2, -0.3]), tensor([0.01, 0.02, 0.03]));
        let on_device = rule().on_device(tensor(values), tensor(gradient), &mut first_tensor, &mut second_tensor);
        rule().on_host(&mut on_host, &gradient, &mut first, &mut second);
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
