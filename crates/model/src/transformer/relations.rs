//! Token positions in attention.

use burn::tensor::{Bool, Int, Tensor};

use crate::transformer::rotary::Rotary;
use crate::transformer::windows::Windows;

/// The positions of tokens as the attention of one block uses them. A tower makes them once per forward pass.
#[derive(Debug, Clone, Default)]
pub(crate) struct Relations {
    /// The row of the relative position table for each query and key, `[seq * seq]`.
    pub table_rows: Option<Tensor<1, Int>>,
    /// Embeddings of relative positions, `[relative positions, width]` (DeBERTa); filled in by the encoder.
    pub embeddings: Option<Tensor<2>>,
    /// Interpolates the relative position table to the one that `table_rows` indexes, `[rows, table rows]`: for images
    /// of another shape than the table was trained on.
    pub table_resize: Option<Tensor<2>>,
    /// Rotation of queries and keys.
    pub rotary: Option<Rotary>,
    /// Attention mask, `[1, 1, seq, seq]` or `[batch, 1, seq, seq]`: true where a query must not attend to a key.
    pub mask: Option<Tensor<4, Bool>>,
    /// Whether `mask` is exactly the causal mask, which kernels compute themselves.
    pub causal: bool,
    /// Windows that attention is restricted to; the other fields then describe the tokens of one window.
    pub windows: Option<Windows>,
}
