//! The right factor of a product, packed in strips: the columns that a tile is wide, row after row.

use std::ops::Range;

use crate::cpu::gemm::Matrix;
use crate::cpu::product::blocked::pack_rows;
use crate::cpu::product::tile::{PANEL, Strips, strip_width};
use crate::cpu::uninit::{Buffer, Uninit, par_buffers, write_blocks, write_parts, write_rows};

/// Rows and columns of the blocks in which a transposed matrix is read: whole cache lines.
const BLOCK: usize = 16;

/// A matrix `[depth, cols]` in panels of whole strips.
#[derive(Debug)]
pub(crate) struct Panels {
    /// `[strips, depth, width]`; columns after the last are 0.
    values: Buffer,
    /// Columns of a strip.
    width: usize,
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
        let width = strip_width();
        let pack = match width {
            4 => pack_panel::<4>,
            16 => pack_panel::<16>,
            PANEL => pack_panel::<PANEL>,
            other => panic!("no tile is {other} columns wide"),
        };
        let ends: Vec<usize> = (1..=cols.div_ceil(PANEL)).collect();
        let [values] = par_buffers(&ends, [depth * PANEL], [true], |panel, [out]| {
            let first = panel * PANEL;
            let columns = first..cols.min(first + PANEL);
            [match joined {
                Joined::Beside if first / each_cols == (columns.end - 1) / each_cols => {
                    let start = first % each_cols;
                    pack(&matrices[first / each_cols..][..1], start..start + columns.len(), out)
                }
                Joined::Beside => pack_seam(matrices, columns, width, out),
                Joined::Below => pack(matrices, columns, out),
            }]
        });
        Self { values, width, depth, cols }
    }

    pub fn depth(&self) -> usize {
        self.depth
    }

    pub fn num_cols(&self) -> usize {
        self.cols
    }

    /// The strips from the one that starts with `column` on, read from row `row` on.
    pub fn strips(&self, column: usize, row: usize) -> Strips<'_> {
        let values = &self.values.get()[column * self.depth..];
        Strips { values, width: self.width, depth: self.depth, row }
    }
}

/// Writes the columns of matrices below each other in strips of `W` columns, those after them as 0.
fn pack_panel<'o, const W: usize>(
    matrices: &[Matrix<'_>],
    columns: Range<usize>,
    out: &'o mut Uninit,
) -> &'o mut [f32] {
    let depth = matrices.first().map_or(0, Matrix::num_rows);
    if depth == 0 {
        return write_rows(out, PANEL, Default::default);
    }
    let strips = (columns.start..columns.start + PANEL).step_by(W).map(|first| match columns.end.checked_sub(first) {
        Some(count) if count > 0 => (first, count.min(W)),
        _ => (columns.start, 0),
    });
    let parts: Vec<Matrix<'_>> =
        strips.flat_map(|(first, count)| matrices.iter().map(move |matrix| matrix.cols(first, count))).collect();
    write_parts(out, depth * W, parts.into_iter(), |columns, out| {
        if columns.is_row_major() {
            return pack_rows::<W>(columns, out);
        }
        let mut block = [[0.0; W]; BLOCK];
        write_blocks(out, block.as_flattened_mut(), |n, block| {
            transpose(columns.rows(n * BLOCK, BLOCK.min(depth - n * BLOCK)), block.as_chunks_mut::<W>().0);
        })
    })
}

/// Reads at most [`BLOCK`] rows of a matrix of at most `W` columns that is transposed in memory.
fn transpose<const W: usize>(matrix: Matrix<'_>, rows: &mut [[f32; W]]) {
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
fn pack_seam<'o>(matrices: &[Matrix<'_>], columns: Range<usize>, width: usize, out: &'o mut Uninit) -> &'o mut [f32] {
    assert!(matrices.iter().all(Matrix::is_row_major), "a matrix beside others is transposed");
    let (depth, each) = matrices.first().map_or((0, 1), |matrix| (matrix.num_rows(), matrix.num_cols()));
    write_parts(out, depth * width, 0..PANEL / width, |strip, out| {
        let columns = columns.clone().skip(strip * width).take(width);
        write_blocks(out, &mut [0.0; PANEL][..width], |row, values| {
            for (value, column) in values.iter_mut().zip(columns.clone()) {
                *value = matrices[column / each].row(row)[column % each];
            }
        })
    })
}
