//! The forward pass of a model that is used rather than trained, under the reference's names.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;

use crate::dual_encoder::model::{DualEncoder, logits_per_text, normalize};
use crate::error::ModelError;
use crate::layers::dropout::Dropout;
use crate::text::token_sequences::TokenSequences;
use crate::tower::TowerOutput;

/// The output of [`DualEncoder::forward`]: the reference's `CLIPOutput`, in its order.
#[derive(Debug, Clone)]
pub struct DualEncoderOutput {
    /// `[1]`: [`clip_loss`], if it was requested.
    pub loss: Option<Tensor<1>>,
    /// `[images, texts]`: see [`logits_per_text`](crate::logits_per_text).
    pub logits_per_image: Tensor<2>,
    /// `[texts, images]`: the transpose.
    pub logits_per_text: Tensor<2>,
    /// `[texts, dim]`, L2-normalised.
    pub text_embeds: Tensor<2>,
    /// `[images, dim]`, L2-normalised.
    pub image_embeds: Tensor<2>,
    /// The output of the text tower.
    pub text_model_output: TowerOutput,
    /// The output of the image tower.
    pub vision_model_output: TowerOutput,
}

impl DualEncoder {
    /// Projects images, without dropout: normalised pixels `[batch, 3, height, width]` to un-normalised `[batch, dim]`.
    ///
    /// This is the tensor that transformers 4 returns, and that transformers 5 returns as `pooler_output`.
    ///
    /// # Panics
    /// As [`ImageTower::forward`](crate::ImageTower::forward).
    pub fn get_image_features(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        self.image_features(pixel_values, &Dropout::off())
    }

    /// Projects texts, without dropout: un-normalised `[batch, dim]`.
    ///
    /// # Errors
    /// As [`TextTower::forward`](crate::TextTower::forward).
    pub fn get_text_features(&self, tokens: &TokenSequences) -> Result<Tensor<2>, ModelError> {
        self.text_features(tokens, &Dropout::off())
    }

    /// Embeds images `[images, 3, height, width]` and texts, and compares each image with each text.
    ///
    /// With `return_loss`, the image and the text at the same index are a pair.
    ///
    /// # Errors
    /// As [`DualEncoder::get_text_features`]; also [`ModelError::Input`] if `return_loss` is set and there are not as
    /// many images as texts.
    ///
    /// # Panics
    /// As [`ImageTower::forward`](crate::ImageTower::forward).
    pub fn forward(
        &self,
        pixel_values: Tensor<4>,
        tokens: &TokenSequences,
        return_loss: bool,
    ) -> Result<DualEncoderOutput, ModelError> {
        let dropout = Dropout::off();
        let text_model_output = self.text_tower.forward(tokens, &dropout)?;
        let vision_model_output = self.image_tower.forward(pixel_values, &dropout);
        let text_embeds = normalize(self.project_text(text_model_output.pooled.clone(), &dropout));
        let image_embeds = normalize(self.project_image(vision_model_output.pooled.clone(), &dropout));
        let logits_per_text = logits_per_text(self, image_embeds.clone(), text_embeds.clone());
        let [texts, images] = logits_per_text.dims();
        if return_loss && texts != images {
            return Err(ModelError::Input(format!(
                "the loss needs pairs, but there are {images} images and {texts} texts; pass equally many, or set \
                 `return_loss` to false"
            )));
        }
        let loss = return_loss.then(|| clip_loss(logits_per_text.clone()));
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

/// The reference's loss, `[1]`, of logits `[batch, batch]` with the pairs on the diagonal: the mean of the
/// cross-entropy over images and the cross-entropy over texts (CLIP, Radford et al., 2021, fig. 3).
pub fn clip_loss(logits: Tensor<2>) -> Tensor<1> {
    let [batch, _] = logits.dims();
    let pairs = Tensor::<2>::eye(batch, &logits.device().without_autodiff()) / (2.0 * batch as f64);
    let likelihoods = log_softmax(logits.clone(), 0) + log_softmax(logits, 1);
    -(likelihoods * pairs).sum()
}
