//! Which parameters are in the gradient graph, and in which precision.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};

use crate::params::inventory::is_buffer;
use crate::params::path::PathStack;

/// Freezes every parameter of `module`.
pub fn lock<M: Module>(module: M) -> M {
    lock_unless(module, |_| false)
}

/// Makes every parameter of `module` trainable, buffers excluded.
pub fn unlock<M: Module>(module: M) -> M {
    lock_unless(module, |_| true)
}

/// Makes a parameter of `module` trainable if `trains` returns true for its path, and freezes all others. Buffers are
/// always frozen.
pub fn lock_unless<M: Module>(module: M, trains: impl Fn(&str) -> bool) -> M {
    struct Relock<F> {
        path: PathStack,
        trains: F,
    }
    impl<F: Fn(&str) -> bool> ModuleMapper for Relock<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let path = self.path.path();
            let trains = !is_buffer(&path) && (self.trains)(&path);
            let (id, value, mapper) = param.consume();
            let value = value.without_autodiff();
            let value = if trains { value.autodiff().require_grad() } else { value };
            Param::from_mapped_value(id, value, mapper)
        }
    }
    module.map(&mut Relock { path: PathStack::default(), trains })
}

/// Converts the parameters of `module` to another precision. Gradients flow back to `module`, in its own precision.
pub fn cast<M: Module>(module: M, precision: FloatDType) -> M {
    struct Cast {
        precision: FloatDType,
    }
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, value, _) = param.consume();
            Param::initialized(id, value.cast(self.precision))
        }
    }
    module.map(&mut Cast { precision })
}

/// Detaches `module` from the graph: a forward pass records nothing. Dropout stays active where a parameter trains.
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

/// A copy of `module` with empty parameters, as a placeholder.
#[must_use]
pub fn placeholder<M: Module>(module: &M) -> M {
    struct Empty;
    impl ModuleMapper for Empty {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, value, mapper) = param.consume();
            let device = value.device().without_autodiff();
            Param::from_mapped_value(id, Tensor::from_data(TensorData::new(Vec::<f32>::new(), [0; D]), &device), mapper)
        }
    }
    module.clone().map(&mut Empty)
}

/// A trainable parameter of shape `[1]`.
pub fn scalar(value: f64, device: &Device) -> Param<Tensor<1>> {
    Param::from_tensor(Tensor::from_data([value as f32], &device.clone().autodiff()))
}
