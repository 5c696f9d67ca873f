//! The gradients of one backward pass, out of Burn's graph and by the paths of their parameters.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};
use dualenc_model::parameters::{self, PathStack};
use dualenc_model::{DualEncoder, ModelError, TokenSequences};
use rayon::prelude::*;

/// Elements of one chunk of a sum: chunks are summed in order, whatever the number of threads.
const SUM_CHUNK: usize = 1 << 14;

/// Gradients of one backward pass, by path, flat.
#[derive(Debug)]
pub struct ParamGradients {
    pub(crate) by_path: BTreeMap<String, Gradient>,
}

/// Of one parameter.
#[derive(Debug)]
pub(crate) enum Gradient {
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

impl Gradient {
    /// Both are of one parameter, and so of one kind.
    fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Host(sum), Self::Host(values)) => {
                let chunks = sum.par_chunks_mut(SUM_CHUNK).zip(values.par_chunks(SUM_CHUNK));
                chunks.for_each(|(sum, values)| add(sum, values));
            }
            (Self::HostRows { values: sum, width, read }, Self::HostRows { values, read: others, .. }) => {
                for &row in &others {
                    let place = row * *width..(row + 1) * *width;
                    add(&mut sum[place.clone()], &values[place]);
                }
                let rows: BTreeSet<usize> = read.drain(..).chain(others).collect();
                read.extend(rows);
            }
            (Self::Device(sum), Self::Device(values)) => **sum = sum.as_ref().clone() + *values,
            _ => {}
        }
    }
}

fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
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
    /// Takes the gradients of every parameter of `model` that trains; `on_host` as
    /// [`Optimizer::new`](crate::Optimizer::new). `read` tells which rows of a table are worth a look.
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

    /// Adds those of another pass.
    pub fn add(&mut self, other: Self) {
        for (path, gradient) in other.by_path {
            match self.by_path.entry(path) {
                Entry::Vacant(entry) => {
                    entry.insert(gradient);
                }
                Entry::Occupied(mut entry) => entry.get_mut().add(gradient),
            }
        }
    }

    /// The L2 norms of the gradients, before clipping.
    ///
    /// # Errors
    /// When the device cannot hand its data over.
    pub fn norms(&self) -> Result<GradientNorms, ModelError> {
        let mut squares: BTreeMap<&str, f64> = BTreeMap::new();
        let (mut parts_on_device, mut on_device) = (Vec::new(), Vec::new());
        for (path, gradient) in &self.by_path {
            let part = path.split_once('.').map_or(path.as_str(), |(part, _)| part);
            let of_part = squares.entry(part).or_default();
            match gradient {
                Gradient::Host(values) => {
                    let chunks: Vec<f64> = values.par_chunks(SUM_CHUNK).map(sum_of_squares).collect();
                    *of_part += chunks.iter().sum::<f64>();
                }
                Gradient::HostRows { values, width, read } => {
                    let row = |&row: &usize| sum_of_squares(&values[row * width..][..*width]);
                    *of_part += read.par_iter().map(row).collect::<Vec<f64>>().iter().sum::<f64>();
                }
                Gradient::Device(tensor) => {
                    parts_on_device.push(part);
                    on_device.push(tensor.as_ref().clone().square().sum());
                }
            }
        }
        if !on_device.is_empty() {
            let sums = parameters::host(Tensor::cat(on_device, 0))?.values;
            for (part, sum) in parts_on_device.into_iter().zip(sums) {
                *squares.entry(part).or_default() += f64::from(sum);
            }
        }
        let all = squares.values().sum::<f64>().sqrt();
        Ok(GradientNorms {
            all,
            by_part: squares.into_iter().map(|(part, sum)| (part.to_owned(), sum.sqrt())).collect(),
        })
    }
}

/// L2 norms of the gradients of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct GradientNorms {
    /// Of all together.
    pub all: f64,
    /// Of each part of the model, such as `text_tower`: the first word of its parameters' paths.
    pub by_part: BTreeMap<String, f64>,
}

fn sum_of_squares(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum()
}
