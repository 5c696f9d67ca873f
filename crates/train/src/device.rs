//! From a device's name to a device. The same code runs on all of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Tensor};
use dualenc_model::{DualEncoder, HostTensor, ModelError, parameters};

use crate::config::{Precision, RunSection};
use crate::error::TrainError;

/// A device with what the code around it needs to know.
#[derive(Debug, Clone)]
pub struct Compute {
    /// Without autodiff.
    pub device: Device,
    /// Whether tensors live in the host's memory.
    pub on_host: bool,
    /// Threads of the CPU's thread pool.
    pub threads: usize,
    /// What the trainable part of a model computes in.
    pub precision: Precision,
    /// What locked towers compute in.
    pub locked_precision: Precision,
}

/// Names that this build knows.
pub fn available() -> Vec<&'static str> {
    let mut names = Vec::new();
    if cfg!(any(feature = "flex", feature = "ndarray")) {
        names.push("cpu");
    }
    if cfg!(feature = "ndarray") {
        names.push("ndarray");
    }
    if cfg!(feature = "wgpu-untuned") {
        names.push("wgpu");
    }
    if cfg!(feature = "vulkan") {
        names.push("vulkan");
    }
    if cfg!(feature = "cuda") {
        names.extend(["cuda", "cuda:N"]);
    }
    names
}

impl Compute {
    /// The device called `name`, tried out with one small sum.
    ///
    /// # Errors
    /// When the build lacks the backend, or the machine the device.
    pub fn select(name: &str, threads: Option<usize>) -> Result<Self, TrainError> {
        let fail =
            |reason: String| TrainError::Device { device: name.to_owned(), reason, available: available().join(", ") };
        if let Some(threads) = threads {
            // Fails only where the pool was made before, whose size then stands.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        }
        let device = by_name(name).ok_or_else(|| {
            let known = ["cpu", "ndarray", "wgpu", "vulkan", "cuda"].contains(&name) || name.starts_with("cuda:");
            fail(match known {
                true => {
                    format!("this build lacks it (build with `--features {}`)", name.split(':').next().unwrap_or(name))
                }
                false => "there is no device of that name".to_owned(),
            })
        })?;
        let works = catch_unwind(AssertUnwindSafe(|| Tensor::<1>::ones([4], &device).sum().into_scalar::<f32>()));
        match works {
            Ok(4.0) => {}
            Ok(sum) => return Err(fail(format!("it computes 1 + 1 + 1 + 1 = {sum}"))),
            Err(panic) => {
                let said = panic.downcast_ref::<String>().cloned();
                let said = said.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
                return Err(fail(format!(
                    "it does not start ({})",
                    said.unwrap_or_else(|| "no reason given".to_owned())
                )));
            }
        }
        let on_host = matches!(name, "cpu" | "ndarray");
        if on_host {
            dualenc_kernels::keep_freed_memory();
        }
        let threads = rayon::current_num_threads();
        Ok(Self { device, on_host, threads, precision: Precision::F32, locked_precision: Precision::F32 })
    }

    /// The same device, computing in what a run asks for.
    ///
    /// # Errors
    /// When the device does not compute in that.
    pub fn computing_as(self, run: &RunSection) -> Result<Self, TrainError> {
        let has = |precision: &Precision| self.device.supports_dtype(dtype(*precision));
        for (key, precision) in [("precision", run.precision), ("locked_precision", run.locked_precision)] {
            if !has(&precision) {
                let all = [Precision::F32, Precision::F16, Precision::Bf16].into_iter().filter(has);
                let known: Vec<String> = all.map(|precision| format!("`{}`", precision.name())).collect();
                return Err(TrainError::Usage(format!(
                    "`run.{key}` is `{}`, which the device `{}` does not compute in; it has {}",
                    precision.name(),
                    run.device,
                    known.join(", ")
                )));
            }
        }
        Ok(Self { precision: run.precision, locked_precision: run.locked_precision, ..self })
    }

    /// What trains, or runs as it would: `model` in the precision of training.
    pub(crate) fn as_trained(&self, model: &DualEncoder) -> DualEncoder {
        cast(model.clone(), self.precision)
    }
}

/// `module` in this precision.
pub(crate) fn cast<M: Module>(module: M, precision: Precision) -> M {
    match precision {
        Precision::F32 => module,
        _ => parameters::cast(module, dtype(precision)),
    }
}

/// The value of a tensor `[1]`.
///
/// # Errors
/// [`TrainError::Model`] when the device cannot return it.
pub(crate) fn read_scalar(tensor: Tensor<1>) -> Result<f64, TrainError> {
    let HostTensor { shape, values } = parameters::host(tensor.without_autodiff())?;
    match values[..] {
        [value] => Ok(f64::from(value)),
        _ => Err(ModelError::Input(format!("expected a tensor of one value, found the shape {shape:?}")).into()),
    }
}

/// As tensors call it.
pub(crate) fn dtype(precision: Precision) -> FloatDType {
    match precision {
        Precision::F32 => FloatDType::F32,
        Precision::F16 => FloatDType::F16,
        Precision::Bf16 => FloatDType::BF16,
    }
}

#[cfg_attr(feature = "ndarray", expect(deprecated, reason = "Burn's older CPU backend, kept for those who ask for it"))]
fn by_name(name: &str) -> Option<Device> {
    match name {
        #[cfg(feature = "flex")]
        "cpu" => Some(Device::flex()),
        #[cfg(all(feature = "ndarray", not(feature = "flex")))]
        "cpu" => Some(Device::ndarray()),
        #[cfg(feature = "ndarray")]
        "ndarray" => Some(Device::ndarray()),
        #[cfg(feature = "wgpu-untuned")]
        "wgpu" => Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "cuda")]
        "cuda" => Some(Device::cuda(0)),
        #[cfg(feature = "cuda")]
        _ => name.strip_prefix("cuda:")?.parse::<usize>().ok().map(Device::cuda),
        #[cfg(not(feature = "cuda"))]
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_device_names_those_there_are() {
        let message = |name| Compute::select(name, None).map(drop).unwrap_err().to_string();
        assert_eq!(
            message("tpu"),
            format!(
                "device `tpu` cannot be used: there is no device of that name; this build and machine have: {}",
                available().join(", ")
            )
        );
        #[cfg(not(feature = "cuda"))]
        assert!(message("cuda:1").contains("this build lacks it (build with `--features cuda`)"));
    }
}
