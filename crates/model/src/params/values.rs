//! Reading the values of a model's parameters to the host, and replacing them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use dualenc_kernels::{HostValues, PendingRead, count_read, host_values};

use crate::device_failure::DeviceFailure;
use crate::error::ModelError;
use crate::params::inventory::{ParamFilter, ParamInfo, list};
use crate::params::path::PathStack;
use crate::weights::host_tensor::HostTensor;

/// Reads the selected parameters, by path.
///
/// # Errors
/// [`ModelError::Device`] if the device cannot copy a tensor to the host.
pub fn collect(model: &impl Module, which: ParamFilter) -> Result<BTreeMap<String, HostTensor>, ModelError> {
    let read = |(path, reader): (String, ParamReader)| {
        let values = reader.values()?.into_owned();
        Ok((path, HostTensor { shape: reader.shape, values }))
    };
    readers(model, which).into_iter().map(read).collect()
}

/// Reads one parameter to the host. It shares the parameter's values until it is dropped.
pub struct ParamReader {
    /// Shape of the parameter.
    pub shape: Vec<usize>,
    values: Source,
}

enum Source {
    Host(HostValues),
    Device(Box<dyn Fn() -> Result<HostTensor, ModelError>>),
}

impl ParamReader {
    fn new<const D: usize>(value: Tensor<D>) -> Self {
        let shape = value.dims().to_vec();
        let values = match host_values(&value) {
            Some(values) => Source::Host(values),
            None => Source::Device(Box::new(move || host(value.clone()))),
        };
        Self { shape, values }
    }

    /// The values, row-major: where they are, or copied from a device.
    ///
    /// # Errors
    /// [`ModelError::Device`] if the device cannot copy them to the host.
    pub fn values(&self) -> Result<Cow<'_, [f32]>, ModelError> {
        match &self.values {
            Source::Host(values) => Ok(Cow::Borrowed(values)),
            Source::Device(read) => Ok(Cow::Owned(read()?.values)),
        }
    }
}

/// One reader per selected parameter, by path: nothing is copied before it reads.
pub fn readers(model: &impl Module, which: ParamFilter) -> BTreeMap<String, ParamReader> {
    struct Gather {
        path: PathStack,
        which: ParamFilter,
        readers: BTreeMap<String, ParamReader>,
    }
    impl ModuleVisitor for Gather {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            if self.which.includes(value.is_require_grad()) {
                self.readers.insert(self.path.path(), ParamReader::new(value));
            }
        }
    }
    let mut gather = Gather { path: PathStack::default(), which, readers: BTreeMap::new() };
    model.visit(&mut gather);
    gather.readers
}

/// Reads a tensor of any shape to the host.
///
/// # Errors
/// [`ModelError::Device`] if the device cannot copy it to the host.
pub fn host<const D: usize>(tensor: Tensor<D>) -> Result<HostTensor, ModelError> {
    let shape = tensor.dims().to_vec();
    let failed = |error: &dyn std::fmt::Display| ModelError::Device(DeviceFailure::new(&error.to_string()));
    count_read(&tensor.device());
    let data = tensor.try_into_data().map_err(|error| failed(&error))?;
    let values = data.convert::<f32>().try_into_vec::<f32>().map_err(|error| failed(&format!("{error:?}")))?;
    Ok(HostTensor { shape, values })
}

/// Reads flat tensors to the host. A device is waited for once, however many there are.
///
/// # Errors
/// [`ModelError::Device`] if the device cannot copy them to the host.
pub fn host_all(tensors: Vec<Tensor<1>>) -> Result<Vec<Vec<f32>>, ModelError> {
    let failed = |problem: String| ModelError::Device(DeviceFailure::new(&problem));
    PendingRead::start(tensors).wait().map_err(failed)
}

/// Replaces the values of exactly the selected parameters by `saved` ones.
///
/// # Errors
/// [`ModelError::State`] if a parameter has no saved value, a saved value no parameter, or their shapes differ.
pub fn restore<M: Module>(
    model: M,
    which: ParamFilter,
    mut saved: BTreeMap<String, HostTensor>,
) -> Result<M, ModelError> {
    let wanted: Vec<ParamInfo> = list(&model).into_iter().filter(|info| which.includes(info.trains)).collect();
    let mut problems: Vec<String> = Vec::new();
    for info in &wanted {
        match saved.get(&info.path) {
            None => problems.push(format!("{}: expected {:?}, not in the file", info.path, info.shape)),
            Some(tensor) if tensor.shape != info.shape => {
                problems.push(format!("{}: expected {:?}, found {:?}", info.path, info.shape, tensor.shape));
            }
            Some(_) => {}
        }
    }
    for path in saved.keys().filter(|path| !wanted.iter().any(|info| info.path == **path)) {
        problems.push(format!("{path}: in the file, but not among the parameters that train"));
    }
    if !problems.is_empty() {
        return Err(ModelError::State { problems });
    }
    Ok(update(model, &mut Replace { saved: &mut saved }))
}

struct Replace<'a> {
    saved: &'a mut BTreeMap<String, HostTensor>,
}

impl ParamUpdate for Replace<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        match self.saved.remove(path) {
            Some(saved) => Tensor::from_data(TensorData::new(saved.values, saved.shape), &value.device()),
            None => value,
        }
    }
}

/// An update of parameters by path. Values are passed in and returned without gradients; a trainable parameter stays
/// trainable.
pub trait ParamUpdate {
    /// Returns the new value of the parameter at `path`.
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D>;
}

/// Applies `change` to every parameter of `model`.
pub fn update<M: Module>(model: M, change: &mut impl ParamUpdate) -> M {
    struct Updater<'a, U> {
        path: PathStack,
        change: &'a mut U,
    }
    impl<U: ParamUpdate> ModuleMapper for Updater<'_, U> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, value, mapper) = param.consume();
            let trains = value.is_require_grad();
            let changed = self.change.update(&self.path.path(), value.without_autodiff());
            let changed = if trains { changed.autodiff().require_grad() } else { changed };
            Param::from_mapped_value(id, changed, mapper)
        }
    }
    model.map(&mut Updater { path: PathStack::default(), change })
}
