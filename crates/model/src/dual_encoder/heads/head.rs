//! A head of any kind.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::dual_encoder::heads::block_head::BlockHead;
use crate::dual_encoder::heads::form::{HeadForm, HeadKind};
use crate::dual_encoder::heads::gated_head::GatedHead;
use crate::dual_encoder::heads::linear_head::{LinearHead, normed};
use crate::dual_encoder::heads::residual_head::ResidualHead;
use crate::error::ModelError;
use crate::layers::dropout::Dropout;
use crate::layers::layer_norm::LayerNorm;
use crate::params::builder::ParamBuilder;
use crate::params::values::host;

/// Maps the pooled output of a tower, `[batch, width]`, into the shared space, `[batch, dim]`.
///
/// The variant is no part of a parameter's path: a linear head has `weight`, whatever else a head may be.
#[derive(Module, Debug)]
pub enum Head {
    /// The pooled output itself, or its first values.
    Identity(IdentityHead),
    /// One linear map.
    Linear(LinearHead),
    /// Two linear maps, multiplied, and a third.
    Gated(GatedHead),
    /// A linear map plus a small network.
    Residual(ResidualHead),
    /// Residual blocks, and a linear map.
    Blocks(BlockHead),
}

/// A head without parameters.
#[derive(Module, Debug)]
pub struct IdentityHead {
    pub(crate) width: usize,
    /// Less than the width if embeddings are cut.
    pub(crate) dim: usize,
}

/// The linear map of a head that has one: the whole of a linear head, or the straight path of a residual one.
#[derive(Debug)]
pub struct LinearPart<'a> {
    /// Normalises the input of the map.
    pub norm: Option<&'a LayerNorm>,
    /// `[width, dim]`.
    pub weight: &'a mut Param<Tensor<2>>,
    /// `[dim]`.
    pub bias: Option<&'a mut Param<Tensor<1>>>,
}

impl Head {
    /// A head of this `form` from `width` to `dim` values. The `dim` of an identity is `width`.
    pub(crate) fn new(at: &ParamBuilder<'_>, form: HeadForm, width: usize, dim: usize) -> Self {
        let HeadForm { kind, bias, norm, dropout } = form;
        let parts = [bias, norm];
        match kind {
            HeadKind::Identity => Self::Identity(IdentityHead { width, dim: width }),
            HeadKind::Linear => Self::Linear(LinearHead::new(at, width, dim, bias, norm)),
            HeadKind::Gated { expansion } => {
                Self::Gated(GatedHead::new(at, width, dim, expansion * width, parts, dropout))
            }
            HeadKind::Residual => Self::Residual(ResidualHead::new(at, width, dim, parts, dropout)),
            HeadKind::Blocks { count } => Self::Blocks(BlockHead::new(at, width, dim, count, parts, dropout)),
        }
    }

    /// Maps `[batch, width]` to `[batch, dim]`. `dropout` applies where the head trains.
    pub fn forward(&self, pooled: Tensor<2>, dropout: &Dropout) -> Tensor<2> {
        match self {
            Self::Identity(IdentityHead { width, dim }) if dim < width => pooled.narrow(1, 0, *dim),
            Self::Identity(_) => pooled,
            Self::Linear(head) => head.forward(pooled),
            Self::Gated(head) => head.forward(pooled, dropout),
            Self::Residual(head) => head.forward(pooled, dropout),
            Self::Blocks(head) => head.forward(pooled, dropout),
        }
    }

    /// Width of the input.
    pub fn width(&self) -> usize {
        self.dims()[0]
    }

    /// Width of the output.
    pub fn dim(&self) -> usize {
        self.dims()[1]
    }

    fn dims(&self) -> [usize; 2] {
        let of = |weight: &Param<Tensor<2>>| weight.lazy_shape().dims();
        match self {
            Self::Identity(IdentityHead { width, dim }) => [*width, *dim],
            Self::Linear(head) => of(&head.weight),
            Self::Gated(head) => [of(&head.up.weight)[0], of(&head.down.weight)[1]],
            Self::Residual(head) => of(&head.weight),
            Self::Blocks(head) => of(&head.output.weight),
        }
    }

    /// Its kind and settings.
    pub fn form(&self) -> HeadForm {
        match self {
            Self::Identity(_) => HeadForm::IDENTITY,
            Self::Linear(LinearHead { norm, bias, .. }) => {
                HeadForm { kind: HeadKind::Linear, bias: bias.is_some(), norm: norm.is_some(), dropout: 0.0 }
            }
            Self::Gated(GatedHead { norm, gate, dropout, .. }) => {
                let [width, hidden] = gate.weight.lazy_shape().dims();
                HeadForm {
                    kind: HeadKind::Gated { expansion: hidden / width.max(1) },
                    bias: gate.bias.is_some(),
                    norm: norm.is_some(),
                    dropout: *dropout,
                }
            }
            Self::Residual(ResidualHead { norm, bias, dropout, .. }) => {
                HeadForm { kind: HeadKind::Residual, bias: bias.is_some(), norm: norm.is_some(), dropout: *dropout }
            }
            Self::Blocks(BlockHead { norm, blocks, output, dropout, .. }) => HeadForm {
                kind: HeadKind::Blocks { count: blocks.len() },
                bias: output.bias.is_some(),
                norm: norm.is_some(),
                dropout: *dropout,
            },
        }
    }

    /// The same head with another probability of dropout. A head without hidden values ignores it.
    pub(crate) fn with_dropout(mut self, probability: f64) -> Self {
        match &mut self {
            Self::Identity(_) | Self::Linear(_) => {}
            Self::Gated(head) => head.dropout = probability,
            Self::Residual(head) => head.dropout = probability,
            Self::Blocks(head) => head.dropout = probability,
        }
        self
    }

    /// Makes a residual head the linear one with the same `weight`, as a new one is: what its small network has learned
    /// corrects that linear map, and not another one that takes its place. Returns whether the head computed something
    /// else before. Other kinds stay as they are.
    ///
    /// # Errors
    /// [`ModelError::Device`] if the device cannot copy its weights to the host.
    pub fn clear_residual(&mut self) -> Result<bool, ModelError> {
        let Self::Residual(head) = self else { return Ok(false) };
        let learned = host(head.down.weight.val().without_autodiff())?.values.iter().any(|&value| value != 0.0);
        if learned {
            head.clear();
        }
        Ok(learned)
    }

    /// The linear map of a linear or a residual head; `None` for other kinds.
    pub fn linear_part(&mut self) -> Option<LinearPart<'_>> {
        let (norm, weight, bias) = match self {
            Self::Linear(LinearHead { norm, weight, bias }) => (norm, weight, bias),
            Self::Residual(ResidualHead { norm, weight, bias, .. }) => (norm, weight, bias),
            Self::Identity(_) | Self::Gated(_) | Self::Blocks(_) => return None,
        };
        Some(LinearPart { norm: norm.as_ref(), weight, bias: bias.as_mut() })
    }
}

impl LinearPart<'_> {
    /// The input of the linear map, `[batch, width]`, of a pooled output of the same shape.
    pub fn input(&self, pooled: Tensor<2>) -> Tensor<2> {
        normed(self.norm, pooled)
    }
}
