//! How parameters come to be: read from pretrained weights by name, else drawn at random; every one is accounted for.
//! It does not know which families exist (`names.rs`) nor which parts train (`lock.rs`).

use std::cell::RefCell;
use std::collections::BTreeSet;

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};

use crate::params::random::{named_seed, normal};
use crate::params::values as parameters;
use crate::weights::name_table::{Layout, NameTable, Part};
use crate::weights::weight_files::{HostTensor, WeightFiles};

/// How a parameter starts that no weights file holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// One value everywhere.
    Constant(f32),
}

/// What loading a tower found: nothing is silently missing, left over or mis-shaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Parameters of the model that the weights lack (by their Hugging Face names): they start at random.
    pub missing: Vec<String>,
    /// Tensors of the weights that the model has no use for, such as task heads.
    pub unused: Vec<String>,
    /// Tensors whose shapes differ: `name: expected [..], found [..]`.
    pub mismatched: Vec<String>,
    /// How many parameters were read.
    pub loaded: usize,
    /// How many tensors of the weights they came from.
    pub tensors: usize,
}

/// Where the parameters of one tower come from.
pub(crate) struct ParamSource {
    device: Device,
    seed: u64,
    pretrained: Option<(WeightFiles, NameTable)>,
    /// Whether every value is 0, whatever the files hold.
    outline: bool,
    audit: RefCell<Audit>,
    used: RefCell<BTreeSet<String>>,
}

impl ParamSource {
    /// Parameters on `device` (an autodiff device makes them trainable), drawn from `seed` unless pretrained.
    pub fn new(device: Device, seed: u64, pretrained: Option<(WeightFiles, NameTable)>) -> Self {
        Self { device, seed, pretrained, outline: false, audit: RefCell::default(), used: RefCell::default() }
    }

    /// Parameters that are all 0, for the audit of files whose values are not read.
    pub fn outline(device: Device, files: WeightFiles, names: NameTable) -> Self {
        Self { outline: true, ..Self::new(device, 0, Some((files, names))) }
    }

    /// The root of the parameter tree.
    pub fn root(&self) -> ParamBuilder<'_> {
        ParamBuilder { source: self, path: String::new() }
    }

    /// What was found, once the model is built.
    pub fn into_audit(self) -> Audit {
        let mut audit = self.audit.into_inner();
        if let Some((files, _)) = &self.pretrained {
            let used = self.used.into_inner();
            audit.tensors = used.len();
            audit.unused = files.names().filter(|name| !used.contains(*name)).map(str::to_owned).collect();
        }
        audit
    }

    /// The stored tensor of the parameter at `path`, if it is there and fits.
    fn find(&self, path: &str, shape: &[usize], expected: bool) -> Option<(&HostTensor, Layout)> {
        let (files, names) = self.pretrained.as_ref()?;
        let mut audit = self.audit.borrow_mut();
        let Some((name, layout)) = names.stored(path) else {
            audit.missing.push(format!("{path} (no name known)"));
            return None;
        };
        let Some(tensor) = files.get(&name) else {
            if expected {
                audit.missing.push(name);
            }
            return None;
        };
        self.used.borrow_mut().insert(name.clone());
        let expected = layout.stored_shape(shape);
        if tensor.shape != expected {
            audit.mismatched.push(format!("{name}: expected {expected:?}, found {:?}", tensor.shape));
            return None;
        }
        audit.loaded += 1;
        Some((tensor, layout))
    }
}

/// A place in the parameter tree; its path equals the path of the field that the parameter ends up in.
#[derive(Clone)]
pub(crate) struct ParamBuilder<'a> {
    source: &'a ParamSource,
    path: String,
}

impl ParamBuilder<'_> {
    /// The child called `name`.
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        let path = if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) };
        Self { source: self.source, path }
    }

    /// The parameter `name` here, `shape` as the model holds it.
    pub fn param<const D: usize>(&self, name: &str, shape: [usize; D], init: Init) -> Param<Tensor<D>> {
        let path = self.at(name).path;
        self.found_or(&path, shape, true, &self.source.device, |count| match init {
            Init::Normal(std) => normal(named_seed(self.source.seed, &path), count, std),
            Init::Constant(value) => vec![value; count],
        })
    }

    /// The buffer `name` here ([`parameters::is_buffer`]): used, but never trained. Fresh ones hold `value`.
    pub fn buffer<const D: usize>(&self, name: &str, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        self.untrained(name, shape, value, true)
    }

    /// A buffer that the model does not even read: carried from the files it came in to those it is written to, so that
    /// these are whole. It may be missing.
    pub fn carried<const D: usize>(&self, name: &str, shape: [usize; D]) -> Param<Tensor<D>> {
        self.untrained(name, shape, 0.0, false)
    }

    fn untrained<const D: usize>(&self, name: &str, shape: [usize; D], value: f32, expected: bool) -> Param<Tensor<D>> {
        let path = self.at(name).path;
        debug_assert!(parameters::is_buffer(&path), "{path}");
        let device = self.source.device.clone().without_autodiff();
        self.found_or(&path, shape, expected, &device, |count| vec![value; count])
    }

    fn found_or<const D: usize>(
        &self,
        path: &str,
        shape: [usize; D],
        expected: bool,
        device: &Device,
        fresh: impl FnOnce(usize) -> Vec<f32>,
    ) -> Param<Tensor<D>> {
        let found = self.source.find(path, &shape, expected);
        if self.source.outline {
            // Lazy, so that a tower of any size costs no memory as long as only its shapes are asked for.
            let zeros = move |device: &Device, _| Tensor::zeros(shape, device);
            return Param::uninitialized(ParamId::new(), zeros, device.clone(), false, shape.into());
        }
        let values = match found {
            Some((tensor, layout)) => layout.decode(tensor),
            None => fresh(shape.iter().product()),
        };
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
    }
}

impl Layout {
    /// The shape in the file of a parameter that the model holds as `shape`.
    pub fn stored_shape(self, shape: &[usize]) -> Vec<usize> {
        match (self, shape) {
            (Self::Transposed, [input, output]) => vec![*output, *input],
            (Self::Patches, [input, width]) => {
                let side = ((input / 3) as f64).sqrt().round() as usize;
                vec![*width, 3, side, side]
            }
            (Self::Leading(ones), _) => [vec![1; ones], shape.to_vec()].concat(),
            (Self::LeadingVector(ones), [1, width]) => [vec![1; ones], vec![*width]].concat(),
            (Self::Scalar, _) => Vec::new(),
            (Self::TransposedPart(part), [input, output]) => vec![part.of * output, *input],
            (Self::VectorPart(part), [output]) => vec![part.of * output],
            _ => shape.to_vec(),
        }
    }

    /// The model's values, from the file's.
    pub fn decode(self, tensor: &HostTensor) -> Vec<f32> {
        let rows = tensor.shape.first().copied().unwrap_or(1);
        let columns = tensor.values.len() / rows.max(1);
        match self {
            Self::Transposed | Self::Patches => transpose(&tensor.values, rows, columns),
            Self::TransposedPart(part) => {
                transpose(&tensor.values[part.range(tensor.values.len())], rows / part.of, columns)
            }
            Self::VectorPart(part) => tensor.values[part.range(tensor.values.len())].to_vec(),
            _ => tensor.values.clone(),
        }
    }

    /// Puts the model's `shape` and values into the file's tensor, which other parts may have begun.
    pub fn encode(self, shape: &[usize], values: Vec<f32>, stored: &mut Option<HostTensor>) {
        let stored_shape = self.stored_shape(shape);
        let turned = match self {
            Self::Transposed | Self::Patches | Self::TransposedPart(_) => transpose(&values, shape[0], shape[1]),
            _ => values,
        };
        match self {
            Self::TransposedPart(part) | Self::VectorPart(part) => {
                let count = stored_shape.iter().product();
                let whole = stored.get_or_insert_with(|| HostTensor { shape: stored_shape, values: vec![0.0; count] });
                whole.values[part.range(count)].copy_from_slice(&turned);
            }
            _ => *stored = Some(HostTensor { shape: stored_shape, values: turned }),
        }
    }
}

impl Part {
    /// Where the part lies among `count` values.
    fn range(self, count: usize) -> std::ops::Range<usize> {
        let each = count / self.of;
        self.index * each..(self.index + 1) * each
    }
}

/// Rows that are turned together: a cache line of f32, so that each line of the result is written whole.
const TURNED_AT_ONCE: usize = 16;

/// `[rows, columns]` to `[columns, rows]`.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut turned = vec![0.0; values.len()];
    for first in (0..rows).step_by(TURNED_AT_ONCE) {
        let last = (first + TURNED_AT_ONCE).min(rows);
        for column in 0..columns {
            let line = &mut turned[column * rows + first..column * rows + last];
            for (row, value) in (first..last).zip(line) {
                *value = values[row * columns + column];
            }
        }
    }
    turned
}
