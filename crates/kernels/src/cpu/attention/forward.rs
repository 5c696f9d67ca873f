//! The output of one head of one sequence.

use pulp::{Simd, WithSimd};

use crate::cpu::attention::head::{Head, HeadRows};
use crate::cpu::attention::memory::Memory;
use crate::cpu::attention::strip::{Lanes, Strip, probabilities};
use crate::cpu::attention::tiles::{
    MOST_COLUMNS, Output, VECTORS, fits_tiles, in_place, product, rows_of, transpose_of, width, write_transpose,
};
use crate::cpu::gemm::Matrix;
use crate::cpu::product::tile::{arch, columns};

/// Sequences of more rows have their values packed: rows as far apart as those of a batch share few sets of an L1
/// cache.
const MOST_IN_PLACE: usize = 32;

/// For sequences of at most `rows` rows, and heads of `dim` columns: queries `[dim, width]`, scores `[keys, width]`,
/// and values in strips as wide as a tile, `[strips, keys, width]`.
pub(crate) fn memory(rows: usize, dim: usize) -> Memory<3> {
    Memory::new([dim * MOST_COLUMNS, rows * MOST_COLUMNS, rows * dim.next_multiple_of(MOST_COLUMNS)])
}

/// Writes `softmax(Q K^T / sqrt(dim)) V`, `[rows, dim]`, and the log-sum-exp of each row's scores; other values stay as
/// they are. A causal row has the scores of the keys up to its own; dropout applies to the probabilities.
pub(crate) fn forward(head: &Head<'_>, memory: &mut Memory<3>, out: HeadRows<'_>, log_sums: HeadRows<'_>) {
    struct Call<'m, 'o> {
        head: &'m Head<'m>,
        memory: &'m mut Memory<3>,
        out: HeadRows<'o>,
        log_sums: HeadRows<'o>,
    }
    impl WithSimd for Call<'_, '_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self { head, memory, out, log_sums } = self;
            let ([rows, dim], [_, _, value]) = (head.shape(), head.qkv);
            let [queries, scores, values] = memory.parts();
            let width = width::<S, VECTORS>();
            let is_in_place = rows <= MOST_IN_PLACE && fits_tiles::<S>(value);
            if !is_in_place {
                pack(value, width, values);
            }
            for first in (0..rows).step_by(width) {
                let strip = Strip::new(head, first, width);
                let (found, lanes) = if strip.count <= S::F32_LANES {
                    (self::scores::<S, 1>(simd, head, strip, queries, scores), S::F32_LANES)
                } else {
                    (self::scores::<S, VECTORS>(simd, head, strip, queries, scores), width)
                };
                for (row, log_sum) in found[..strip.count].iter().enumerate() {
                    log_sums.values[(first + row) * log_sums.stride] = *log_sum;
                }
                for column in (0..dim).step_by(width) {
                    let right = if is_in_place {
                        in_place::<S>(value, column)
                    } else {
                        columns::<S, VECTORS>(&values[column * rows..], width, 0)
                    };
                    let out = Output {
                        values: &mut out.values[first * out.stride + column..],
                        stride: out.stride,
                        columns: width.min(dim - column),
                        add: false,
                    };
                    product(simd, [strip.count, strip.keys], transpose_of(scores, lanes), right, out);
                }
            }
        }
    }
    arch().dispatch(Call { head, memory, out, log_sums });
}

/// Writes the probabilities of a strip, and returns their log-sum-exp.
#[inline(always)]
fn scores<S: Simd, const V: usize>(
    simd: S,
    head: &Head<'_>,
    strip: Strip,
    queries: &mut [f32],
    scores: &mut [f32],
) -> Lanes {
    let ([_, dim], [query, key, _], width) = (head.shape(), head.qkv, width::<S, V>());
    write_transpose(query.rows(strip.first, strip.count), width, queries);
    let out = Output { values: &mut *scores, stride: width, columns: width, add: false };
    product(simd, [strip.keys, dim], rows_of(key), columns::<S, V>(queries, width, 0), out);
    probabilities(head, strip, width, scores)
}

/// Writes a matrix in strips of `width` columns; columns after the last are 0.
#[inline(always)]
fn pack(matrix: Matrix<'_>, width: usize, out: &mut [f32]) {
    let rows = matrix.num_rows();
    for row in 0..rows {
        for (strip, values) in matrix.row(row).chunks(width).enumerate() {
            let (out, rest) = out[(strip * rows + row) * width..][..width].split_at_mut(values.len());
            out.copy_from_slice(values);
            rest.fill(0.0);
        }
    }
}
