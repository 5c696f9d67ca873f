//! Transposes a matrix in registers.

use std::mem::MaybeUninit;

use pulp::Arch;

use crate::cpu::gemm::Matrix;
use crate::cpu::product::tile::arch;
use crate::cpu::uninit::LINE;

/// Where the transpose of a matrix of whole lines of rows is written.
pub(super) struct Lines<'o, F> {
    pub out: &'o mut [[MaybeUninit<f32>; LINE]],
    /// Index in `out` of a row of the transpose and of a line in that row.
    pub at: F,
}

/// Writes the transpose of a row-major matrix.
pub(super) fn transpose_lines<F: Fn(usize, usize) -> usize>(matrix: Matrix<'_>, mut lines: Lines<'_, F>) {
    assert!(matrix.num_rows().is_multiple_of(LINE), "rows of a matrix that is transposed line by line");
    let done = match arch() {
        #[cfg(target_arch = "x86_64")]
        Arch::V3(simd) => x86::transpose(simd, matrix, &mut lines),
        #[cfg(target_arch = "x86_64")]
        Arch::V4(simd) => x86::transpose(*simd, matrix, &mut lines),
        _ => 0,
    };
    for first in (done..matrix.num_cols()).step_by(LINE) {
        for line in 0..matrix.num_rows() / LINE {
            for col in first..matrix.num_cols().min(first + LINE) {
                let values: [f32; LINE] = std::array::from_fn(|n| matrix.row(line * LINE + n)[col]);
                lines.out[(lines.at)(col, line)].write_copy_of_slice(&values);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::__m256;

    use pulp::bytemuck::cast;
    use pulp::core_arch::x86::Avx;
    use pulp::x86::V3;

    use super::*;
    use crate::cpu::product::prefetch::prefetch;

    /// Rows and columns of a block that fits the registers of AVX2.
    const BLOCK: usize = 8;

    /// Values of a row that are asked for before they are read.
    const AHEAD: usize = 2 * LINE;

    /// Transposes whole lines; returns how many columns they have.
    pub fn transpose<F: Fn(usize, usize) -> usize>(simd: V3, matrix: Matrix<'_>, lines: &mut Lines<'_, F>) -> usize {
        struct Call<'m, 'l, 'o, F> {
            simd: V3,
            matrix: Matrix<'m>,
            lines: &'l mut Lines<'o, F>,
        }
        impl<F: Fn(usize, usize) -> usize> pulp::NullaryFnOnce for Call<'_, '_, '_, F> {
            type Output = usize;

            #[inline(always)]
            fn call(self) -> usize {
                let Self { simd, matrix, lines } = self;
                let whole = matrix.num_cols() / LINE * LINE;
                for col in (0..whole).step_by(LINE) {
                    for line in 0..matrix.num_rows() / LINE {
                        // All of a line of the rows, which may share few sets of the L1 cache.
                        for col in [col, col + BLOCK] {
                            let first = block(simd, matrix, line * LINE, col);
                            let second = block(simd, matrix, line * LINE + BLOCK, col);
                            for (row, (first, second)) in first.iter().zip(&second).enumerate() {
                                let slots = &mut lines.out[(lines.at)(col + row, line)];
                                let (left, right) = slots.split_at_mut(BLOCK);
                                left.write_copy_of_slice(first);
                                right.write_copy_of_slice(second);
                            }
                        }
                    }
                }
                whole
            }
        }
        simd.vectorize(Call { simd, matrix, lines })
    }

    /// The transpose of a block. The next but one line of each of its rows is read ahead.
    #[inline(always)]
    fn block(simd: V3, matrix: Matrix<'_>, row: usize, col: usize) -> [[f32; BLOCK]; BLOCK] {
        let avx = simd.avx;
        let mut rows = [[0.0; BLOCK]; BLOCK];
        for (n, values) in rows.iter_mut().enumerate() {
            let from = &matrix.row(row + n)[col..];
            if col.is_multiple_of(LINE) {
                prefetch(from, AHEAD);
            }
            values.copy_from_slice(&from[..BLOCK]);
        }
        let (a, b) = (pairs(avx, rows[0], rows[1]), pairs(avx, rows[2], rows[3]));
        let (c, d) = (pairs(avx, rows[4], rows[5]), pairs(avx, rows[6], rows[7]));
        let (upper, lower) = (fours(avx, a, b), fours(avx, c, d));
        let mut columns = [[0.0; BLOCK]; BLOCK];
        for (n, (a, b)) in upper.into_iter().zip(lower).enumerate() {
            columns[n] = cast(avx._mm256_permute2f128_ps::<0x20>(a, b));
            columns[n + 4] = cast(avx._mm256_permute2f128_ps::<0x31>(a, b));
        }
        columns
    }

    /// Values of two rows beside each other.
    #[inline(always)]
    fn pairs(avx: Avx, a: [f32; BLOCK], b: [f32; BLOCK]) -> [__m256; 2] {
        let (a, b) = (cast(a), cast(b));
        [avx._mm256_unpacklo_ps(a, b), avx._mm256_unpackhi_ps(a, b)]
    }

    /// Values of four rows of a column beside each other: of columns 0 and 4, 1 and 5, 2 and 6, 3 and 7.
    #[inline(always)]
    fn fours(avx: Avx, [a, b]: [__m256; 2], [c, d]: [__m256; 2]) -> [__m256; 4] {
        [
            avx._mm256_shuffle_ps::<0b01_00_01_00>(a, c),
            avx._mm256_shuffle_ps::<0b11_10_11_10>(a, c),
            avx._mm256_shuffle_ps::<0b01_00_01_00>(b, d),
            avx._mm256_shuffle_ps::<0b11_10_11_10>(b, d),
        ]
    }
}
