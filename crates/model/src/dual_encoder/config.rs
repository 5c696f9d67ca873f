//! The config of a whole model: the reference's `VisionTextDualEncoderConfig`, and the initial values of its head.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::dual_encoder::heads::form::HeadForm;
use crate::dual_encoder::token_heads::form::TokenForm;

/// The `model_type` of the reference's dual encoder.
pub const DUAL_ENCODER_TYPE: &str = "vision-text-dual-encoder";

/// The initial `logit_scale` of CLIP: ln(1 / 0.07), rounded as in the reference (Radford et al., 2021, sec. 2.5).
pub const LOGIT_SCALE_INIT: f64 = 2.6592;

/// The heads and the temperature of a dual encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadConfig {
    /// Width of the shared space; 0 if the text head is the identity, so that the width follows from the text tower.
    pub embed_dim: usize,
    /// Initial `logit_scale`, as a logarithm.
    pub logit_scale: f64,
    /// Initial `logit_bias`, for the sigmoid loss; `None` for no bias.
    pub logit_bias: Option<f64>,
    /// The image head; `None`: that of the whole model that is read, or a plain linear one.
    pub image: Option<HeadForm>,
    /// The text head, likewise.
    pub text: Option<HeadForm>,
    /// What stands between the tokens of an image and the image head; `None`: the pooled output of the tower.
    pub image_tokens: Option<TokenForm>,
}

impl HeadConfig {
    /// Plain linear heads without a bias of the logits, as in the reference.
    pub const fn linear(embed_dim: usize, logit_scale: f64) -> Self {
        Self { embed_dim, logit_scale, logit_bias: None, image: None, text: None, image_tokens: None }
    }
}

/// Default width of the shared space (`projection_dim` of transformers 5).
const PROJECTION_DIM: usize = 512;

/// The `config.json` of a `VisionTextDualEncoder`. Absent keys have the defaults of transformers 5.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct DualEncoderConfig {
    /// Width of the shared space.
    #[serde(default = "projection_dim")]
    pub projection_dim: usize,
    /// Initial `logit_scale`, as a logarithm.
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
    /// A config from those of the two towers, with the defaults of transformers 5 for the rest.
    pub fn new(vision_config: Value, text_config: Value) -> Self {
        Self { projection_dim: PROJECTION_DIM, logit_scale_init_value: LOGIT_SCALE_INIT, vision_config, text_config }
    }

    /// The JSON object for a `config.json` that `from_pretrained` of transformers reads. Its `dtype` is float32.
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
