//! The gradients of one head of a short sequence.

use pulp::{Simd, WithSimd};

use crate::cpu::attention::head::{Head, HeadRows};
use crate::cpu::attention::memory::Memory;
use crate::cpu::attention::strip::{Strip, gradients};
use crate::cpu::attention::tiles::{
    MOST_COLUMNS, Output, VECTORS, fits_tiles, in_place, product, rows_of, transpose_of, width, write_transpose,
};
use crate::cpu::gemm::Matrix;
use crate::cpu::product::tile::{Left, arch, columns};

/// Longer sequences are computed by products of whole matrices. In a prototype with AVX2 and heads of 64 columns, 32
/// rows took 0.87 of their time, and more than about 50 rows 1.0 to 1.2: rows as far apart as those of a batch share
/// few sets of an L1 cache.
const MOST_ROWS: usize = 32;

/// Heads of `dim` columns: queries and gradients `[dim, width]`, scores and slopes `[keys, width]`.
pub(crate) fn memory(dim: usize) -> Memory<4> {
    let (transposed, scores) = (dim * MOST_COLUMNS, MOST_ROWS * MOST_COLUMNS);
    Memory::new([transposed, transposed, scores, scores])
}

/// Writes the gradients of query, key and value from that of the output, `[rows, dim]` each: to the rows of `out`, and
/// from a third and two thirds of the distance of two rows on.
///
/// Returns false, and writes nothing, if the sequence is long or its rows are not whole tiles.
///
/// For the formulas, see [`backward`](super::backward::backward).
pub(crate) fn short_backward(
    head: &Head<'_>,
    gradient: Matrix<'_>,
    log_sums: (&[f32], usize),
    memory: &mut Memory<4>,
    out: HeadRows<'_>,
) -> bool {
    struct Call<'m, 'o> {
        head: &'m Head<'m>,
        gradient: Matrix<'m>,
        log_sums: (&'m [f32], usize),
        memory: &'m mut Memory<4>,
        out: HeadRows<'o>,
    }
    impl WithSimd for Call<'_, '_> {
        type Output = bool;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> bool {
            let Self { head, gradient, log_sums, memory, out } = self;
            let ([rows, dim], [query, key, value]) = (head.shape(), head.qkv);
            let is_whole = fits_tiles::<S>(query) && fits_tiles::<S>(key) && fits_tiles::<S>(value);
            if rows > MOST_ROWS || !is_whole || !fits_tiles::<S>(gradient) {
                return false;
            }
            let [queries, gradients, scores, slopes] = memory.parts();
            let HeadRows { values: out, stride } = out;
            let width = width::<S, VECTORS>();
            for first in (0..rows).step_by(width) {
                let strip = Strip { keys: rows, ..Strip::new(head, first, width) };
                let memory = [&mut *queries, &mut *gradients, &mut *scores, &mut *slopes];
                let lanes = if strip.count <= S::F32_LANES {
                    self::slopes::<S, 1>(simd, head, gradient, strip, log_sums, memory)
                } else {
                    self::slopes::<S, VECTORS>(simd, head, gradient, strip, log_sums, memory)
                };
                let (query, gradient) = (query.rows(first, strip.count), gradient.rows(first, strip.count));
                for column in (0..dim).step_by(width) {
                    let of_queries =
                        Output { values: &mut out[first * stride + column..], stride, columns: width, add: false };
                    let right = in_place::<S>(key, column);
                    product(simd, [strip.count, rows], transpose_of(slopes, lanes), right, of_queries);
                    for (part, left, right) in [(1, &*slopes, query), (2, &*scores, gradient)] {
                        let values = &mut out[part * stride / 3 + column..];
                        let out = Output { values, stride, columns: width, add: first > 0 };
                        let left = Left { values: left, row: lanes, depth: 1 };
                        product(simd, [rows, strip.count], left, in_place::<S>(right, column), out);
                    }
                }
            }
            true
        }
    }
    arch().dispatch(Call { head, gradient, log_sums, memory, out })
}

/// Writes the probabilities of a strip with dropout, and the gradients of its scores, and returns how many lanes both
/// have.
#[inline(always)]
fn slopes<S: Simd, const V: usize>(
    simd: S,
    head: &Head<'_>,
    gradient: Matrix<'_>,
    strip: Strip,
    (log_sums, distance): (&[f32], usize),
    [queries, gradients, scores, slopes]: [&mut [f32]; 4],
) -> usize {
    let ([rows, dim], [query, key, value], width) = (head.shape(), head.qkv, width::<S, V>());
    for (matrix, transpose, left, out) in
        [(query, queries, key, &mut *scores), (gradient, gradients, value, &mut *slopes)]
    {
        write_transpose(matrix.rows(strip.first, strip.count), width, transpose);
        let out = Output { values: out, stride: width, columns: width, add: false };
        product(simd, [rows, dim], rows_of(left), columns::<S, V>(transpose, width, 0), out);
    }
    let mut of_strip = [0.0; MOST_COLUMNS];
    for (row, log_sum) in of_strip[..strip.count].iter_mut().enumerate() {
        *log_sum = log_sums[(strip.first + row) * distance];
    }
    self::gradients(head, strip, width, [scores, slopes], &of_strip);
    width
}
