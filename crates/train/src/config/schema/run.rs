//! `[run]`: where the run writes, and what it runs on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::default;

/// What floating-point numbers are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision (IEEE 754 binary32).
    #[default]
    F32,
    /// Half precision (IEEE 754 binary16).
    F16,
    /// The upper half of single precision (bfloat16).
    Bf16,
}

impl Precision {
    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

/// `[run]`: where the run writes, and what it runs on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSection {
    /// The run directory: `config.toml`, `metrics.jsonl` and `checkpoints/` are written there. Required.
    pub dir: PathBuf,
    /// Seed of the initial weights, the order of the samples and dropout. Default 42 (the seed of the reference's
    /// trainer, transformers `TrainingArguments.seed`).
    #[serde(default = "default::seed")]
    pub seed: u64,
    /// `cpu`, `ndarray`, `wgpu`, `vulkan`, `cuda` or `cuda:N`. Default `cpu`: the fastest CPU backend of the build.
    #[serde(default = "default::device")]
    pub device: String,
    /// What the trainable part of the model computes in: `f32`, or `bf16` with parameters, moments, norms, softmax and loss in
    /// f32; where the device has it. Default `f32`.
    #[serde(default)]
    pub precision: Precision,
    /// What locked towers compute in and are held in: `f32`, `f16` or `bf16`, where the device has it. Their features are then
    /// rounded (2^-11 or 2^-8 a value and operation); `f16` ends at 65504. `dualenc eval`, `embed` and `export` take them in
    /// f32. Default `f32`.
    #[serde(default)]
    pub locked_precision: Precision,
    /// CPU threads of the tensor operations. Default: as many as the machine has. A resumed run gives the same bits only
    /// with the same number.
    pub threads: Option<usize>,
    /// Steps between two plain progress lines; `metrics.jsonl` has every step whatever this says. Default 10
    /// (open_clip prints every 100 batches, of runs far longer than these).
    #[serde(default = "default::log_every_steps")]
    pub log_every_steps: u64,
}
