//! Starting a head from the parameters of another: a trained model becomes the start of a run with other heads.

use burn::tensor::Device;

use crate::dual_encoder::heads::form::{HeadForm, HeadKind};
use crate::dual_encoder::heads::head::Head;
use crate::dual_encoder::heads::linear_head::LinearHead;
use crate::dual_encoder::heads::residual_head::ResidualHead;
use crate::dual_encoder::model::DualEncoder;
use crate::error::ModelError;
use crate::params::builder::ParamSource;
use crate::tower::Tower;

impl DualEncoder {
    /// Gives the heads other forms, image then text; `None` leaves a head as it is. The model computes the same as
    /// before. New parameters are drawn from `seed`, as in a model that starts with these heads.
    ///
    /// # Errors
    /// [`ModelError::Input`] if a head of the form would not compute the same. Possible are another dropout, a bias for
    /// a linear head, and a residual head for a linear one.
    pub fn with_heads(mut self, [image, text]: [Option<HeadForm>; 2], seed: u64) -> Result<Self, ModelError> {
        let device = self.device();
        if let Some(form) = image {
            self.image_projection = restarted(self.image_projection, form, Tower::Image, seed, &device)?;
        }
        if let Some(form) = text {
            self.text_projection = restarted(self.text_projection, form, Tower::Text, seed, &device)?;
        }
        Ok(self)
    }
}

fn restarted(head: Head, form: HeadForm, tower: Tower, seed: u64, device: &Device) -> Result<Head, ModelError> {
    let before = head.form();
    if (HeadForm { dropout: before.dropout, ..form }) == before {
        return Ok(head.with_dropout(form.dropout));
    }
    let refused = |reason: String| {
        ModelError::Input(format!(
            "`model.{0}_head` is `{form}`, but the {0} head of `model.init` is `{before}`: {reason}",
            tower.kind()
        ))
    };
    let fits = before.kind == HeadKind::Linear && matches!(form.kind, HeadKind::Linear | HeadKind::Residual);
    if !fits {
        return Err(refused(
            "its weights have no place in the other; remove `kind` to train the head of that model on, or start from \
             the two towers (`image_tower` and `text_tower`)"
                .to_owned(),
        ));
    }
    if form.norm != before.norm {
        return Err(refused(format!(
            "its weights are for inputs {} layer norm; set `norm = {}`",
            if before.norm { "after a" } else { "without" },
            before.norm
        )));
    }
    if before.bias && !form.bias {
        return Err(refused("its bias has no place in the other; set `bias = true`".to_owned()));
    }
    let source = ParamSource::new(device.clone().autodiff(), seed, None);
    let fresh = Head::new(&source.root().at(tower.head_module()), form, head.width(), head.dim());
    source.into_audit()?;
    match (head, fresh) {
        (Head::Linear(old), Head::Linear(fresh)) => {
            Ok(Head::Linear(LinearHead { bias: old.bias.or(fresh.bias), ..old }))
        }
        (Head::Linear(LinearHead { norm, weight, bias }), Head::Residual(fresh)) => {
            Ok(Head::Residual(ResidualHead { norm, weight, bias: bias.or(fresh.bias), ..fresh }))
        }
        _ => Err(ModelError::Internal(format!("a `{before}` head became a `{form}` head"))),
    }
}
