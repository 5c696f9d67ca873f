//! The dual encoder: two towers, two projections, one temperature. Equal to the reference's forward pass.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::error::ModelError;
use crate::layers::linear::{Dropout, Linear};
use crate::params::builder::{Init, ParamBuilder};
use crate::text::text_tower::{TextTower, TokenSequences};
use crate::vision::image_tower::ImageTower;

/// ln(1 / 0.07), the initial `logit_scale` of CLIP (Radford et al., 2021, sec. 2.5) as the reference writes it.
pub const LOGIT_SCALE_INIT: f64 = 2.6592;

/// Standard deviation of fresh projections (the reference's `initializer_range`, transformers 5).
const PROJECTION_STD: f64 = 0.02;

/// Keeps the norm of an all-zero feature from dividing by zero.
const NORM_EPSILON: f64 = 1e-12;

/// Two towers with projections into one space.
#[derive(Module, Debug)]
pub struct DualEncoder {
    /// `[batch, 3, height, width]` to `[batch, image width]`.
    pub image_tower: ImageTower,
    /// Token sequences to `[batch, text width]`.
    pub text_tower: TextTower,
    /// `[image width, dim]`, no bias.
    pub image_projection: Linear,
    /// `[text width, dim]`, no bias.
    pub text_projection: Linear,
    /// `[1]`: the logarithm of the temperature's inverse.
    pub logit_scale: Param<Tensor<1>>,
    /// `[1]`: added to the logits of the sigmoid loss (SigLIP, Zhai et al., 2023); absent otherwise.
    pub logit_bias: Option<Param<Tensor<1>>>,
}

/// The part of a dual encoder beside its towers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadConfig {
    /// Width of the shared space.
    pub embed_dim: usize,
    /// Initial `logit_scale`, a logarithm.
    pub logit_scale: f64,
    /// Initial `logit_bias`, for the sigmoid loss.
    pub logit_bias: Option<f64>,
}

impl DualEncoder {
    pub(crate) fn new(at: &ParamBuilder<'_>, image_tower: ImageTower, text_tower: TextTower, head: HeadConfig) -> Self {
        let project = |name, width| Linear::new(&at.at(name), width, head.embed_dim, false, PROJECTION_STD);
        Self {
            image_projection: project("image_projection", image_tower.width()),
            text_projection: project("text_projection", text_tower.pooled_width()),
            logit_scale: at.param("logit_scale", [1], Init::Constant(head.logit_scale as f32)),
            logit_bias: head.logit_bias.map(|bias| at.param("logit_bias", [1], Init::Constant(bias as f32))),
            image_tower,
            text_tower,
        }
    }

    /// Width of the shared space.
    pub fn embed_dim(&self) -> usize {
        self.image_projection.weight.dims()[1]
    }

    /// The device, without autodiff.
    pub fn device(&self) -> Device {
        self.logit_scale.val().device().without_autodiff()
    }

    /// [`DualEncoder::get_image_features`] with dropout: `[batch, 3, height, width]` to un-normalised `[batch, dim]`.
    pub fn image_features(&self, pixels: Tensor<4>, dropout: &Dropout) -> Tensor<2> {
        self.project_image(self.image_tower.forward(pixels, &dropout.part("image")).pooled)
    }

    /// The image projection alone, for pooled outputs `[batch, image width]` that were kept.
    pub fn project_image(&self, pooled: Tensor<2>) -> Tensor<2> {
        self.image_projection.forward(pooled)
    }

    /// [`DualEncoder::get_text_features`] with dropout: un-normalised `[batch, dim]`.
    ///
    /// # Errors
    /// As [`TextTower::forward`].
    pub fn text_features(&self, tokens: &TokenSequences, dropout: &Dropout) -> Result<Tensor<2>, ModelError> {
        Ok(self.project_text(self.text_tower.forward(tokens, &dropout.part("text"))?.pooled))
    }

    /// The text projection alone, for pooled outputs `[batch, text width]` that were kept.
    pub fn project_text(&self, pooled: Tensor<2>) -> Tensor<2> {
        self.text_projection.forward(pooled)
    }

    /// The model without gradients, for evaluation; shares the values.
    #[must_use]
    pub fn valid(&self) -> Self {
        Module::valid(self)
    }
}

/// Rows divided by their L2 norms: `[batch, dim]` to the same.
pub fn normalize(features: Tensor<2>) -> Tensor<2> {
    let norms = features.clone().square().sum_dim(1).sqrt().clamp_min(NORM_EPSILON);
    features / norms
}

/// `exp(logit_scale) * text_embeds @ image_embeds^T`, plus `logit_bias` where there is one (SigLIP), `[texts, images]`: the
/// reference's `logits_per_text`.
pub fn logits_per_text(model: &DualEncoder, image_embeds: Tensor<2>, text_embeds: Tensor<2>) -> Tensor<2> {
    let logits = text_embeds.matmul(image_embeds.transpose()) * model.logit_scale.val().exp().unsqueeze();
    match &model.logit_bias {
        Some(bias) => logits + bias.val().unsqueeze(),
        None => logits,
    }
}
