//! Paths, shapes and counts of a model's parameters, without reading values.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::params::path::PathStack;

/// Selects parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamFilter {
    /// All parameters.
    All,
    /// Trainable parameters.
    Trainable,
    /// Frozen parameters.
    Locked,
}

impl ParamFilter {
    pub(crate) fn includes(self, trains: bool) -> bool {
        match self {
            Self::All => true,
            Self::Trainable => trains,
            Self::Locked => !trains,
        }
    }
}

/// Names of buffers: tensors that are stored with the parameters and never train. They are the statistics of batch
/// norms, and tokens that only masked pretraining uses.
const BUFFERS: [&str; 4] = ["running_mean", "running_var", "num_batches_tracked", "mask_token"];

/// Whether the tensor at `path` is a buffer: it is frozen even in a tower that trains.
pub fn is_buffer(path: &str) -> bool {
    BUFFERS.contains(&path.rsplit('.').next().unwrap_or(path))
}

/// A parameter without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamInfo {
    /// Path in the model, such as `text_tower.encoder.blocks.0.mlp.up.weight`.
    pub path: String,
    /// Shape in the model.
    pub shape: Vec<usize>,
    /// Whether it trains.
    pub trains: bool,
}

/// Lists every parameter of `model`, in the order of its fields.
pub fn list(model: &impl Module) -> Vec<ParamInfo> {
    #[derive(Default)]
    struct List {
        path: PathStack,
        infos: Vec<ParamInfo>,
    }
    impl ModuleVisitor for List {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            let (path, shape) = (self.path.path(), value.dims().to_vec());
            self.infos.push(ParamInfo { path, shape, trains: value.is_require_grad() });
        }
    }
    let mut list = List::default();
    model.visit(&mut list);
    list.infos
}

/// Counts the values of all parameters of `model`, buffers excluded. Only shapes are read, so lazy parameters stay
/// lazy.
pub fn count(model: &impl Module) -> usize {
    #[derive(Default)]
    struct Count {
        path: PathStack,
        values: usize,
    }
    impl ModuleVisitor for Count {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !is_buffer(&self.path.path()) {
                self.values += param.lazy_shape().num_elements();
            }
        }
    }
    let mut count = Count::default();
    model.visit(&mut count);
    count.values
}

/// Whether any parameter of `model` trains.
pub fn any_trains(model: &impl Module) -> bool {
    struct AnyTrains {
        found: bool,
    }
    impl ModuleVisitor for AnyTrains {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found = self.found || param.val().is_require_grad();
        }
    }
    let mut any = AnyTrains { found: false };
    model.visit(&mut any);
    any.found
}
