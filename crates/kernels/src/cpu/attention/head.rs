//! What belongs to one head of one sequence.

use crate::arguments::dropout_mask::{DropoutMask, MaskSpan};
use crate::cpu::gemm::Matrix;

/// One head of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    /// Query, key and value, `[rows, dim]` each.
    pub qkv: [Matrix<'a>; 3],
    /// Whether a row attends only to itself and the rows before it.
    pub causal: bool,
    pub dropout: Option<HeadDropout>,
}

impl Head<'_> {
    /// Rows and columns.
    #[inline(always)]
    pub fn shape(&self) -> [usize; 2] {
        let [query, ..] = &self.qkv;
        [query.num_rows(), query.num_cols()]
    }

    /// The factor of the scores, `1 / sqrt(dim)`.
    #[inline(always)]
    pub fn scale(&self) -> f32 {
        let [_, dim] = self.shape();
        (dim as f32).sqrt().recip()
    }

    /// Number of keys that the query of a row attends to.
    #[inline(always)]
    pub fn num_keys(&self, row: usize) -> usize {
        let [rows, _] = self.shape();
        if self.causal { row + 1 } else { rows }
    }
}

/// Dropout of the probabilities of one head of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct HeadDropout {
    pub mask: DropoutMask,
    /// Position of the first probability.
    pub start: u64,
    /// Distance between the positions of two rows: the rows of the longest sequence of all.
    pub distance: usize,
}

impl HeadDropout {
    /// The factors of the probabilities from the first one of a row on.
    #[inline(always)]
    pub fn starting_at_row(self, row: usize) -> MaskSpan {
        self.mask.starting_at(self.start + row as u64 * self.distance as u64)
    }
}

/// Values of each row of one head, such as its output.
pub(crate) struct HeadRows<'o> {
    /// From the first value of the first row on.
    pub values: &'o mut [f32],
    /// Distance between the starts of two rows.
    pub stride: usize,
}
