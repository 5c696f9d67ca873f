//! What attention needs beside its tensors.

use std::sync::Arc;

use crate::arguments::dropout_mask::DropoutMask;

/// How [`attention`](crate::attention) divides rows into sequences and columns into heads.
#[derive(Debug, Clone)]
pub struct Sequences {
    /// Number of rows of each sequence, at least 1.
    pub lengths: Arc<[usize]>,
    /// Number of attention heads; divides the width.
    pub heads: usize,
    /// Whether a row attends only to itself and the rows before it.
    pub causal: bool,
    /// Dropout of the attention probabilities; positions are those of `[sequences, heads, longest, longest]`.
    pub dropout: Option<DropoutMask>,
}
