//! The contrastive loss, the first value of its bias, and the teacher that it may be joined by.

use std::borrow::Cow;
use std::fmt;

use dualenc_model::LOGIT_SCALE_INIT;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::default;

/// A trained model of images and texts whose similarities a run imitates: distillation (MobileCLIP, arXiv:2311.17049,
/// sec. 3; CLIP-KD, arXiv:2307.12732). Its towers are locked, and their features cached like those of the run's own
/// locked towers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TeacherSection {
    /// The teacher: a run directory (its newest checkpoint), a checkpoint, the directory of a whole model
    /// (VisionTextDualEncoder, CLIP, SigLIP, open_clip), or the id of one on the Hugging Face hub. A resumed run
    /// refuses other weights; name a checkpoint of a run that still trains.
    pub model: String,
    /// Weight of the teacher's term, above 0 and at most 1: the loss is (1 - `weight`) times the contrastive loss plus
    /// `weight` times the divergence from the teacher.
    ///
    /// Default: `0.5`. MobileCLIP2 trains with 1 (arXiv:2508.20691).
    #[serde(default = "default::teacher_weight")]
    pub weight: f64,
    /// Factor of the teacher's cosine similarities, above 0. A larger one makes its softmax sharper.
    ///
    /// Default: `60.0` with `loss = "softmax"` (50 to 100 are usual); with `"sigmoid"` the teacher's own,
    /// `exp(logit_scale)`.
    pub scale: Option<f64>,
    /// Is added to the teacher's logits. For `loss = "sigmoid"` only.
    ///
    /// Default: the teacher's own `logit_bias`.
    pub bias: Option<f64>,
}

/// The word for [`LogitBiasInit::Auto`].
const AUTO: &str = "auto";

/// A contrastive loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Symmetric InfoNCE (CLIP, arXiv:2103.00020, fig. 3).
    #[default]
    Softmax,
    /// Pairwise sigmoid loss (SigLIP, arXiv:2303.15343, alg. 1).
    Sigmoid,
}

impl Loss {
    /// `model.logit_scale_init` of a new model.
    pub fn logit_scale_init(self) -> f64 {
        match self {
            Self::Softmax => LOGIT_SCALE_INIT,
            Self::Sigmoid => default::SIGMOID_LOGIT_SCALE_INIT,
        }
    }
}

/// A treatment of an image and another pair's caption if the data also list that caption for the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// They are positives, as the pair itself.
    #[default]
    Positives,
    /// They are left out of the loss.
    Mask,
    /// They are negatives, as in the reference.
    Ignore,
}

/// The initial `logit_bias` of the sigmoid loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LogitBiasInit {
    /// The log odds of a match in a batch.
    Auto,
    /// This value.
    Number(f64),
}

impl LogitBiasInit {
    /// The value for batches of `batch_size` pairs. A pair has one match among as many candidates, so that its log odds
    /// are -ln(`batch_size` - 1): with them, a model that cannot tell two pairs apart starts at the lowest loss.
    pub fn number(self, batch_size: usize) -> f64 {
        match self {
            Self::Number(number) => number,
            Self::Auto => -((batch_size.max(2) - 1) as f64).ln(),
        }
    }
}

impl Serialize for LogitBiasInit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str(AUTO),
            Self::Number(number) => serializer.serialize_f64(*number),
        }
    }
}

/// Written by hand: the errors of an untagged enum name no value.
impl<'de> Deserialize<'de> for LogitBiasInit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrAuto;
        impl Visitor<'_> for NumberOrAuto {
            type Value = LogitBiasInit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number or \"{AUTO}\"")
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
                Ok(LogitBiasInit::Number(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(LogitBiasInit::Number(number as f64))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(LogitBiasInit::Number(number as f64))
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Self::Value, E> {
                match word {
                    AUTO => Ok(LogitBiasInit::Auto),
                    _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
                }
            }
        }
        deserializer.deserialize_any(NumberOrAuto)
    }
}

impl JsonSchema for LogitBiasInit {
    fn schema_name() -> Cow<'static, str> {
        "LogitBiasInit".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "number" }, { "type": "string", "const": AUTO }] })
    }
}
