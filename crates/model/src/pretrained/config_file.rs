//! The config of a directory: `config.json`, or open_clip's.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::dual_encoder::config::{DUAL_ENCODER_TYPE, DualEncoderConfig};
use crate::error::ModelError;
use crate::foreign_file::parse_json;
use crate::pretrained::open_clip;
use crate::pretrained::whole_models::{WholeModel, supported_types};
use crate::tower::Tower;
use crate::weights::without_weights::directory_hint;

/// Reads the config of `dir`, and returns it with its path. If `config.json` is missing or timm's, it is open_clip's.
///
/// # Errors
/// [`ModelError::NoConfig`] if there is none; [`ModelError::Read`] if it cannot be read; [`ModelError::Config`] if it
/// is malformed.
pub(crate) fn read_config(dir: &Path) -> Result<(PathBuf, Value), ModelError> {
    let path = dir.join("config.json");
    let read = || -> Result<Value, ModelError> {
        let bytes = fs::read(&path).map_err(|source| match source.kind() {
            ErrorKind::NotFound if dir.is_dir() => {
                ModelError::NoConfig { dir: dir.to_owned(), hint: directory_hint(dir) }
            }
            _ => ModelError::Read { path: path.clone(), source },
        })?;
        parse_json(&path, &bytes)
    };
    let config = read();
    if !config.as_ref().is_ok_and(|config| config["model_type"].is_string())
        && let Some(found) = open_clip::read_config(dir)?
    {
        return Ok(found);
    }
    let config = config?;
    if is_of_heads(&config) {
        let problem = format!("`model_type` is `{HEADS_TYPE}`: {HEADS_ALONE}");
        return Err(ModelError::Config { path, problem });
    }
    Ok((path, config))
}

/// The `model_type` of a directory with the heads of a model alone.
pub const HEADS_TYPE: &str = "dualenc-heads";

/// What such a directory lacks, and what to give instead.
const HEADS_ALONE: &str = "it has the heads of a model alone, without towers (an export with `--format heads`); give \
                           the run it was exported from, one of its checkpoints, or an export with `--format \
                           transformers`";

fn is_of_heads(config: &Value) -> bool {
    config["model_type"] == HEADS_TYPE
}

/// Refuses a directory with the heads of a model alone. Accepts every other one.
///
/// # Errors
/// [`ModelError::Config`].
pub fn refuse_heads_alone(dir: &Path) -> Result<(), ModelError> {
    let config = fs::read(dir.join("config.json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    match config.filter(is_of_heads) {
        Some(_) => read_config(dir).map(|_| ()),
        None => Ok(()),
    }
}

/// Whether `dir` holds a whole model: a VisionTextDualEncoder, CLIP, Chinese CLIP or SigLIP.
pub fn is_dual_encoder_dir(dir: &Path) -> bool {
    read_config(dir).is_ok_and(|(_, config)| WholeModel::of(&config).is_some())
}

/// The `model_type` of every supported kind of whole model, separated by commas, for messages.
pub fn dual_encoder_types() -> String {
    supported_types()
}

impl DualEncoderConfig {
    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// [`ModelError::Read`] if it cannot be read; [`ModelError::Config`] if it is malformed, or not that of a
    /// `VisionTextDualEncoder`.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        let (path, json) = read_config(dir.as_ref())?;
        let problem = |problem| ModelError::Config { path: path.clone(), problem };
        let found = &json["model_type"];
        let kind = WholeModel::of(&json)
            .filter(|_| found == DUAL_ENCODER_TYPE)
            .ok_or_else(|| problem(format!("`model_type` is {found}; expected \"{DUAL_ENCODER_TYPE}\"")))?;
        let config = Self::deserialize(&json).map_err(|error| problem(error.to_string()))?;
        Ok(Self {
            vision_config: kind.tower_config(&json, Tower::Image),
            text_config: kind.tower_config(&json, Tower::Text),
            ..config
        })
    }
}
