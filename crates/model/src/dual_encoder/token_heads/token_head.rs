//! A token head of either kind.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::dual_encoder::token_heads::form::{TokenForm, TokenKind};
use crate::dual_encoder::token_heads::query_head::QueryHead;
use crate::dual_encoder::token_heads::token_blocks::TokenBlocks;
use crate::layers::dropout::Dropout;
use crate::params::builder::ParamBuilder;
use crate::tower::TOKENS_MODULE;
use crate::vision::token_layout::TokenLayout;

/// Maps the tokens of an image, `[batch, tokens * token width]`, to one vector, `[batch, width]`.
///
/// As for [`Head`](crate::Head), the variant is no part of a parameter's path.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one, and its size is that of the tensors it holds")]
pub enum TokenHead {
    /// One learned query.
    Query(QueryHead),
    /// Transformer blocks.
    Blocks(TokenBlocks),
}

impl TokenHead {
    /// The module of a [`DualEncoder`](crate::DualEncoder) that holds it.
    pub const MODULE: &str = TOKENS_MODULE;

    /// A head of this `form` for tokens that lie as in `layout`.
    pub(crate) fn new(at: &ParamBuilder<'_>, form: TokenForm, layout: TokenLayout) -> Self {
        match form.kind {
            TokenKind::Query => Self::Query(QueryHead::new(at, form, layout)),
            TokenKind::Blocks { count, drop_path } => {
                Self::Blocks(TokenBlocks::new(at, form, (count, drop_path), layout))
            }
        }
    }

    /// Maps `[batch, tokens * token width]` to `[batch, width]`, where `width` is [`TokenHead::width`].
    pub fn forward(&self, tokens: Tensor<2>, dropout: &Dropout) -> Tensor<2> {
        match self {
            Self::Query(head) => head.forward(tokens),
            Self::Blocks(head) => head.forward(tokens, dropout),
        }
    }

    /// Where the tokens are in its input.
    pub fn layout(&self) -> TokenLayout {
        match self {
            Self::Query(head) => head.layout,
            Self::Blocks(head) => head.layout,
        }
    }

    /// Width of the output.
    pub fn width(&self) -> usize {
        match self {
            Self::Query(head) => head.layout.width + self.form().width,
            Self::Blocks(head) if head.layout.class_token => 2 * head.width(),
            Self::Blocks(head) => head.width(),
        }
    }

    /// Its kind and settings.
    pub fn form(&self) -> TokenForm {
        match self {
            Self::Query(head) => {
                let [_, width] = head.probe.lazy_shape().dims();
                TokenForm { kind: TokenKind::Query, width, heads: head.heads, grid: head.layout.grid }
            }
            Self::Blocks(head) => TokenForm {
                kind: TokenKind::Blocks { count: head.count(), drop_path: head.drop_path },
                width: head.width(),
                heads: head.heads,
                grid: head.layout.grid,
            },
        }
    }
}
