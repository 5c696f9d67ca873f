//! Which heads a format can express.

use dualenc_model::{DualEncoder, HeadForm, HeadKind};

use crate::commands::export::obstacles::{ANY_MODEL, Obstacles};
use crate::error::TrainError;

/// What to do about a model that VisionTextDualEncoder cannot compute, but sentence-transformers can.
pub(crate) const OTHER_FORMAT: &str = "export with `--format sentence-transformers`";

/// Which heads a format can express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadLimits {
    /// A VisionTextDualEncoder: a matrix.
    DualEncoder,
    /// `Dense` and `LayerNorm` of sentence-transformers: linear and residual heads (`stock_modules`).
    SentenceTransformers,
}

impl HeadLimits {
    /// Why the format cannot express a head of this form, if it cannot.
    fn problem(self, form: HeadForm) -> Option<&'static str> {
        match (self, form.kind) {
            (Self::DualEncoder, HeadKind::Linear | HeadKind::Identity) if !form.norm && !form.bias => None,
            (Self::DualEncoder, _) => {
                Some("transformers' VisionTextDualEncoder has linear heads without bias and norm")
            }
            (_, HeadKind::Linear | HeadKind::Identity | HeadKind::Residual) => None,
            (_, HeadKind::Gated { .. }) => Some("sentence-transformers has no stock module for the product in a `glu`"),
            (_, HeadKind::Blocks { .. }) => {
                Some("sentence-transformers has no stock module that adds to its input what follows a norm of it")
            }
        }
    }
}

/// Refuses an image head that takes all tokens, which only `--format heads` can express. `format`: what was asked for.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_tokens(model: &DualEncoder, format: &str) -> Result<(), TrainError> {
    let Some(tokens) = &model.image_tokens else { return Ok(()) };
    Err(TrainError::Usage(format!(
        "{format} has no module that takes all tokens of an image, but the image head of this model does (`{}`); \
         {ANY_MODEL}",
        tokens.form()
    )))
}

/// Keeps each head that the format cannot express as an obstacle. `other_format`: whether sentence-transformers can
/// express the whole model.
///
/// # Errors
/// None but those of [`Obstacles::keep`].
pub(crate) fn check_heads(
    model: &DualEncoder,
    limits: HeadLimits,
    other_format: bool,
    obstacles: &mut Obstacles,
) -> Result<(), TrainError> {
    let forms = [("image", model.image_projection.form()), ("text", model.text_projection.form())];
    let other = if other_format { format!("{OTHER_FORMAT}; ") } else { String::new() };
    for (side, form) in forms {
        if let Some(problem) = limits.problem(form) {
            obstacles.keep::<()>(Err(TrainError::Usage(format!(
                "{problem}, but the {side} head of this model is `{form}`; {other}{ANY_MODEL}"
            ))))?;
        }
    }
    Ok(())
}
