//! The right factor of a product, packed in panels: a few columns of it, row after row.

use crate::cpu::gemm::Matrix;
use crate::cpu::product::blocked::pack_rows;
use crate::cpu::product::tile::PANEL;
use crate::cpu::uninit::{Buffer, Uninit, par_buffers, write_blocks, write_parts};

/// Rows and columns of the blocks in which a transposed matrix is read: whole cache lines.
const BLOCK: usize = 16;

/// A matrix `[depth, cols]` in panels.
#[derive(Debug)]
pub(crate) struct Panels {
    /// `[panels, depth, PANEL]`; columns after the last are 0.
    values: Buffer,
    depth: usize,
    cols: usize,
}

/// How the matrices that are packed together lie.
#[derive(Debug, Clone, Copy)]
enum Joined {
    /// Side by side: `[depth, N * cols]`.
    Beside,
    /// Below each other: `[N * depth, cols]`.
    Below,
}

impl Panels {
    /// Packs matrices of one shape side by side: `[depth, N * cols]`.
    pub fn beside(matrices: &[Matrix<'_>]) -> Self {
        Self::joined(matrices, Joined::Beside)
    }

    /// Packs matrices of one shape below each other: `[N * depth, cols]`.
    pub fn below(matrices: &[Matrix<'_>]) -> Self {
        Self::joined(matrices, Joined::Below)
    }

    fn joined(matrices: &[Matrix<'_>], joined: Joined) -> Self {
        let shape = |matrix: &Matrix<'_>| [matrix.num_rows(), matrix.num_cols()];
        let [rows, each_cols] = matrices.first().map_or([0, 0], shape);
        assert!(matrices.iter().all(|matrix| shape(matrix) == [rows, each_cols]), "shapes of matrices packed together");
        let (depth, cols) = match joined {
            Joined::Beside => (rows, each_cols * matrices.len()),
            Joined::Below => (rows * matrices.len(), each_cols),
        };
        let ends: Vec<usize> = (1..=cols.div_ceil(PANEL)).collect();
        let [values] = par_buffers(&ends, [depth * PANEL], [true], |panel, [out]| {
            let first = panel * PANEL;
            let count = PANEL.min(cols - first);
            [match joined {
                Joined::Beside if first / each_cols == (first + count - 1) / each_cols => {
                    pack_panel(&matrices[first / each_cols..][..1], first % each_cols, count, out)
                }
                Joined::Beside => pack_seam(matrices, first, count, out),
                Joined::Below => pack_panel(matrices, first, count, out),
            }]
        });
        Self { values, depth, cols }
    }

    pub fn depth(&self) -> usize {
        self.depth
    }

    pub fn num_cols(&self) -> usize {
        self.cols
    }

    /// Rows `first..first + count` of a panel.
    pub fn panel(&self, panel: usize, first: usize, count: usize) -> &[f32] {
        &self.values.get()[(panel * self.depth + first) * PANEL..][..count * PANEL]
    }
}

/// Writes `count` columns of matrices below each other, those after them as 0.
fn pack_panel<'o>(matrices: &[Matrix<'_>], first: usize, count: usize, out: &'o mut Uninit) -> &'o mut [f32] {
    let depth = matrices.first().map_or(0, Matrix::num_rows);
    let columns = matrices.iter().map(|matrix| matrix.cols(first, count));
    write_parts(out, depth * PANEL, columns, |columns, out| {
        if columns.is_row_major() {
            return pack_rows(columns, out);
        }
        let mut block = [0.0; BLOCK * PANEL];
        write_blocks(out, &mut block, |n, block| {
            transpose(columns.rows(n * BLOCK, BLOCK.min(depth - n * BLOCK)), block.as_chunks_mut().0);
        })
    })
}

/// Reads at most [`BLOCK`] rows of a matrix of at most [`PANEL`] columns that is transposed in memory.
fn transpose(matrix: Matrix<'_>, rows: &mut [[f32; PANEL]]) {
    let (columns, count) = (matrix.t(), matrix.num_rows());
    for from in (0..columns.num_rows()).step_by(BLOCK) {
        let width = BLOCK.min(columns.num_rows() - from);
        let mut read = [[0.0; BLOCK]; BLOCK];
        for (n, read) in read[..width].iter_mut().enumerate() {
            let column = columns.row(from + n);
            match column.first_chunk::<BLOCK>() {
                Some(whole) => *read = *whole,
                None => read[..count].copy_from_slice(column),
            }
        }
        for (n, row) in rows.iter_mut().enumerate() {
            for (value, read) in row[from..].iter_mut().zip(&read[..width]) {
                *value = read[n];
            }
        }
    }
}

/// Writes a panel that more than one of several matrices side by side have columns in.
fn pack_seam<'o>(matrices: &[Matrix<'_>], first: usize, count: usize, out: &'o mut Uninit) -> &'o mut [f32] {
    let each = matrices.first().map_or(1, Matrix::num_cols);
    write_blocks(out, &mut [0.0; PANEL], |row, values| {
        for (n, value) in values[..count].iter_mut().enumerate() {
            let column = first + n;
            *value = matrices[column / each].row(row)[column % each];
        }
    })
}
