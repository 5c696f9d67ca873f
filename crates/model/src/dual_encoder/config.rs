//! The `config.json` of a whole model: the reference's `VisionTextDualEncoderConfig`.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::dual_encoder::model::LOGIT_SCALE_INIT;
use crate::error::ModelError;
use crate::pretrained::build::read_config;
use crate::pretrained::whole_models::{Composite, DUAL_ENCODER_TYPE, Side};

/// The reference's default width of the shared space.
const PROJECTION_DIM: usize = 512;

/// What a `VisionTextDualEncoder` is made of. Absent keys have the defaults of transformers 5.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct DualEncoderConfig {
    /// Width of the shared space.
    #[serde(default = "projection_dim")]
    pub projection_dim: usize,
    /// Initial `logit_scale`, a logarithm.
    #[serde(default = "logit_scale_init_value")]
    pub logit_scale_init_value: f64,
    /// The `config.json` of the image tower.
    #[serde(default)]
    pub vision_config: Value,
    /// The `config.json` of the text tower.
    #[serde(default)]
    pub text_config: Value,
}

fn projection_dim() -> usize {
    PROJECTION_DIM
}

fn logit_scale_init_value() -> f64 {
    LOGIT_SCALE_INIT
}

impl DualEncoderConfig {
    /// Two towers by their `config.json`s, with the reference's other defaults.
    pub fn new(vision_config: Value, text_config: Value) -> Self {
        Self { projection_dim: PROJECTION_DIM, logit_scale_init_value: LOGIT_SCALE_INIT, vision_config, text_config }
    }

    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// When it cannot be read, or is not that of a `VisionTextDualEncoder`.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        let (path, json) = read_config(dir.as_ref())?;
        let problem = |problem| ModelError::Config { path: path.clone(), problem };
        let found = &json["model_type"];
        let composite = Composite::of(&json)
            .filter(|_| found == DUAL_ENCODER_TYPE)
            .ok_or_else(|| problem(format!("`model_type` is {found}; expected \"{DUAL_ENCODER_TYPE}\"")))?;
        let config = Self::deserialize(&json).map_err(|error| problem(error.to_string()))?;
        Ok(Self {
            vision_config: composite.tower_config(&json, Side::Image),
            text_config: composite.tower_config(&json, Side::Text),
            ..config
        })
    }

    /// The object that a `config.json` holds, as `from_pretrained` of transformers reads it. Weights are written as f32.
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["VisionTextDualEncoderModel"],
            "model_type": DUAL_ENCODER_TYPE,
            "projection_dim": self.projection_dim,
            "logit_scale_init_value": self.logit_scale_init_value,
            "dtype": "float32",
            "vision_config": self.vision_config,
            "text_config": self.text_config,
        })
    }
}
