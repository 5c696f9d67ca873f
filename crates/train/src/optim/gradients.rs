//! The gradients of a backward pass by the paths of their parameters: taken out of Burn's graph, summed, measured.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};
use dualenc_kernels::{CHUNK, sums_of_squares};
use dualenc_model::parameters::{self, PathStack};
use dualenc_model::{DualEncoder, ModelError, TokenSequences};
use rayon::prelude::*;

/// Flat gradients by parameter path.
#[derive(Debug)]
pub struct ParamGradients {
    pub(crate) by_path: BTreeMap<String, Gradient>,
}

/// The flat gradient of one parameter.
#[derive(Debug)]
pub(crate) enum Gradient {
    Host(Vec<f32>),
    /// Of an embedding table `[rows, width]` of which the batch read only some rows.
    HostRows {
        values: Vec<f32>,
        width: usize,
        /// The rows that can differ from 0, sorted.
        rows: Vec<usize>,
    },
    Device(Box<Tensor<1>>),
}

impl Gradient {
    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Host(values) | Self::HostRows { values, .. } => values.len(),
            Self::Device(tensor) => tensor.dims()[0],
        }
    }

    /// Adds another gradient of the same parameter.
    fn add(&mut self, other: Self) -> Result<(), ModelError> {
        if self.len() != other.len() {
            let found = [self.len(), other.len()];
            return Err(ModelError::Internal(format!("two gradients of a parameter have {found:?} values")));
        }
        match (self, other) {
            (Self::Host(sum), Self::Host(values)) => {
                let chunks = sum.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
                chunks.for_each(|(sum, values)| add(sum, values));
            }
            (Self::HostRows { values: sum, width, rows }, Self::HostRows { values, rows: others, .. }) => {
                let union: BTreeSet<usize> = rows.drain(..).chain(others).collect();
                // All of them, so that the sum has the bits of one over whole tables: -0 + 0 is 0.
                for &row in &union {
                    let place = row * *width..(row + 1) * *width;
                    add(&mut sum[place.clone()], &values[place]);
                }
                rows.extend(union);
            }
            (Self::Device(sum), Self::Device(values)) => **sum = sum.as_ref().clone() + *values,
            (Self::Host(_) | Self::HostRows { .. } | Self::Device(_), _) => {
                let problem = "two gradients of a parameter differ in where they are, or in which rows they list";
                return Err(ModelError::Internal(problem.to_owned()));
            }
        }
        Ok(())
    }
}

fn add(sum: &mut [f32], values: &[f32]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

/// The rows of an embedding table that a batch read. All other rows of its gradient are 0.
#[derive(Debug, Clone)]
pub struct RowsRead {
    path: &'static str,
    rows: Vec<usize>,
}

impl RowsRead {
    /// The rows of the text tower's word table that `tokens` read.
    pub fn of_words(tokens: &TokenSequences) -> Self {
        let rows: BTreeSet<usize> = tokens.ids.iter().flatten().map(|&id| id as usize).collect();
        Self { path: "text_tower.words", rows: rows.into_iter().collect() }
    }
}

impl ParamGradients {
    /// Takes the gradients of the trainable parameters of `model` out of `gradients`.
    ///
    /// `on_host`: as in [`Optimizer::new`](crate::optim::optimizer::Optimizer::new). `read`: the rows of a table that
    /// were read; its other rows can be skipped.
    ///
    /// # Errors
    /// [`ModelError::Device`] when the device cannot return its data.
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
            // Nothing else owns the tensor, so its memory is taken over without a copy.
            let values = parameters::host(tensor)?.values;
            let gradient = match read.as_ref().filter(|read| read.path == path) {
                Some(read) => Gradient::HostRows { values, width, rows: read.rows.clone() },
                None => Gradient::Host(values),
            };
            Ok((path, gradient))
        };
        Ok(Self { by_path: take.by_path.into_iter().map(gradient).collect::<Result<_, ModelError>>()? })
    }

    /// The gradients of a pass in which nothing trains.
    pub(crate) fn none() -> Self {
        Self { by_path: BTreeMap::new() }
    }

    /// Adds the gradients of another backward pass.
    ///
    /// # Errors
    /// [`ModelError::Internal`] when two gradients of a parameter do not fit each other.
    pub fn add(&mut self, other: Self) -> Result<(), ModelError> {
        for (path, gradient) in other.by_path {
            match self.by_path.entry(path) {
                Entry::Vacant(entry) => {
                    entry.insert(gradient);
                }
                Entry::Occupied(mut entry) => entry.get_mut().add(gradient)?,
            }
        }
        Ok(())
    }

    /// L2 norms of the gradients.
    ///
    /// # Errors
    /// [`ModelError::Device`] when the device cannot return its data.
    pub fn norms(&self) -> Result<GradientNorms, ModelError> {
        let mut squares = self.squares();
        let read = parameters::host_all(std::mem::take(&mut squares.on_device))?;
        squares.norms(&read.concat())
    }

    /// The sums of squares of the gradients. Those of gradients on a device are not read yet.
    pub(crate) fn squares(&self) -> SumsOfSquares {
        let mut squares = SumsOfSquares::default();
        let (mut parts, mut on_device) = (Vec::new(), Vec::new());
        for (path, gradient) in &self.by_path {
            let part = path.split_once('.').map_or(path.as_str(), |(part, _)| part);
            let of_part = squares.by_part.entry(part.to_owned()).or_default();
            match gradient {
                Gradient::Host(values) => {
                    let chunks: Vec<f64> = values.par_chunks(CHUNK).map(sum_of_squares).collect();
                    *of_part += chunks.iter().sum::<f64>();
                }
                Gradient::HostRows { values, width, rows } => {
                    let row = |&row: &usize| sum_of_squares(&values[row * width..][..*width]);
                    *of_part += rows.par_iter().map(row).collect::<Vec<f64>>().iter().sum::<f64>();
                }
                Gradient::Device(tensor) => {
                    parts.push(part.to_owned());
                    on_device.push(tensor.as_ref().clone());
                }
            }
        }
        let sums = sums_of_squares(&on_device);
        let sums = sums.unwrap_or_else(|| on_device.into_iter().map(partial_sums_of_squares).collect());
        let mut parts = parts.into_iter();
        for (sums, counts) in sums {
            // Counts come first: when they end, no part has been taken for nothing.
            let counts = counts.into_iter().zip(parts.by_ref());
            squares.parts_on_device.push(counts.map(|(count, part)| (part, count)).collect());
            squares.on_device.push(sums);
        }
        squares
    }
}

/// Sums of the squares of gradients, those on a device still there.
#[derive(Debug, Default)]
pub(crate) struct SumsOfSquares {
    /// Of the gradients in host memory, by part of the model.
    by_part: BTreeMap<String, f64>,
    /// For each tensor on a device, and each gradient with sums in it: the part of the model, and how many sums.
    parts_on_device: Vec<Vec<(String, usize)>>,
    /// Of the gradients on a device, to be read: in sums, which the host adds up.
    pub on_device: Vec<Tensor<1>>,
}

impl SumsOfSquares {
    /// The norms. `read`: the values of [`SumsOfSquares::on_device`], one tensor after the other.
    ///
    /// # Errors
    /// [`ModelError::Internal`] when `read` are other values.
    pub fn norms(&self, read: &[f32]) -> Result<GradientNorms, ModelError> {
        let mut squares = self.by_part.clone();
        let expected: usize = self.parts_on_device.iter().flatten().map(|(_, count)| count).sum();
        if read.len() != expected {
            let found = read.len();
            return Err(ModelError::Internal(format!("{found} sums of squares of gradients, expected {expected}")));
        }
        let mut sums = read;
        for (part, count) in self.parts_on_device.iter().flatten() {
            let (own, others) = sums.split_at(*count);
            *squares.entry(part.clone()).or_default() += own.iter().map(|&sum| f64::from(sum)).sum::<f64>();
            sums = others;
        }
        let all = squares.values().sum::<f64>().sqrt();
        Ok(GradientNorms { all, by_part: squares.into_iter().map(|(part, sum)| (part, sum.sqrt())).collect() })
    }
}

/// L2 norms of the gradients of a step, before clipping.
#[derive(Debug, Clone, PartialEq)]
pub struct GradientNorms {
    /// Of all parameters together.
    pub all: f64,
    /// Of each part of the model: the first component of the paths, such as `text_tower`.
    pub by_part: BTreeMap<String, f64>,
}

/// Parts that the sum over a gradient on a device is left in, at most: a power of two, which divides most widths.
const MAX_PARTS: usize = 256;

/// `[parts]`, and the number of parts. A sum over one dimension is one kernel together with the squares; a sum over all
/// values takes three.
fn partial_sums_of_squares(gradient: Tensor<1>) -> (Tensor<1>, Vec<usize>) {
    let [count] = gradient.dims();
    let parts = MAX_PARTS.min(1 << count.trailing_zeros().min(usize::BITS - 1));
    (gradient.reshape([parts, count / parts]).square().sum_dim(1).reshape([parts]), vec![parts])
}

fn sum_of_squares(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum()
}

#[cfg(feature = "flex")]
#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn of_one(gradient: Gradient) -> ParamGradients {
        ParamGradients { by_path: [("words".to_owned(), gradient)].into() }
    }

    fn message(first: Gradient, second: Gradient) -> String {
        of_one(first).add(of_one(second)).unwrap_err().to_string()
    }

    #[test]
    fn gradients_that_do_not_fit_are_internal_errors() {
        let host = |count: usize| Gradient::Host(vec![1.0; count]);
        let rows = || Gradient::HostRows { values: vec![1.0; 4], width: 2, rows: vec![1] };
        let device = || Gradient::Device(Box::new(Tensor::ones([4], &Device::flex())));
        assert!(message(host(4), host(3)).contains("internal error: two gradients of a parameter have [4, 3] values"));
        for (first, second) in [(host(4), rows()), (rows(), host(4)), (host(4), device()), (device(), rows())] {
            assert!(message(first, second).contains("internal error: two gradients of a parameter differ"));
        }
    }

    #[test]
    fn sums_of_rows_list_both() {
        let rows = |row: usize| {
            let mut values = vec![0.0; 6];
            values[row * 2] = 1.0;
            of_one(Gradient::HostRows { values, width: 2, rows: vec![row] })
        };
        let mut sum = rows(2);
        sum.add(rows(0)).unwrap();
        sum.add(rows(2)).unwrap();
        let Gradient::HostRows { values, rows, .. } = &sum.by_path["words"] else { panic!("{sum:?}") };
        assert_eq!((&values[..], &rows[..]), (&[1.0, 0.0, 0.0, 0.0, 2.0, 0.0][..], &[0, 2][..]));
    }
}
