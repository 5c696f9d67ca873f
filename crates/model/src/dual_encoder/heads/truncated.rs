//! Narrower embeddings: the first values of each, where the others are not computed.

use burn::module::Param;
use burn::tensor::Tensor;

use crate::dual_encoder::heads::block_head::BlockHead;
use crate::dual_encoder::heads::gated_head::GatedHead;
use crate::dual_encoder::heads::head::{Head, IdentityHead};
use crate::dual_encoder::heads::linear_head::LinearHead;
use crate::dual_encoder::heads::residual_head::ResidualHead;
use crate::dual_encoder::model::DualEncoder;
use crate::error::ModelError;
use crate::layers::linear::Linear;

impl DualEncoder {
    /// This model with features cut to their first `dim` values: the last map of each head loses its other columns. The
    /// features are meant to be normalised afterwards, as whole ones are (Matryoshka representation learning, Kusupati
    /// et al., 2022, arXiv:2205.13147). The cut parameters do not train.
    ///
    /// # Errors
    /// [`ModelError::Input`] if `dim` is 0 or more than [`DualEncoder::embed_dim`].
    pub fn truncated(self, dim: usize) -> Result<Self, ModelError> {
        let whole = self.embed_dim();
        if dim == 0 || dim > whole {
            return Err(ModelError::Input(format!(
                "the embeddings of this model have {whole} values, which cannot be cut to {dim}; name 1 to {whole}"
            )));
        }
        if dim == whole {
            return Ok(self);
        }
        Ok(Self {
            image_projection: self.image_projection.truncated(dim),
            text_projection: self.text_projection.truncated(dim),
            ..self
        })
    }
}

impl Head {
    /// The head with the first `dim` values of its output, which has more.
    fn truncated(self, dim: usize) -> Self {
        match self {
            Self::Identity(head) => Self::Identity(IdentityHead { dim, ..head }),
            Self::Linear(head) => Self::Linear(LinearHead {
                weight: first_values(head.weight, dim),
                bias: head.bias.map(|bias| first_values(bias, dim)),
                ..head
            }),
            Self::Gated(head) => Self::Gated(GatedHead { down: first_outputs(head.down, dim), ..head }),
            Self::Residual(head) => Self::Residual(ResidualHead {
                weight: first_values(head.weight, dim),
                bias: head.bias.map(|bias| first_values(bias, dim)),
                // The hidden values are as many as before.
                down: first_outputs(head.down, dim),
                ..head
            }),
            Self::Blocks(head) => Self::Blocks(BlockHead { output: first_outputs(head.output, dim), ..head }),
        }
    }
}

fn first_outputs(linear: Linear, dim: usize) -> Linear {
    let bias = linear.bias.map(|bias| first_values(bias, dim));
    Linear { weight: first_values(linear.weight, dim), bias, ..linear }
}

/// The first `dim` values of the last dimension.
fn first_values<const D: usize>(param: Param<Tensor<D>>, dim: usize) -> Param<Tensor<D>> {
    Param::initialized(param.id, param.val().without_autodiff().narrow(D - 1, 0, dim))
}
