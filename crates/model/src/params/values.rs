//! Walking a model's parameters by path: reading them out, putting saved ones back, hashing, counting.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};

use crate::error::ModelError;
use crate::weights::weight_files::HostTensor;

/// Which parameters a walk is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Every one.
    All,
    /// Those that train.
    Trainable,
    /// Those that never change.
    Locked,
}

impl Which {
    fn includes(self, trains: bool) -> bool {
        match self {
            Self::All => true,
            Self::Trainable => trains,
            Self::Locked => !trains,
        }
    }
}

/// Names of the tensors that are kept with the parameters but are none: statistics of batch norms, and tokens that only
/// masked pretraining uses. They never train.
const BUFFERS: [&str; 4] = ["running_mean", "running_var", "num_batches_tracked", "mask_token"];

/// Whether what lies at `path` is a buffer: it stays outside of the gradient graph even where its tower trains.
pub fn is_buffer(path: &str) -> bool {
    BUFFERS.contains(&path.rsplit('.').next().unwrap_or(path))
}

/// What is known of a parameter without reading its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamInfo {
    /// Such as `text_tower.encoder.blocks.0.mlp.up.weight`.
    pub path: String,
    /// As the model holds it.
    pub shape: Vec<usize>,
    /// Whether it trains.
    pub trains: bool,
}

/// Every parameter of `model`, in the order of its fields.
pub fn list(model: &impl Module) -> Vec<ParamInfo> {
    struct List(PathStack, Vec<ParamInfo>);
    impl ModuleVisitor for List {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.0.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            let info = ParamInfo { path: self.0.path(), shape: value.dims().to_vec(), trains: value.is_require_grad() };
            self.1.push(info);
        }
    }
    let mut list = List(PathStack::default(), Vec::new());
    model.visit(&mut list);
    list.1
}

/// How many values the parameters of `model` have; buffers are none. Only shapes are asked for, so that what is lazy stays so.
pub fn count(model: &impl Module) -> usize {
    struct Count(PathStack, usize);
    impl ModuleVisitor for Count {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.0.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !is_buffer(&self.0.path()) {
                self.1 += param.lazy_shape().num_elements();
            }
        }
    }
    let mut count = Count(PathStack::default(), 0);
    model.visit(&mut count);
    count.1
}

/// Whether any parameter of `model` trains.
pub fn any_trains(model: &impl Module) -> bool {
    struct Any(bool);
    impl ModuleVisitor for Any {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 = self.0 || param.val().is_require_grad();
        }
    }
    let mut any = Any(false);
    model.visit(&mut any);
    any.0
}

/// The values of the parameters asked for, by path.
///
/// # Errors
/// When the device cannot hand its data over.
pub fn collect(model: &impl Module, which: Which) -> Result<BTreeMap<String, HostTensor>, ModelError> {
    let read = |(path, read): (String, Read)| read().map(|tensor| (path, tensor));
    readers(model, which).into_iter().map(read).collect()
}

/// Reads one parameter to the host.
type Read = Box<dyn FnOnce() -> Result<HostTensor, ModelError>>;

/// How to read each of the parameters asked for, by path: nothing is copied before it is wanted.
fn readers(model: &impl Module, which: Which) -> BTreeMap<String, Read> {
    struct Gather(PathStack, Which, BTreeMap<String, Read>);
    impl ModuleVisitor for Gather {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.0.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            if self.1.includes(value.is_require_grad()) {
                let path = self.0.path();
                let failed = move |error| ModelError::State { problems: vec![format!("{path}: {error}")] };
                self.2.insert(self.0.path(), Box::new(|| host(value).map_err(failed)));
            }
        }
    }
    let mut gather = Gather(PathStack::default(), which, BTreeMap::new());
    model.visit(&mut gather);
    gather.2
}

/// Reads any tensor to the host.
///
/// # Errors
/// When the device cannot hand its data over.
pub fn host<const D: usize>(tensor: Tensor<D>) -> Result<HostTensor, ModelError> {
    let shape = tensor.dims().to_vec();
    let read =
        |error: &dyn std::fmt::Display| ModelError::Input(format!("the device did not hand over a tensor: {error}"));
    let data = tensor.try_into_data().map_err(|error| read(&error))?;
    let values = data.convert::<f32>().try_into_vec::<f32>().map_err(|error| read(&format!("{error:?}")))?;
    Ok(HostTensor { shape, values })
}

/// Puts saved values into exactly the parameters that `which` names.
///
/// # Errors
/// When a parameter has no saved value, a saved value no parameter, or the shapes differ; nothing is changed then.
pub fn restore<M: Module>(model: M, which: Which, mut saved: BTreeMap<String, HostTensor>) -> Result<M, ModelError> {
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
    Ok(update(model, &mut Replace(&mut saved)))
}

struct Replace<'a>(&'a mut BTreeMap<String, HostTensor>);

impl ParamUpdate for Replace<'_> {
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D> {
        match self.0.remove(path) {
            Some(saved) => Tensor::from_data(TensorData::new(saved.values, saved.shape), &value.device()),
            None => value,
        }
    }
}

/// A change of parameters by path. Values come and go without gradient; what trains goes on training.
pub trait ParamUpdate {
    /// The new value of the parameter at `path`.
    fn update<const D: usize>(&mut self, path: &str, value: Tensor<D>) -> Tensor<D>;
}

/// Applies `change` to every parameter of `model`.
pub fn update<M: Module>(model: M, change: &mut impl ParamUpdate) -> M {
    struct Map<'a, U>(PathStack, &'a mut U);
    impl<U: ParamUpdate> ModuleMapper for Map<'_, U> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.0.exit(container);
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, value, mapper) = param.consume();
            let trains = value.is_require_grad();
            let changed = self.1.update(&self.0.path(), value.without_autodiff());
            let changed = if trains { changed.autodiff().require_grad() } else { changed };
            Param::from_mapped_value(id, changed, mapper)
        }
    }
    model.map(&mut Map(PathStack::default(), change))
}

/// `module` with parameters that hold nothing.
#[must_use]
pub fn hollow<M: Module>(module: &M) -> M {
    struct Hollow;
    impl ModuleMapper for Hollow {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, value, mapper) = param.consume();
            let device = value.device().without_autodiff();
            Param::from_mapped_value(id, Tensor::from_data(TensorData::new(Vec::<f32>::new(), [0; D]), &device), mapper)
        }
    }
    module.clone().map(&mut Hollow)
}

/// Takes every parameter of `module` out of the gradient graph: it then never changes.
pub fn lock<M: Module>(module: M) -> M {
    lock_unless(module, |_| false)
}

/// Puts every parameter of `module` into the gradient graph: it then trains. Buffers stay outside.
pub fn unlock<M: Module>(module: M) -> M {
    lock_unless(module, |_| true)
}

/// Puts those parameters of `module` into the gradient graph whose paths `trains` holds for, and all others out of it. Buffers
/// never train.
pub fn lock_unless<M: Module>(module: M, trains: impl Fn(&str) -> bool) -> M {
    struct Relock<F>(PathStack, F);
    impl<F: Fn(&str) -> bool> ModuleMapper for Relock<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.0.exit(container);
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let path = self.0.path();
            let trains = !is_buffer(&path) && (self.1)(&path);
            let (id, value, mapper) = param.consume();
            let value = value.without_autodiff();
            let value = if trains { value.autodiff().require_grad() } else { value };
            Param::from_mapped_value(id, value, mapper)
        }
    }
    module.map(&mut Relock(PathStack::default(), trains))
}

/// `module` with its parameters in another precision. Gradients still go to those of `module`, in theirs.
pub fn cast<M: Module>(module: M, precision: FloatDType) -> M {
    struct Cast(FloatDType);
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, value, _) = param.consume();
            Param::initialized(id, value.cast(self.0))
        }
    }
    module.map(&mut Cast(precision))
}

/// `module` with the same values, of which no graph is recorded. Units still drop out where they do while it trains.
pub fn untracked<M: Module>(module: M) -> M {
    struct Untrack;
    impl ModuleMapper for Untrack {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, value, mapper) = param.consume();
            let trains = value.is_require_grad();
            let value = if trains { value.without_autodiff().autodiff() } else { value };
            Param::from_mapped_value(id, value, mapper)
        }
    }
    module.map(&mut Untrack)
}

/// A trainable `[1]` parameter of this value.
pub fn scalar(value: f64, device: &Device) -> Param<Tensor<1>> {
    Param::from_tensor(Tensor::from_data([value as f32], &device.clone().autodiff()))
}

/// blake3 over path, shape and f32 bits of the parameters asked for; in order of their paths.
///
/// # Errors
/// When the device cannot hand its data over.
pub fn fingerprint(model: &impl Module, which: Which) -> Result<String, ModelError> {
    fingerprints(model, which, [""]).map(|[whole]| whole)
}

/// The fingerprints of the parts of `model` whose paths start with each of `prefixes`, as if each were a model of its own:
/// paths count from there. Every parameter is read once, however many parts it belongs to.
///
/// # Errors
/// When the device cannot hand its data over.
pub fn fingerprints<const N: usize>(
    model: &impl Module,
    which: Which,
    prefixes: [&str; N],
) -> Result<[String; N], ModelError> {
    let mut hashers = prefixes.map(|prefix| (prefix, blake3::Hasher::new()));
    for (path, read) in readers(model, which) {
        let HostTensor { shape, values } = read()?;
        let bits: Vec<u32> = match cfg!(target_endian = "little") {
            true => bytemuck::allocation::cast_vec(values),
            false => values.iter().map(|value| value.to_bits().to_le()).collect(),
        };
        for (prefix, hasher) in &mut hashers {
            let Some(path) = path.strip_prefix(*prefix) else { continue };
            hasher.update(path.as_bytes());
            for size in &shape {
                hasher.update(&(*size as u64).to_le_bytes());
            }
            hasher.update_rayon(bytemuck::cast_slice(&bits));
        }
    }
    Ok(hashers.map(|(_, hasher)| hasher.finalize().to_hex().to_string()))
}

/// The names of the fields that a walk is inside of. Which variant an enum holds is no part of a path.
#[derive(Debug, Default)]
pub struct PathStack(Vec<String>);

impl PathStack {
    /// For `enter_module` of a visitor or mapper.
    pub fn enter(&mut self, name: &str, container: &str) {
        if !is_enum(container) {
            self.0.push(name.to_owned());
        }
    }

    /// For `exit_module`.
    pub fn exit(&mut self, container: &str) {
        if !is_enum(container) {
            self.0.pop();
        }
    }

    /// Where the walk is.
    pub fn path(&self) -> String {
        self.0.join(".")
    }
}

/// How Burn's derive names the container of a variant.
fn is_enum(container: &str) -> bool {
    container.starts_with("Enum:")
}
