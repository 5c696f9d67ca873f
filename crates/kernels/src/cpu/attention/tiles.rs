//! Products of rows with a factor of rows as wide as a tile, which lies in a core's nearest cache.

use pulp::Simd;

use crate::cpu::gemm::Matrix;
use crate::cpu::product::tile::{Left, Tiles, columns, each_tile, summed};

/// Vectors in a row of a tile, at most.
pub(super) const VECTORS: usize = 2;

/// Columns of the widest tile: two vectors of AVX-512.
pub(super) const MOST_COLUMNS: usize = 32;

/// Columns of a tile of `V` vectors.
#[inline(always)]
pub(super) const fn width<S: Simd, const V: usize>() -> usize {
    V * S::F32_LANES
}

/// Memory that receives a product.
pub(super) struct Output<'o> {
    /// From the first value of the first row on.
    pub values: &'o mut [f32],
    /// Distance between the starts of two rows.
    pub stride: usize,
    /// Number of columns that are written, at most those of a tile.
    pub columns: usize,
    /// Adds to the values instead of replacing them. All columns of a tile are written then.
    pub add: bool,
}

/// Products of `rows` rows of `depth` values with rows as wide as a tile.
///
/// A value is one chain of multiply-adds over `depth`, which goes on from the value there if it is added to.
#[inline(always)]
pub(super) fn product<S: Simd, const V: usize>(
    simd: S,
    [rows, depth]: [usize; 2],
    left: Left<'_>,
    right: (&[[S::f32s; V]], usize),
    out: Output<'_>,
) {
    each_tile(simd, rows, &mut Products { depth, left, right, out });
}

struct Products<'m, 'o, S: Simd, const V: usize> {
    depth: usize,
    left: Left<'m>,
    right: (&'m [[S::f32s; V]], usize),
    out: Output<'o>,
}

impl<S: Simd, const V: usize> Tiles<S, V> for Products<'_, '_, S, V> {
    #[inline(always)]
    fn tile<const N: usize>(&mut self, simd: S, row: usize) {
        let Self { depth, left, right, out } = self;
        let mut sums = [[simd.splat_f32s(0.0); V]; N];
        let width = width::<S, V>();
        if out.add {
            for (n, sums) in sums.iter_mut().enumerate() {
                let row = &out.values[(row + n) * out.stride..][..width];
                pulp::bytemuck::cast_slice_mut(sums).copy_from_slice(row);
            }
        }
        let left = Left { values: &left.values[row * left.row..], ..*left };
        let sums = summed(simd, sums, *depth, left, *right);
        for (n, sums) in sums.iter().enumerate() {
            let (row, sums) = (&mut out.values[(row + n) * out.stride..], pulp::bytemuck::cast_slice(sums));
            // In two branches, so that the compiler knows the length of whole rows.
            if out.columns == width {
                row[..width].copy_from_slice(sums);
            } else {
                row[..out.columns].copy_from_slice(&sums[..out.columns]);
            }
        }
    }
}

/// The rows of a matrix as a left factor.
#[inline(always)]
pub(super) fn rows_of(matrix: Matrix<'_>) -> Left<'_> {
    Left { values: matrix.values(), row: matrix.row_stride(), depth: 1 }
}

/// The transpose of rows that are `width` values apart, as a left factor.
#[inline(always)]
pub(super) fn transpose_of(values: &[f32], width: usize) -> Left<'_> {
    Left { values, row: 1, depth: width }
}

/// Whether tiles can read the rows of a matrix where it lies.
#[inline(always)]
pub(super) fn fits_tiles<S: Simd>(matrix: Matrix<'_>) -> bool {
    let width = width::<S, VECTORS>();
    matrix.is_row_major() && matrix.num_cols().is_multiple_of(width) && matrix.row_stride().is_multiple_of(width)
}

/// Some columns of a matrix that [fits tiles](fits_tiles), as a right factor.
#[inline(always)]
pub(super) fn in_place<'a, S: Simd>(matrix: Matrix<'a>, column: usize) -> (&'a [[S::f32s; VECTORS]], usize) {
    columns::<S, VECTORS>(&matrix.values()[column..], matrix.row_stride(), 0)
}

/// Writes the transpose of at most `width` rows: `[columns, width]`. Places without a row become 0.
#[inline(always)]
pub(super) fn write_transpose(matrix: Matrix<'_>, width: usize, out: &mut [f32]) {
    let (rows, columns) = (matrix.num_rows(), matrix.num_cols());
    let out = &mut out[..columns * width];
    if rows < width {
        out.fill(0.0);
    }
    for row in 0..rows {
        let values = matrix.row(row);
        for (values, out) in values.iter().zip(out.chunks_exact_mut(width)) {
            out[row] = *values;
        }
    }
}
