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
pub(crate) const ROWS_AT_ONCE: usize = 16;

/// Transposes a `[rows, columns]` matrix.
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut transposed = vec![0.0; values.len()];
    transpose_rows(values, 0, columns, &mut transposed, rows);
    transposed
}

/// Writes some rows of a `[rows, columns]` matrix, from `first` on, into its transpose.
pub(crate) fn transpose_rows(values: &[f32], first: usize, columns: usize, transposed: &mut [f32], rows: usize) {
    for (block, values) in values.chunks(ROWS_AT_ONCE * columns.max(1)).enumerate() {
        let (first, count) = (first + block * ROWS_AT_ONCE, values.len() / columns.max(1));
        for column in 0..columns {
            let line = &mut transposed[column * rows + first..][..count];
            for (row, value) in line.iter_mut().enumerate() {
                *value = values[row * columns + column];
            }
        }
    }
}
