//! `[run]`: the run directory, the device and the numeric precision.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// is the fastest CPU backend of the build.
    ///
    /// Default: `"cpu"`.
    #[serde(default = "default::device")]
    pub device: String,
    /// Floating-point precision of the trainable part of the model: `f32` or `bf16`. With `bf16`, the parameters,
    /// optimiser moments, norms, softmax and loss stay in `f32`. The device must support it.
    ///
    /// Default: `"f32"`.
    #[serde(default)]
    pub precision: Precision,
    /// Floating-point precision of locked towers, weights included. The device must support it. Features are rounded by
    /// up to 2^-11 (`f16`) or 2^-8 (`bf16`) per value and operation, and `f16` overflows at 65504. `dualenc eval`,
    /// `embed` and `export` use `f32`.
    ///
    /// Default: `"f32"`.
    #[serde(default)]
    pub locked_precision: Precision,
    /// Number of CPU threads for tensor operations. A resumed run is bit-identical only with the same number of
    /// threads.
    ///
    /// Default: the number of CPU cores.
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
