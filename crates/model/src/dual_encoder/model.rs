//! The model: two towers, two heads, one temperature. Its forward pass equals the reference's.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::dual_encoder::config::HeadConfig;
use crate::dual_encoder::heads::form::HeadForm;
use crate::dual_encoder::heads::head::Head;
use crate::dual_encoder::token_heads::token_head::TokenHead;
use crate::error::ModelError;
use crate::layers::dropout::Dropout;
use crate::params::builder::{Init, ParamBuilder};
use crate::text::text_tower::TextTower;
use crate::text::token_sequences::TokenSequences;
use crate::tower::Tower;
use crate::vision::image_tower::ImageTower;

/// Smallest norm that a feature is divided by: an all-zero feature stays zero.
const NORM_EPSILON: f64 = 1e-12;

/// An image tower and a text tower, with heads that project into one space.
#[derive(Module, Debug)]
pub struct DualEncoder {
    /// Maps `[batch, 3, height, width]` to `[batch, image width]`.
    pub image_tower: ImageTower,
    /// Maps token sequences to `[batch, text width]`.
    pub text_tower: TextTower,
    /// What makes one vector of all tokens of an image, if the image tower returns them; it stands before the image
    /// head.
    pub image_tokens: Option<TokenHead>,
    /// The image head: `[batch, image width]`, or the width of `image_tokens`, to `[batch, dim]`.
    pub image_projection: Head,
    /// The text head: `[batch, text width]` to `[batch, dim]`.
    pub text_projection: Head,
    /// `[1]`: logarithm of the inverse temperature.
    pub logit_scale: Param<Tensor<1>>,
    /// `[1]`: bias of the logits, for the sigmoid loss (SigLIP, Zhai et al., 2023).
    pub logit_bias: Option<Param<Tensor<1>>>,
}

impl DualEncoder {
    pub(crate) fn new(at: &ParamBuilder<'_>, image_tower: ImageTower, text_tower: TextTower, head: HeadConfig) -> Self {
        let project = |tower: Tower, form: Option<HeadForm>, width| {
            Head::new(&at.at(tower.head_module()), form.unwrap_or(HeadForm::LINEAR), width, head.embed_dim)
        };
        let tokens = head.image_tokens.zip(image_tower.token_layout());
        let image_tokens = tokens.map(|(form, layout)| TokenHead::new(&at.at(TokenHead::MODULE), form, layout));
        let image_width = image_tokens.as_ref().map_or_else(|| image_tower.width(), TokenHead::width);
        Self {
            image_projection: project(Tower::Image, head.image, image_width),
            text_projection: project(Tower::Text, head.text, text_tower.pooled_width()),
            logit_scale: at.param("logit_scale", [1], Init::Constant(head.logit_scale as f32)),
            logit_bias: head.logit_bias.map(|bias| at.param("logit_bias", [1], Init::Constant(bias as f32))),
            image_tokens,
            image_tower,
            text_tower,
        }
    }

    /// Width of the shared space.
    pub fn embed_dim(&self) -> usize {
        self.image_projection.dim()
    }

    /// The device of the parameters, without autodiff.
    pub fn device(&self) -> Device {
        self.logit_scale.val().device().without_autodiff()
    }

    /// Projects images, with dropout: `[batch, 3, height, width]` to un-normalised `[batch, dim]`.
    pub fn image_features(&self, pixels: Tensor<4>, dropout: &Dropout) -> Tensor<2> {
        self.project_image(self.image_tower.forward(pixels, &dropout.part(Tower::Image.kind())).pooled, dropout)
    }

    /// Projects images from what the first `layers` layers of the image tower compute, with dropout: un-normalised
    /// `[batch, dim]`. `tokens` and `size` are those of [`ImageTower::forward_after`].
    ///
    /// # Errors
    /// As [`ImageTower::forward_after`].
    pub fn image_features_after(
        &self,
        layers: usize,
        tokens: Tensor<2>,
        size: [usize; 2],
        dropout: &Dropout,
    ) -> Result<Tensor<2>, ModelError> {
        let output = self.image_tower.forward_after(layers, tokens, size, &dropout.part(Tower::Image.kind()))?;
        Ok(self.project_image(output.pooled, dropout))
    }

    /// Applies the image head to pooled outputs, such as cached ones: `[batch, image width]` to `[batch, dim]`. The
    /// token head (`image_tokens`), if there is one, is applied first. `dropout` is that of the whole step.
    pub fn project_image(&self, pooled: Tensor<2>, dropout: &Dropout) -> Tensor<2> {
        let pooled = match &self.image_tokens {
            Some(tokens) => tokens.forward(pooled, &dropout.part(TokenHead::MODULE)),
            None => pooled,
        };
        self.image_projection.forward(pooled, &dropout.part(Tower::Image.head_part()))
    }

    /// One vector for each image that no head has changed, `[batch, summary width]`, of pooled outputs, `[batch, image
    /// width]`: the outputs themselves, or the class token of all tokens (without one, the mean of the patch tokens).
    pub fn image_summary(&self, pooled: Tensor<2>) -> Tensor<2> {
        match &self.image_tokens {
            Some(tokens) => tokens.layout().summary(pooled),
            None => pooled,
        }
    }

    /// The kind and settings of the image head, such as `linear, bias`, or `query over tokens, width 256, 4 heads, then
    /// linear`.
    pub fn describe_image_head(&self) -> String {
        let form = self.image_projection.form();
        match &self.image_tokens {
            Some(tokens) => format!("{}, then {form}", tokens.form()),
            None => form.to_string(),
        }
    }

    /// Width of [`DualEncoder::image_summary`].
    pub fn image_summary_width(&self) -> usize {
        self.image_tokens.as_ref().map_or_else(|| self.image_tower.width(), |tokens| tokens.layout().width)
    }

    /// Projects texts, with dropout: un-normalised `[batch, dim]`.
    ///
    /// # Errors
    /// As [`TextTower::forward`].
    pub fn text_features(&self, tokens: &TokenSequences, dropout: &Dropout) -> Result<Tensor<2>, ModelError> {
        Ok(self.project_text(self.text_tower.forward(tokens, &dropout.part(Tower::Text.kind()))?.pooled, dropout))
    }

    /// Projects texts from what the first `layers` layers of the text tower compute, with dropout: un-normalised
    /// `[batch, dim]`. `hidden` and `tokens` are those of [`TextTower::forward_after`].
    ///
    /// # Errors
    /// As [`TextTower::forward_after`].
    pub fn text_features_after(
        &self,
        layers: usize,
        hidden: Tensor<2>,
        tokens: &TokenSequences,
        dropout: &Dropout,
    ) -> Result<Tensor<2>, ModelError> {
        let output = self.text_tower.forward_after(layers, hidden, tokens, &dropout.part(Tower::Text.kind()))?;
        Ok(self.project_text(output.pooled, dropout))
    }

    /// Applies the text head to pooled outputs, such as cached ones: `[batch, text width]` to `[batch, dim]`.
    /// `dropout` is that of the whole step.
    pub fn project_text(&self, pooled: Tensor<2>, dropout: &Dropout) -> Tensor<2> {
        self.text_projection.forward(pooled, &dropout.part(Tower::Text.head_part()))
    }

    /// The model without gradients, for evaluation. It shares the values of the parameters.
    #[must_use]
    pub fn valid(&self) -> Self {
        Module::valid(self)
    }
}

/// Divides each row of `[batch, dim]` by its L2 norm.
pub fn normalize(features: Tensor<2>) -> Tensor<2> {
    // Limited before the root: the slope of a root is infinite at 0, and infinity times 0 is no gradient.
    let norms = features.clone().square().sum_dim(1).clamp_min(NORM_EPSILON * NORM_EPSILON).sqrt();
    features / norms
}

/// The reference's `logits_per_text`, `[texts, images]`: `exp(logit_scale) * text_embeds @ image_embeds^T`, plus
/// `logit_bias` if there is one (SigLIP). `image_embeds` are `[images, dim]`, `text_embeds` `[texts, dim]`, both
/// normalised.
pub fn logits_per_text(model: &DualEncoder, image_embeds: Tensor<2>, text_embeds: Tensor<2>) -> Tensor<2> {
    let logits = text_embeds.matmul(image_embeds.transpose()) * model.logit_scale.val().exp().unsqueeze();
    match &model.logit_bias {
        Some(bias) => logits + bias.val().unsqueeze(),
        None => logits,
    }
}
