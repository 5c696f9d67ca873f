//! Makes the parameters of a tower: each is read from pretrained weights by name, or drawn at random, and accounted
//! for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::PathBuf;

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};

use crate::error::ModelError;
use crate::params::audit::Audit;
use crate::params::inventory::is_buffer;
use crate::params::random::{named_seed, normal, uniform};
use crate::weights::layout::Layout;
use crate::weights::name_table::NameTable;
use crate::weights::stored_tensor::StoredTensor;
use crate::weights::weight_files::WeightFiles;

/// The initial value of a parameter that is not read from a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between minus this and this.
    Uniform(f64),
    /// The same value everywhere.
    Constant(f32),
}

/// The source of one tower's parameters.
pub(crate) struct ParamSource {
    device: Device,
    seed: u64,
    pretrained: Option<(WeightFiles, NameTable)>,
    /// Whether parameters are lazy zeros, whatever the files hold: to audit them, or because loading has failed.
    dry: Cell<bool>,
    /// What went wrong while values were read.
    errors: RefCell<Vec<ModelError>>,
    audit: RefCell<Audit>,
    used: RefCell<BTreeSet<String>>,
}

impl ParamSource {
    /// Parameters on `device` (an autodiff device makes them trainable), drawn from `seed` unless pretrained.
    pub fn new(device: Device, seed: u64, pretrained: Option<(WeightFiles, NameTable)>) -> Self {
        Self {
            device,
            seed,
            pretrained,
            dry: Cell::new(false),
            errors: RefCell::default(),
            audit: RefCell::default(),
            used: RefCell::default(),
        }
    }

    /// Parameters that are lazy zeros, to audit files without reading their values.
    pub fn dry(device: Device, files: WeightFiles, names: NameTable) -> Self {
        Self { dry: Cell::new(true), ..Self::new(device, 0, Some((files, names))) }
    }

    /// The names of the pretrained weights, if there are any.
    pub fn names(&self) -> Option<&NameTable> {
        self.pretrained.as_ref().map(|(_, names)| names)
    }

    /// The root of the parameter tree.
    pub fn root(&self) -> ParamBuilder<'_> {
        ParamBuilder { source: self, path: String::new() }
    }

    /// The audit, once the model is built. If it returns an error, or the audit has mismatched tensors, the model holds
    /// placeholders.
    ///
    /// # Errors
    /// [`ModelError::Read`] if a file could not be read; [`ModelError::NonFiniteWeights`] if it holds NaN or infinite
    /// values.
    pub fn into_audit(self) -> Result<Audit, ModelError> {
        if let Some(error) = merged(self.errors.into_inner()) {
            return Err(error);
        }
        let mut audit = self.audit.into_inner();
        if let Some((files, _)) = &self.pretrained {
            let used = self.used.into_inner();
            audit.tensors = used.len();
            audit.unused = files.names().filter(|name| !used.contains(*name)).map(str::to_owned).collect();
        }
        Ok(audit)
    }

    /// Finds the stored tensor of the parameter at `path`, if it is present and has the right shape. If not `expected`,
    /// it may be missing.
    fn find(&self, path: &str, shape: &[usize], expected: bool) -> Option<(&StoredTensor, Layout)> {
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
            // The model will be refused. Its config may ask for more memory than there is.
            self.dry.set(true);
            audit.mismatched.push(format!("{name}: expected {expected:?}, found {:?}", tensor.shape));
            return None;
        }
        audit.loaded += 1;
        Some((tensor, layout))
    }
}

/// A position in the parameter tree. Its path is the path of the field that the parameter is stored in.
#[derive(Clone)]
pub(crate) struct ParamBuilder<'a> {
    source: &'a ParamSource,
    path: String,
}

impl ParamBuilder<'_> {
    /// The child `name`.
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        let path = if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) };
        Self { source: self.source, path }
    }

    /// Makes the parameter `name`; `shape` is its shape in the model.
    pub fn param<const D: usize>(&self, name: &str, shape: [usize; D], init: Init) -> Param<Tensor<D>> {
        let path = self.at(name).path;
        self.found_or(&path, shape, true, &self.source.device, |count| match init {
            Init::Normal(std) => normal(named_seed(self.source.seed, &path), count, std),
            Init::Uniform(bound) => uniform(named_seed(self.source.seed, &path), count, bound),
            Init::Constant(value) => vec![value; count],
        })
    }

    /// Makes the buffer `name` (see [`is_buffer`]): used, never trained, and `value` everywhere if it is not stored.
    pub fn buffer<const D: usize>(&self, name: &str, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        self.untrained(name, shape, value, true)
    }

    /// Makes a buffer that the model does not use. It is only carried over to exported files, so that they are
    /// complete, and may be missing.
    pub fn carried<const D: usize>(&self, name: &str, shape: [usize; D]) -> Param<Tensor<D>> {
        self.untrained(name, shape, 0.0, false)
    }

    fn untrained<const D: usize>(&self, name: &str, shape: [usize; D], value: f32, expected: bool) -> Param<Tensor<D>> {
        let path = self.at(name).path;
        debug_assert!(is_buffer(&path), "{path}");
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
        // Lazy, so that a tower of any size takes no memory as long as only its shapes are read.
        let placeholder = || {
            let zeros = move |device: &Device, _| Tensor::zeros(shape, device);
            Param::uninitialized(ParamId::new(), zeros, device.clone(), false, shape.into())
        };
        if self.source.dry.get() {
            return placeholder();
        }
        let values = match found.map(|(tensor, layout)| layout.decode(tensor)) {
            Some(Ok(values)) => values,
            None => fresh(shape.iter().product()),
            Some(Err(error)) => {
                // Other tensors are read too, to name all that are not finite.
                let is_about_values = matches!(error, ModelError::NonFiniteWeights { .. });
                self.source.dry.set(!is_about_values);
                self.source.errors.borrow_mut().push(error);
                return placeholder();
            }
        };
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
    }
}

/// One error for all: the first that is not about values, else all tensors of the first file that are not finite.
fn merged(errors: Vec<ModelError>) -> Option<ModelError> {
    let mut all: Option<(PathBuf, Vec<String>)> = None;
    for error in errors {
        match error {
            ModelError::NonFiniteWeights { path, tensors } => {
                let (first, lines) = all.get_or_insert_with(|| (path.clone(), Vec::new()));
                if *first == path {
                    lines.extend(tensors);
                }
            }
            other => return Some(other),
        }
    }
    all.map(|(path, tensors)| ModelError::NonFiniteWeights { path, tensors })
}
