//! Which heads a format can express.

use dualenc_model::{DualEncoder, HeadForm, HeadKind};

use crate::error::TrainError;

/// What to do about a model that VisionTextDualEncoder cannot compute, but sentence-transformers can.
pub(crate) const OTHER_FORMAT: &str = "export with `--format sentence-transformers`";

/// Which heads a format can express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadLimits {
    /// A VisionTextDualEncoder: a matrix.
    DualEncoder,
    /// A `Dense` of sentence-transformers: a matrix and a bias.
    SentenceTransformers,
}

impl HeadLimits {
    fn allow(self, form: HeadForm) -> bool {
        let is_map = matches!(form.kind, HeadKind::Linear | HeadKind::Identity);
        is_map && !form.norm && (self == Self::SentenceTransformers || !form.bias)
    }
}

/// Refuses heads that the format cannot express.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_heads(model: &DualEncoder, limits: HeadLimits) -> Result<(), TrainError> {
    let forms = [("image", model.image_projection.form()), ("text", model.text_projection.form())];
    let Some((side, form)) = forms.into_iter().find(|(_, form)| !limits.allow(*form)) else { return Ok(()) };
    let what = match limits {
        HeadLimits::DualEncoder => "transformers' VisionTextDualEncoder has linear heads without bias and norm",
        HeadLimits::SentenceTransformers => "the `Dense` module of sentence-transformers is linear, without a norm",
    };
    let other = if forms.iter().all(|(_, form)| HeadLimits::SentenceTransformers.allow(*form)) {
        format!("{OTHER_FORMAT}, or ")
    } else {
        String::new()
    };
    Err(TrainError::Usage(format!(
        "{what}, but the {side} head of this model is `{form}`; {other}use the run directory or the checkpoint, which \
         every command of dualenc reads (`dualenc embed` writes the embeddings)"
    )))
}
