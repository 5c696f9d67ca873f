//! Parts and transposes of tensors.

/// One of several equal parts of a tensor, along its first dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Position among the parts, from 0.
    pub index: usize,
    /// Number of parts.
    pub of: usize,
}

impl Part {
    /// The range of this part among `count` values.
    pub fn range(self, count: usize) -> std::ops::Range<usize> {
        let each = count / self.of;
        self.index * each..(self.index + 1) * each
    }
}

/// Rows transposed together: a cache line of f32, so that each line of the result is written whole.
const ROWS_AT_ONCE: usize = 16;

/// Transposes a `[rows, columns]` matrix.
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut transposed = vec![0.0; values.len()];
    for first in (0..rows).step_by(ROWS_AT_ONCE) {
        let last = (first + ROWS_AT_ONCE).min(rows);
        for column in 0..columns {
            let line = &mut transposed[column * rows + first..column * rows + last];
            for (row, value) in (first..last).zip(line) {
                *value = values[row * columns + column];
            }
        }
    }
    transposed
}
