//! Devices by name, and the precisions they compute in.

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Tensor};
use dualenc_data::{catch_of_all_threads, catch_quietly};
use dualenc_kernels::{bf16_instructions, with_bf16_products};
use dualenc_model::{DualEncoder, HostTensor, parameters};

use crate::config::{Precision, RunSection};
use crate::device_panics::device_is_open;
use crate::error::TrainError;
use crate::thread_pool::size_thread_pool;

/// Name of the CPU as tests open it that run on it what other devices run: state on the device, and, inside of
/// [`with_plain_forms`](dualenc_kernels::with_plain_forms), no kernels of ours.
#[cfg(all(test, feature = "flex"))]
pub(crate) const PLAIN: &str = "plain";

/// A device and its settings.
#[derive(Debug, Clone)]
pub struct Compute {
    /// The device, without autodiff.
    pub device: Device,
    /// Whether tensors are in host memory.
    pub on_host: bool,
    /// Threads of the CPU thread pool.
    pub threads: usize,
    /// Precision of the trainable part of a model.
    pub precision: Precision,
    /// Precision of locked towers.
    pub locked_precision: Precision,
}

/// Names of the devices that this build supports.
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
    if cfg!(feature = "cubecl-cpu") {
        names.push("cubecl-cpu");
    }
    if cfg!(feature = "cuda") {
        names.extend(["cuda", "cuda:N"]);
    }
    names
}

impl Compute {
    /// Opens the device called `name` and tests it with a small sum. `threads`: size of the CPU thread pool, default
    /// one per core; only the first use of the pool in a process can set it.
    ///
    /// # Errors
    /// [`TrainError::Device`] when the build lacks the backend, or the machine the device; [`TrainError::Usage`] when
    /// the pool exists already with another number of threads.
    pub fn select(name: &str, threads: Option<usize>) -> Result<Self, TrainError> {
        let fail =
            |reason: String| TrainError::Device { device: name.to_owned(), reason, available: available().join(", ") };
        let threads = size_thread_pool(threads)?;
        let device = by_name(name).ok_or_else(|| {
            let known =
                ["cpu", "ndarray", "wgpu", "vulkan", "cubecl-cpu", "cuda"].contains(&name) || name.starts_with("cuda:");
            fail(if known {
                let feature = name.split(':').next().unwrap_or(name);
                format!("this build does not support it (build with `--features {feature}`)")
            } else if name.contains(',') {
                "only `train` runs on several devices; name one".to_owned()
            } else {
                "unknown device".to_owned()
            })
        })?;
        #[cfg(feature = "cuda")]
        keep_kernels();
        let on_host = matches!(name, "cpu" | "ndarray");
        let compute = || Tensor::<1>::ones([4], &device).sum().into_scalar::<f32>();
        // A GPU is driven by threads of the backend, and the reason why it does not start is the panic of one of them.
        match if on_host { catch_quietly(compute) } else { catch_of_all_threads(compute) } {
            Ok(4.0) => {}
            Ok(sum) => return Err(fail(format!("it computes 1 + 1 + 1 + 1 = {sum}"))),
            Err(panic) => {
                return Err(fail(format!("it does not start ({})", panic.message)));
            }
        }
        if !on_host {
            device_is_open();
        }
        // With a GPU too: decoded images are as large as tensors.
        dualenc_kernels::keep_freed_memory();
        Ok(Self { device, on_host, threads, precision: Precision::F32, locked_precision: Precision::F32 })
    }

    /// The same device with the precisions of `run.precision` and `run.locked_precision`.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when the device does not support one of them.
    pub fn computing_as(self, run: &RunSection) -> Result<Self, TrainError> {
        self.computing_with(run, bf16_instructions())
    }

    /// The same on a processor with these instructions for products in bf16.
    fn computing_with(self, run: &RunSection, instructions: Option<&str>) -> Result<Self, TrainError> {
        let supports = |precision: &Precision| self.device.supports_dtype(dtype(*precision));
        for (key, precision) in [("precision", run.precision), ("locked_precision", run.locked_precision)] {
            if !supports(&precision) {
                let supported = [Precision::F32, Precision::F16, Precision::Bf16].into_iter().filter(supports);
                let names: Vec<String> = supported.map(|precision| format!("`{}`", precision.name())).collect();
                return Err(TrainError::Usage(format!(
                    "`run.{key}` is `{}`, which the device `{}` does not support; it supports {}",
                    precision.name(),
                    run.device.first(),
                    names.join(", ")
                )));
            }
        }
        for (key, precision) in [("precision", run.precision), ("locked_precision", run.locked_precision)] {
            if self.on_host && precision == Precision::Bf16 && instructions.is_none() {
                return Err(TrainError::Usage(format!(
                    "`run.{key}` is `bf16`, which the device `{}` computes with instructions that this processor \
                     lacks: AMX-BF16 (Intel Xeon, from Sapphire Rapids on, and Linux) or AVX512_BF16 (AMD, from Zen 4 \
                     on, and some Intel processors); set it to `f32`, or compute on a GPU",
                    run.device.first()
                )));
            }
        }
        Ok(Self { precision: run.precision, locked_precision: run.locked_precision, ..self })
    }

    /// Whether locked towers keep their activations in f32, and round only the factors of products, to bf16: so they
    /// are computed on the CPU, where these products are the only instructions for bf16.
    pub(crate) fn rounds_factors(&self) -> bool {
        self.on_host && self.locked_precision == Precision::Bf16
    }

    /// The element type of the activations of locked towers.
    pub(crate) fn locked_dtype(&self) -> FloatDType {
        if self.rounds_factors() { FloatDType::F32 } else { dtype(self.locked_precision) }
    }

    /// The name of the arithmetic of locked towers, for the keys of their features. Other arithmetic has another name.
    pub(crate) fn locked_arithmetic(&self) -> &'static str {
        if self.rounds_factors() { "bf16 factors of f32 sums 2" } else { self.locked_precision.name() }
    }

    /// Whether what trains keeps its activations in f32, and rounds only the factors of the products of linear layers
    /// and MLPs, to bf16, as [`rounds_factors`](Self::rounds_factors).
    pub(crate) fn trains_with_rounded_factors(&self) -> bool {
        self.on_host && self.precision == Precision::Bf16
    }

    /// The element type of the activations of what trains.
    pub(crate) fn trained_dtype(&self) -> FloatDType {
        if self.trains_with_rounded_factors() { FloatDType::F32 } else { dtype(self.precision) }
    }

    /// `model` as the forward pass of training reads it, in [`Compute::training`].
    pub(crate) fn as_trained(&self, model: &DualEncoder) -> DualEncoder {
        if self.trains_with_rounded_factors() { model.clone() } else { cast(model.clone(), self.precision) }
    }

    /// Runs `forward`, a forward pass of what trains, in the precision of training; its backward pass follows.
    pub fn training<T>(&self, forward: impl FnOnce() -> T) -> T {
        if self.trains_with_rounded_factors() { with_bf16_products(forward) } else { forward() }
    }
}

/// Converts the parameters of `module` to `precision`.
pub(crate) fn cast<M: Module>(module: M, precision: Precision) -> M {
    match precision {
        Precision::F32 => module,
        _ => parameters::cast(module, dtype(precision)),
    }
}

/// Reads the value of a tensor `[1]`.
///
/// # Errors
/// [`TrainError::Model`] when the device cannot return it.
pub(crate) fn read_scalar(tensor: Tensor<1>) -> Result<f64, TrainError> {
    let HostTensor { shape, values } = parameters::host(tensor.without_autodiff())?;
    match values[..] {
        [value] => Ok(f64::from(value)),
        _ => Err(TrainError::Internal(format!("expected a tensor of one value, found shape {shape:?}"))),
    }
}

/// The tensor element type of a precision.
pub(crate) fn dtype(precision: Precision) -> FloatDType {
    match precision {
        Precision::F32 => FloatDType::F32,
        Precision::F16 => FloatDType::F16,
        Precision::Bf16 => FloatDType::BF16,
    }
}

/// Keeps compiled and tuned kernels in the user's cache directory, where the next process finds them. Has an effect
/// before the first use of a GPU. The other settings are those of a `cubecl.toml` in this directory or above it.
#[cfg(feature = "cuda")]
fn keep_kernels() {
    use cubecl::config::cache::CacheConfig;
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    // The default is the `target` directory of a Rust project around the current directory.
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Global;
    }
    CubeClRuntimeConfig::try_set(config);
}

#[cfg_attr(feature = "ndarray", expect(deprecated, reason = "Burn's older CPU backend, available on request"))]
fn by_name(name: &str) -> Option<Device> {
    match name {
        #[cfg(feature = "flex")]
        "cpu" => Some(Device::flex()),
        #[cfg(all(feature = "ndarray", not(feature = "flex")))]
        "cpu" => Some(Device::ndarray()),
        #[cfg(all(test, feature = "flex"))]
        PLAIN => Some(Device::flex()),
        #[cfg(feature = "ndarray")]
        "ndarray" => Some(Device::ndarray()),
        #[cfg(feature = "wgpu-untuned")]
        "wgpu" => Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
        // Burn's kernels for GPUs on the CPU, for tests: a thousand times slower than `cpu`.
        #[cfg(feature = "cubecl-cpu")]
        "cubecl-cpu" => Some(Device::cpu()),
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
    #[cfg(feature = "flex")]
    use std::path::Path;

    use super::*;
    #[cfg(feature = "flex")]
    use crate::config::RunConfig;

    #[cfg(feature = "flex")]
    #[test]
    fn refuses_another_number_of_threads() {
        // The tests share a process. Its pool has some size from here on.
        let size = rayon::current_num_threads();
        assert_eq!(Compute::select("cpu", Some(size)).unwrap().threads, size);
        assert_eq!(Compute::select("cpu", None).unwrap().threads, size);
        let text = Compute::select("cpu", Some(size + 1)).unwrap_err().to_string();
        let expected = format!("`run.threads` is {}, but this process computes with {size} threads", size + 1);
        assert!(text.starts_with(&expected), "{text}");
    }

    #[cfg(feature = "flex")]
    #[test]
    fn bf16_needs_instructions() {
        let text = "run = { dir = \"r\", locked_precision = \"bf16\" }\n\
                    model = { image_tower = \"./vit\", text_tower = \"./bert\" }\n\
                    data = { train = { folder = { path = \"pairs\" } } }\n\
                    train = { epochs = 1, batch_size = 8, learning_rate = 1e-3 }";
        let config = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
            RunConfig::from_bytes(text.as_bytes(), Path::new("run.toml"), Path::new("/p"), &sets).unwrap().run
        };
        let cpu = || Compute::select("cpu", None).unwrap();
        let text = cpu().computing_with(&config(&[]), None).unwrap_err().to_string();
        assert_eq!(
            text,
            "`run.locked_precision` is `bf16`, which the device `cpu` computes with instructions that this processor \
             lacks: AMX-BF16 (Intel Xeon, from Sapphire Rapids on, and Linux) or AVX512_BF16 (AMD, from Zen 4 on, and \
             some Intel processors); set it to `f32`, or compute on a GPU"
        );
        for set in ["run.locked_precision=f32", "run.locked_precision=f16"] {
            let compute = cpu().computing_with(&config(&[set]), None).unwrap();
            assert!(!compute.rounds_factors());
        }
        let host = cpu().computing_with(&config(&[]), Some("AMX")).unwrap();
        assert!(host.rounds_factors());
        assert_eq!(host.locked_dtype(), FloatDType::F32);
        // What trains has a precision of its own.
        assert!(!host.trains_with_rounded_factors());
        let trains = config(&["run.precision=bf16", "run.locked_precision=f32"]);
        let text = cpu().computing_with(&trains, None).unwrap_err().to_string();
        assert!(text.starts_with("`run.precision` is `bf16`, which the device `cpu` computes with"), "{text}");
        let trains = cpu().computing_with(&trains, Some("AMX")).unwrap();
        assert!(trains.trains_with_rounded_factors() && !trains.rounds_factors());
        assert_eq!((trains.trained_dtype(), trains.locked_arithmetic()), (FloatDType::F32, "f32"));
        let on_device = Compute { on_host: false, ..trains };
        assert_eq!(on_device.trained_dtype(), FloatDType::BF16);
        // A device computes in bf16 throughout, on every processor.
        let device = Compute { on_host: false, ..cpu() }.computing_with(&config(&[]), None).unwrap();
        assert!(!device.rounds_factors());
        assert_eq!(device.locked_dtype(), FloatDType::BF16);
        // Both are part of the keys of features.
        assert_eq!(
            [&host, &device, &cpu()].map(Compute::locked_arithmetic),
            ["bf16 factors of f32 sums 2", "bf16", "f32"]
        );
    }

    #[test]
    fn unknown_device_lists_available_ones() {
        let message = |name| Compute::select(name, None).map(drop).unwrap_err().to_string();
        assert_eq!(
            message("tpu"),
            format!("device `tpu` cannot be used: unknown device; devices of this build: {}", available().join(", "))
        );
        #[cfg(not(feature = "cuda"))]
        assert!(message("cuda:1").contains("this build does not support it (build with `--features cuda`)"));
        #[cfg(not(feature = "cubecl-cpu"))]
        assert!(message("cubecl-cpu").contains("this build does not support it (build with `--features cubecl-cpu`)"));
    }
}
