//! A directory that transformers loads as VisionTextDualEncoderModel and VisionTextDualEncoderProcessor.

use std::path::Path;

use dualenc_model::{DualEncoderConfig, HostTensor};
use serde_json::{Value, json};

use crate::commands::export::head_limits::{HeadLimits, check_heads, check_tokens};
use crate::commands::export::json_files::write_json;
use crate::commands::export::obstacles::Obstacles;
use crate::commands::export::parts::{ModelParts, without_dtype, write_tensors};
use crate::commands::export::reference_limits::{DUAL_ENCODER, keep_image_config, keep_text_obstacles};
use crate::commands::export::routes::Routes;
use crate::commands::export::tokenizer_copy::copy_tokenizer;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::models::load::LoadedModel;
use crate::models::text_prompt::RECORDED;
use crate::stop_flag::StopFlag;

/// The file that makes a directory a model: written and moved last.
pub(crate) const CONFIG: &str = "config.json";

/// The image tower as the reference runs it.
pub(crate) struct ImagePart {
    config: Value,
    needs_identity_pooler: bool,
}

impl ImagePart {
    /// # Errors
    /// [`TrainError::Usage`] when VisionTextDualEncoder cannot compute what `loaded` does, with all that is in the way.
    pub fn new(loaded: &LoadedModel) -> Result<Self, TrainError> {
        let (model, mut obstacles) = (&loaded.model, Obstacles::default());
        obstacles.keep(check_tokens(model, DUAL_ENCODER))?;
        let image = keep_image_config(&model.image_tower, &loaded.image_config, &mut obstacles)?;
        keep_text_obstacles(&model.text_tower, &loaded.text_config, &mut obstacles)?;
        check_heads(model, HeadLimits::DualEncoder, Routes::new(loaded).is_ok(), &mut obstacles)?;
        obstacles.refuse(DUAL_ENCODER)?;
        let (config, needs_identity_pooler) =
            image.ok_or_else(|| TrainError::Internal("an image tower without a config".to_owned()))?;
        Ok(Self { config, needs_identity_pooler })
    }
}

/// Fills `dir`.
///
/// # Errors
/// [`TrainError::Write`] or [`TrainError::Read`]; [`TrainError::Stopped`] when `stop` is set.
pub(crate) fn write(
    loaded: &LoadedModel,
    image: ImagePart,
    dir: &Path,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let mut parts = ModelParts::new(loaded)?;
    if let Some(bias) = parts.logit_bias {
        observer.on(Event::Note(format!(
            "VisionTextDualEncoder has no `logit_bias`: {bias} is left out; it shifts all logits alike, so rankings \
             stay the same, but add it to the logits to get SigLIP's probabilities"
        )));
    }
    if image.needs_identity_pooler {
        let width = loaded.model.image_tower.width();
        parts.image.insert("pooler.dense.weight".to_owned(), HostTensor::identity(width));
        let bias = HostTensor { shape: vec![width], values: vec![0.0; width] };
        parts.image.insert("pooler.dense.bias".to_owned(), bias);
    }
    let config = DualEncoderConfig {
        projection_dim: loaded.model.embed_dim(),
        logit_scale_init_value: f64::from(parts.logit_scale),
        vision_config: without_dtype(image.config),
        text_config: without_dtype(loaded.text_config.clone()),
    };
    write_tensors(&dir.join("model.safetensors"), parts.into_dual_encoder()?, stop)?;
    let mut config = config.to_json();
    let prompt = loaded.tokenizer.prompt();
    if !prompt.is_empty() {
        observer.on(Event::Note(format!(
            "transformers puts no prompt before texts: pass each with {prompt:?} before it, as the model card says; \
             dualenc reads the prompt from `{RECORDED}` in `config.json`"
        )));
        config[RECORDED] = json!(prompt);
    }
    write_json(&dir.join(CONFIG), &config)?;
    write_json(&dir.join("preprocessor_config.json"), &loaded.processor.to_preprocessor_json())?;
    copy_tokenizer(loaded, dir)
}
