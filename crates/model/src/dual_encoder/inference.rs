//! A model that is used, not trained: the reference's interface under the reference's names.

use std::path::Path;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor};

use crate::dual_encoder::config::DualEncoderConfig;
use crate::dual_encoder::lock::{Lock, TowerLock};
use crate::dual_encoder::model::{DualEncoder, HeadConfig, LOGIT_SCALE_INIT, logits_per_text, normalize};
use crate::error::ModelError;
use crate::layers::linear::Dropout;
use crate::pretrained::build::{BuildOptions, TowerOptions, build_from_config, build_from_dual_encoder};
use crate::text::text_tower::TokenSequences;
use crate::vision::image_tower::TowerOutput;

/// What [`DualEncoder::forward`] gives: the reference's `CLIPOutput`, in its order.
#[derive(Debug, Clone)]
pub struct DualEncoderOutput {
    /// `[1]`: [`clip_loss`], where it was asked for.
    pub loss: Option<Tensor<1>>,
    /// `[images, texts]`: cosines times `exp(logit_scale)`.
    pub logits_per_image: Tensor<2>,
    /// `[texts, images]`, the same turned.
    pub logits_per_text: Tensor<2>,
    /// `[texts, dim]`, L2-normalised.
    pub text_embeds: Tensor<2>,
    /// `[images, dim]`, L2-normalised.
    pub image_embeds: Tensor<2>,
    /// What the text tower gave.
    pub text_model_output: TowerOutput,
    /// What the image tower gave.
    pub vision_model_output: TowerOutput,
}

impl BuildOptions {
    /// A whole model as it is: nothing trains, and what its directory lacks is an error instead of a random weight.
    pub fn evaluation() -> Self {
        Self {
            lock: Lock { image: TowerLock::Locked, text: TowerLock::Locked },
            image: TowerOptions::default(),
            text: TowerOptions::default(),
            image_projection_locked: true,
            text_projection_locked: true,
            head: HeadConfig { embed_dim: 0, logit_scale: LOGIT_SCALE_INIT, logit_bias: None },
            seed: 0,
        }
    }
}

impl DualEncoder {
    /// The model in the directory of a `VisionTextDualEncoder`, a CLIP, Chinese CLIP or SigLIP, on `device`, for
    /// evaluation: no dropout, no gradients.
    ///
    /// # Errors
    /// When the directory is none, a tower's family is not supported, or a tensor is missing or has another shape.
    /// Where the reference would draw a missing pooler at random at each load, this is an error.
    pub fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError> {
        Ok(build_from_dual_encoder(dir.as_ref(), &BuildOptions::evaluation(), device)?.model.valid())
    }

    /// A model of random weights, a function of `seed`; all of it trains.
    ///
    /// # Errors
    /// When a tower's family is not supported, or its config malformed.
    pub fn from_config(config: &DualEncoderConfig, seed: u64, device: &Device) -> Result<Self, ModelError> {
        build_from_config(config, seed, device)
    }

    /// Un-normalised projections of images, `[batch, 3, height, width]` (processed pixels) to `[batch, dim]`.
    ///
    /// The tensor that transformers 4 returns, and transformers 5 as `pooler_output`.
    pub fn get_image_features(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        self.image_features(pixel_values, &Dropout::off())
    }

    /// Un-normalised projections of texts, `[batch, dim]`.
    ///
    /// # Errors
    /// When a text has no tokens, more than the tower has positions, or an id that is not in its table.
    pub fn get_text_features(&self, tokens: &TokenSequences) -> Result<Tensor<2>, ModelError> {
        self.text_features(tokens, &Dropout::off())
    }

    /// Embeddings of images `[images, 3, height, width]` and of texts, and how they fit each other.
    ///
    /// With `return_loss`, image and text of the same place are a pair; there must be as many of the ones as of the
    /// others.
    ///
    /// # Errors
    /// As [`DualEncoder::get_text_features`], and when a loss is asked for and numbers differ.
    pub fn forward(
        &self,
        pixel_values: Tensor<4>,
        tokens: &TokenSequences,
        return_loss: bool,
    ) -> Result<DualEncoderOutput, ModelError> {
        let dropout = Dropout::off();
        let text_model_output = self.text_tower.forward(tokens, &dropout)?;
        let vision_model_output = self.image_tower.forward(pixel_values, &dropout);
        let text_embeds = normalize(self.project_text(text_model_output.pooled.clone()));
        let image_embeds = normalize(self.project_image(vision_model_output.pooled.clone()));
        let logits_per_text = logits_per_text(self, image_embeds.clone(), text_embeds.clone());
        let loss = match (return_loss, logits_per_text.dims()) {
            (false, _) => None,
            (true, [texts, images]) if texts == images => Some(clip_loss(logits_per_text.clone())),
            (true, [texts, images]) => {
                return Err(ModelError::Input(format!(
                    "a loss needs pairs, but there are {images} images and {texts} texts; ask for none, or pass as many \
                     of the ones as of the others"
                )));
            }
        };
        Ok(DualEncoderOutput {
            loss,
            logits_per_image: logits_per_text.clone().transpose(),
            logits_per_text,
            text_embeds,
            image_embeds,
            text_model_output,
            vision_model_output,
        })
    }
}

/// The reference's loss of `[batch, batch]` logits whose diagonal are the pairs, `[1]`: the mean of the cross-entropies
/// over images and over texts (CLIP, Radford et al., 2021, fig. 3).
pub fn clip_loss(logits: Tensor<2>) -> Tensor<1> {
    let [batch, _] = logits.dims();
    let pairs = Tensor::<2>::eye(batch, &logits.device().without_autodiff()) / (2.0 * batch as f64);
    let likelihoods = log_softmax(logits.clone(), 0) + log_softmax(logits, 1);
    -(likelihoods * pairs).sum()
}
