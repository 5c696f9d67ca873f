//! Products of blocks by AVX512_BF16: an instruction that multiplies pairs of 32 numbers and adds to 16 sums.

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_storeu_ps,
};

use crate::cpu::bf16::tiles::{BLOCK, TILE_DEPTH, TILE_ROWS, Tile};
use crate::cpu::uninit::Uninit;

/// Rows whose sums are in registers at a time: 16 of 32 registers, in two columns of them.
const ROWS: usize = 8;

/// That the processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supported(());

impl Supported {
    pub fn ask() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")).then_some(Self(()))
    }

    /// `a b + bias`, written to the 32 rows of `out`, `stride` values apart. `a`: 16 rows each. `b`: 16 columns each.
    #[expect(unsafe_code, reason = "a function for processors with these instructions")]
    pub fn multiply(self, a: [&[Tile]; 2], b: [&[Tile]; 2], bias: &[f32; BLOCK], out: &mut Uninit, stride: usize) {
        let depth = a[0].len();
        assert!([a[1], b[0], b[1]].iter().all(|tiles| tiles.len() == depth), "depth of a block");
        assert!(stride >= BLOCK && out.len() >= (BLOCK - 1) * stride + BLOCK, "a block reaches beyond its output");
        for (tiles, first) in a.into_iter().zip([0, TILE_ROWS]) {
            for part in (0..TILE_ROWS).step_by(ROWS) {
                // SAFETY: `self` says that the processor has the instructions.
                unsafe { multiply_rows(tiles, part, b, bias, &mut out[(first + part) * stride..], stride) };
            }
        }
    }
}

/// The same for [`ROWS`] rows of tiles of a left factor, from row `part` on.
#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "loads and stores take pointers")]
fn multiply_rows(a: &[Tile], part: usize, b: [&[Tile]; 2], bias: &[f32; BLOCK], out: &mut Uninit, stride: usize) {
    // SAFETY: each half of `bias` is 16 numbers.
    let bias = unsafe { [_mm512_loadu_ps(bias.as_ptr()), _mm512_loadu_ps(bias.as_ptr().add(TILE_ROWS))] };
    let mut sums = [bias; ROWS];
    for ((a, left), right) in a.iter().zip(b[0]).zip(b[1]) {
        // SAFETY: a row of a tile is 16 pairs of numbers, 64 bytes, of which every pattern is valid.
        let a: &[[i32; TILE_DEPTH / 2]; TILE_ROWS] = unsafe { &*(&raw const a.0).cast() };
        let rows: &[_; ROWS] = match a[part..].first_chunk() {
            Some(rows) => rows,
            None => unreachable!("the rows of a tile are a multiple of these"),
        };
        for (pair, (left, right)) in left.0.iter().zip(&right.0).enumerate() {
            let columns = [of_pairs(load(left)), of_pairs(load(right))];
            for (sums, row) in sums.iter_mut().zip(rows) {
                let both = of_pairs(_mm512_set1_epi32(row[pair]));
                sums[0] = _mm512_dpbf16_ps(sums[0], both, columns[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], both, columns[1]);
            }
        }
    }
    for (row, sums) in sums.into_iter().enumerate() {
        let out = &mut out[row * stride..][..BLOCK];
        // SAFETY: `out` is 32 values, borrowed mutably.
        unsafe {
            _mm512_storeu_ps(out.as_mut_ptr().cast(), sums[0]);
            _mm512_storeu_ps(out.as_mut_ptr().cast::<f32>().add(TILE_ROWS), sums[1]);
        }
    }
}

#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "a load takes a pointer")]
fn load(row: &[u16; TILE_DEPTH]) -> __m512i {
    // SAFETY: a row of a tile is 64 bytes.
    unsafe { _mm512_loadu_si512(row.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "another name for the same bits")]
fn of_pairs(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of which every pattern is valid.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
}
