//! The right factor of a product, packed in strips: the columns that a tile is wide, row after row.

use std::ops::Range;

use crate::cpu::gemm::Matrix;
use crate::cpu::product::blocked::pack_rows;
use crate::cpu::product::prefetch::prefetch;
use crate::cpu::product::tile::{PANEL, ROWS_AHEAD, Strips, strip_width};
use crate::cpu::product::transpose::{Lines, transpose_lines};
use crate::cpu::uninit::{Buffer, LINE, Uninit, par_buffers, write_blocks, write_parts, write_rows};

/// How matrices are one factor of a product.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Joined {
    /// Side by side: `[depth, N * cols]`.
    Beside,
    /// Below each other: `[N * depth, cols]`.
    Below,
}

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
        let ends: Vec<usize> = (1..=cols.div_ceil(PANEL)).collect();
        let [values] = par_buffers(&ends, [depth * PANEL], [true], |panel, [out]| {
            let first = panel * PANEL;
            let columns = first..cols.min(first + PANEL);
            [match joined {
                Joined::Beside if first / each_cols == (columns.end - 1) / each_cols => {
                    let start = first % each_cols;
                    pack_columns(&matrices[first / each_cols..][..1], start..start + columns.len(), out)
                }
                Joined::Beside => pack_seam(matrices, columns, width, out),
                Joined::Below => pack_columns(matrices, columns, out),
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

/// Writes the columns of matrices below each other, at most a panel, in strips. Columns after the last are 0.
pub(super) fn pack_columns<'o>(matrices: &[Matrix<'_>], columns: Range<usize>, out: &'o mut Uninit) -> &'o mut [f32] {
    let is_whole = columns.len() == PANEL;
    match strip_width() {
        16 if is_whole => whole_panel::<16>(matrices, columns.start, out),
        PANEL if is_whole => whole_panel::<PANEL>(matrices, columns.start, out),
        4 => pack_panel::<4>(matrices, columns, out),
        16 => pack_panel::<16>(matrices, columns, out),
        PANEL => pack_panel::<PANEL>(matrices, columns, out),
        other => panic!("no tile is {other} columns wide"),
    }
}

/// As [`pack_columns`], of a whole panel, in strips of `W` columns.
///
/// A row is written to all strips at once, so that all of its cache lines are on their way at the same time.
#[expect(unsafe_code, reason = "every value is written first")]
fn whole_panel<'o, const W: usize>(matrices: &[Matrix<'_>], first: usize, out: &'o mut Uninit) -> &'o mut [f32] {
    let each = matrices.first().map_or(0, Matrix::num_rows);
    let depth = each * matrices.len();
    if depth == 0 {
        return write_rows(out, PANEL, Default::default);
    }
    assert!(matrices.iter().all(|matrix| matrix.num_rows() == each), "rows of matrices packed together");
    assert_eq!(Some(out.len()), depth.checked_mul(PANEL), "size of a packed panel");
    let vectors = out.as_chunks_mut::<LINE>().0;
    for (n, matrix) in matrices.iter().enumerate() {
        let columns = matrix.cols(first, PANEL);
        if columns.is_row_major() {
            for row in 0..each {
                prefetch_row(columns, row + ROWS_AHEAD);
                let (values, _) = columns.row(row).as_chunks::<LINE>();
                for (part, values) in values.iter().enumerate() {
                    vectors[vector_at::<W>(depth, n * each + row, part)].write_copy_of_slice(values);
                }
            }
        } else {
            let at = |row, part| vector_at::<W>(depth, n * each + row, part);
            transpose_lines(columns.t(), Lines { out: &mut *vectors, at });
        }
    }
    // SAFETY: each of the matrices has written all columns of its rows, which are all of the panel.
    unsafe { out.assume_init_mut() }
}

/// Index of part `part` of a row of a panel among the vectors of its strips.
#[inline(always)]
fn vector_at<const W: usize>(depth: usize, row: usize, part: usize) -> usize {
    let of_strip = W / LINE;
    (part / of_strip * depth + row) * of_strip + part % of_strip
}

/// Asks for a row of a row-major matrix, if there is such a row.
#[inline(always)]
fn prefetch_row(matrix: Matrix<'_>, row: usize) {
    if row < matrix.num_rows() {
        let values = matrix.values_from_row(row);
        (0..PANEL).step_by(LINE).for_each(|column| prefetch(values, column));
    }
}

/// As [`pack_columns`], in strips of `W` columns.
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
        let mut block = [[0.0; W]; LINE];
        write_blocks(out, block.as_flattened_mut(), |n, block| {
            transpose(columns.rows(n * LINE, LINE.min(depth - n * LINE)), block.as_chunks_mut::<W>().0);
        })
    })
}

/// Reads at most [`LINE`] rows of a matrix of at most `W` columns that is transposed in memory.
fn transpose<const W: usize>(matrix: Matrix<'_>, rows: &mut [[f32; W]]) {
    let (columns, count) = (matrix.t(), matrix.num_rows());
    for from in (0..columns.num_rows()).step_by(LINE) {
        let width = LINE.min(columns.num_rows() - from);
        let mut read = [[0.0; LINE]; LINE];
        for (n, read) in read[..width].iter_mut().enumerate() {
            let column = columns.row(from + n);
            match column.first_chunk::<LINE>() {
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
