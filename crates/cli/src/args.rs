//! Options that several commands share, and what they load.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use dualenc_train::config::{Draft, RunConfig};
use dualenc_train::{Compute, LoadedModel, TrainError};

use crate::report::progress::Reporter;

/// The options of a command that runs a config.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Read the config from this TOML file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
    /// Override a config key (repeatable); an empty value removes the key
    ///
    /// The value is TOML; strings need no quotes. Relative paths are relative to the config file.
    ///
    /// Example: --set train.epochs=3 --set model.lock=LU
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Run on this device: cpu, ndarray, wgpu, vulkan, cuda or cuda:N; `train` also on several, such as cuda:0,cuda:1
    /// [default: `run.device`]
    #[arg(long, value_name = "DEVICE", value_parser = parse_device)]
    pub device: Option<String>,
}

impl ConfigArgs {
    /// Loads and validates the config with all overrides.
    pub fn load(&self) -> anyhow::Result<RunConfig> {
        Ok(RunConfig::load(&self.config, &self.all_overrides())?)
    }

    /// As [`ConfigArgs::load`], for a fit of the heads.
    pub fn load_for_fit(&self) -> anyhow::Result<RunConfig> {
        Ok(RunConfig::load_for_fit(&self.config, &self.all_overrides())?)
    }

    /// Loads the config with all overrides, as far as it can be read.
    pub fn load_draft(&self) -> anyhow::Result<Draft> {
        Ok(Draft::load(&self.config, &self.all_overrides())?)
    }

    fn all_overrides(&self) -> Vec<String> {
        let device = self.device.iter().map(|device| format!("run.device={device}"));
        self.overrides.iter().cloned().chain(device).collect()
    }
}

/// The options that name a model.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Load the model from this directory
    ///
    /// A run directory (its newest checkpoint), a single checkpoint, or a whole model in Hugging Face format
    /// (VisionTextDualEncoder, CLIP, SigLIP) or open_clip format.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub model: PathBuf,
    /// Use the best checkpoint of a run, by its `checkpoint.best`, instead of the newest
    #[arg(long)]
    pub best: bool,
}

impl ModelArgs {
    pub fn load(&self, compute: &Compute, reporter: &mut Reporter) -> Result<LoadedModel, TrainError> {
        load_model(&self.model, self.best, compute, reporter)
    }
}

/// The option that cuts embeddings.
#[derive(Debug, Clone, Copy, Args)]
pub struct DimArgs {
    /// Cut embeddings to their first N values, normalised again [default: all values]
    ///
    /// For models that were trained with this width: `train.matryoshka`.
    #[arg(long, value_name = "N", value_parser = parse_count, allow_negative_numbers = true)]
    pub dim: Option<usize>,
}

impl DimArgs {
    /// The model with embeddings of this width.
    pub fn cut(self, model: LoadedModel, reporter: &mut Reporter) -> Result<LoadedModel, TrainError> {
        match self.dim {
            Some(dim) => model.truncated(dim, reporter),
            None => Ok(model),
        }
    }
}

/// Loads the model in `dir`; of a run, its best or its newest checkpoint.
pub fn load_model(
    dir: &Path,
    best: bool,
    compute: &Compute,
    reporter: &mut Reporter,
) -> Result<LoadedModel, TrainError> {
    if best { LoadedModel::best_of(dir, compute, reporter) } else { LoadedModel::from_dir(dir, compute, reporter) }
}

/// Reads the names of devices. An empty value would remove the key, and the run would take the default.
pub fn parse_device(text: &str) -> Result<String, String> {
    let is_empty = text.trim().is_empty();
    if is_empty { Err("expected a device, such as `cpu` or `cuda:0`".to_owned()) } else { Ok(text.to_owned()) }
}

/// Reads a whole number of at least 1.
pub fn parse_count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&count| count > 0).ok_or_else(|| "expected a whole number of at least 1".to_owned())
}

/// Reads a number from 0 to 1.
pub fn parse_fraction(text: &str) -> Result<f64, String> {
    let fraction = text.parse().ok().filter(|fraction| (0.0..=1.0).contains(fraction));
    fraction.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}
