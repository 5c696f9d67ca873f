//! `[run]`: the run directory, the device and the numeric precision.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use dualenc_data::OneOrMany;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::default;

/// The run directory, the device and the numeric precision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSection {
    /// Run directory. `config.toml`, `metrics.jsonl` and `checkpoints/` are written to it.
    pub dir: PathBuf,
    /// Random seed of the initial weights, sample order, caption choice, augmentation and dropout.
    ///
    /// Default: `42` (`TrainingArguments.seed` of transformers, the reference's trainer).
    #[serde(default = "default::seed")]
    pub seed: u64,
    /// Compute device: `cpu`, `ndarray`, `wgpu`, `vulkan`, `cuda` or `cuda:N`, where `N` is the index of a GPU. `cpu`
    /// is the fastest CPU backend of the build. A list of devices of one kind, such as `["cuda:0", "cuda:1"]` or
    /// `"cuda:0,cuda:1"`, shares each batch of `dualenc train` between them: see `train.micro_batch_size`. Other
    /// commands use the first.
    ///
    /// Each of several processes (`mpirun -n N dualenc train`) has one device: `cpu` is its cores, `cuda` the GPU of
    /// its number on its machine. Of a list, which is then as long as the processes of a machine are many, it takes the
    /// entry of its number.
    ///
    /// Default: `"cpu"`.
    #[serde(default)]
    pub device: Devices,
    /// Floating-point precision of the trainable part of the model: `f32` or `bf16`. With `bf16`, the parameters,
    /// optimiser moments, norms, softmax and loss stay in `f32`. The device must support it. Evaluations compute what
    /// trains in `f32`.
    ///
    /// On the CPU, `bf16` rounds only the factors of the products of linear layers, forward and backward: inputs,
    /// weights and the gradients of outputs. Sums, biases, attention, activations and everything else stay in `f32`. It
    /// needs a processor with AMX (Intel Xeon, from Sapphire Rapids on, under Linux), where a training step takes half
    /// to two thirds of the time, or with AVX512_BF16 (AMD, from Zen 4 on), where it takes two thirds to four fifths.
    /// Intel processors that have AVX512_BF16 without AMX are slower than in `f32`. On others it is an error.
    ///
    /// Default: `"f32"`.
    #[serde(default)]
    pub precision: Precision,
    /// Floating-point precision of locked towers, weights included. The device must support it. On GPUs, features are
    /// rounded by up to 2^-11 (`f16`) or 2^-8 (`bf16`) per value and operation. `f16` overflows at 65504. `dualenc
    /// eval`, `embed` and `export` use `f32`.
    ///
    /// On the CPU, `bf16` rounds only the factors of products: weights, once, and the inputs of linear layers and of
    /// attention. Sums and everything else stay in `f32`. It needs a processor with AMX (Intel Xeon, from Sapphire
    /// Rapids on, under Linux), where a ViT takes a quarter to a third of the time, or with AVX512_BF16 (AMD, from Zen
    /// 4 on), where it takes about half. Intel processors that have AVX512_BF16 without AMX are slower than in `f32`.
    /// On others it is an error. `f16` works on every CPU, and is slower than `f32`.
    ///
    /// Default: `"f32"`.
    #[serde(default)]
    pub locked_precision: Precision,
    /// Number of CPU threads for tensor operations. A resumed run is bit-identical only with the same number of
    /// threads. It counts for all devices of a process together, and for each process of several.
    ///
    /// Default: the number of CPU cores. Processes of one machine divide the cores that they may run on.
    pub threads: Option<usize>,
    /// Interval between progress lines, plain or JSON, in steps. `metrics.jsonl` always has every step.
    ///
    /// Default: `10` (open_clip prints every 100 batches, in much longer runs).
    #[serde(default = "default::log_every_steps")]
    pub log_every_steps: u64,
    /// Whether to write a TensorBoard event file to the run directory, `events.out.tfevents.*`, with the numbers of
    /// `metrics.jsonl`, the warnings and the config. A resumed run writes it anew from `metrics.jsonl`, so it has each
    /// step once, also if the key was set in mid-run. `dualenc metrics` writes the same file for any run.
    ///
    /// Default: `false`.
    #[serde(default)]
    pub tensorboard: bool,
}

/// One device, or several that share each batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices(Vec<String>);

impl Devices {
    /// The first, which evaluates and writes.
    pub fn first(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// All of them: at least one.
    pub fn all(&self) -> &[String] {
        &self.0
    }

    /// The kind of all of them: `cuda` of `cuda:1`.
    pub(crate) fn kind(&self) -> &str {
        device_kind(self.first())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The kind of a device: `cuda` of `cuda:1`.
pub(crate) fn device_kind(device: &str) -> &str {
    device.split_once(':').map_or(device, |(kind, _)| kind)
}

impl Default for Devices {
    fn default() -> Self {
        Self(vec!["cpu".to_owned()])
    }
}

impl Display for Devices {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl Serialize for Devices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

/// Written by hand: the errors of an untagged enum do not say what is wrong.
impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let OneOrMany(items) = OneOrMany::<String>::deserialize(deserializer)?;
        let names = items.iter().flat_map(|item| item.split(','));
        Ok(Self(names.map(|name| name.trim().to_owned()).collect()))
    }
}

impl JsonSchema for Devices {
    fn schema_name() -> Cow<'static, str> {
        "Devices".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

/// A floating-point format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision (IEEE 754 binary32).
    #[default]
    F32,
    /// Half precision (IEEE 754 binary16). For locked towers only.
    F16,
    /// bfloat16: the upper half of single precision.
    Bf16,
}

impl Precision {
    /// The value in the TOML.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}
