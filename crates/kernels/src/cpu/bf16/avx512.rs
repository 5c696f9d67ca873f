//! Products of blocks by AVX512_BF16: an instruction that multiplies pairs of 32 numbers and adds to 16 sums.

use std::arch::x86_64::{
    __cpuid, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_set1_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
};

use crate::cpu::bf16::tile::{BLOCK, LeftBlock, Sums, TILE_DEPTH, TILE_ROWS, Tile};

/// Number of rows with sums in registers at a time: 16 of the 32 registers, two for each row.
const ROWS: usize = 8;

/// That the processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supported(());

impl Supported {
    pub fn ask() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")).then_some(Self(()))
    }

    /// Whether products are faster than in `f32`: twice as fast with AMD's units, while Intel's take 1.4 to 1.8 times
    /// as long.
    pub fn is_faster(self) -> bool {
        let vendor = __cpuid(0);
        let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        name.as_flattened() == b"AuthenticAMD"
    }

    /// Replaces `sums` by `a b + bias`, or without a bias adds `a b`, for the rows that count.
    #[expect(unsafe_code, reason = "a function for processors with these instructions")]
    pub fn sums(self, a: LeftBlock<'_>, b: [&[Tile]; 2], bias: Option<&[f32; BLOCK]>, sums: &mut Sums) {
        let depth = a.tiles[0].len();
        assert!([a.tiles[1], b[0], b[1]].iter().all(|tiles| tiles.len() == depth), "depth of a block");
        let out = (sums.0.as_mut_ptr(), BLOCK);
        let start = bias.map_or((out.0.cast_const(), BLOCK), |bias| (bias.as_ptr(), 0));
        // SAFETY: `sums` are 32 rows of 32 values, borrowed mutably, and each is read before it is written; a stride of
        // 0 reads `bias` once for each row. `self` says that the processor has the instructions.
        unsafe { add_products(a, b, start, out) };
    }

    /// Rounds rows of 32 values to nearest, ties to even, numbers below the normal ones to 0.
    #[expect(unsafe_code, reason = "a function for processors with these instructions")]
    pub fn round<'t>(self, values: &[f32], rows: impl Iterator<Item = &'t mut [u16; TILE_DEPTH]>) {
        // SAFETY: `self` says that the processor has the instructions.
        unsafe { round(values, rows) };
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "loads and stores take pointers")]
fn round<'t>(values: &[f32], rows: impl Iterator<Item = &'t mut [u16; TILE_DEPTH]>) {
    for (values, row) in values.chunks_exact(TILE_DEPTH).zip(rows) {
        // SAFETY: `values` are 32 numbers and `row` 64 bytes, of which every pattern is valid.
        unsafe {
            let halves = [_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(TILE_ROWS))];
            let rounded = _mm512_cvtne2ps_pbh(halves[1], halves[0]);
            _mm512_storeu_si512(row.as_mut_ptr().cast(), std::mem::transmute::<__m512bh, __m512i>(rounded));
        }
    }
}

/// # Safety
///
/// 32 rows of 32 values, as many values apart as the number beside the pointer, must be readable from `start` and
/// writable from `out`.
#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "pointers to rows that overlap where a stride is 0")]
unsafe fn add_products(
    a: LeftBlock<'_>,
    b: [&[Tile]; 2],
    (start, start_stride): (*const f32, usize),
    (out, stride): (*mut f32, usize),
) {
    for row in (0..a.count.min(BLOCK)).step_by(ROWS) {
        let tiles = a.tiles[row / TILE_ROWS];
        // SAFETY: the caller answers for 32 rows, of which these are eight.
        unsafe {
            let (start, out) = (start.add(row * start_stride), out.add(row * stride));
            multiply_rows(tiles, row % TILE_ROWS, b, (start, start_stride), (out, stride));
        }
    }
}

/// The same for [`ROWS`] rows of tiles of a left factor, from row `part` on.
///
/// # Safety
///
/// As [`add_products`], for [`ROWS`] rows.
#[target_feature(enable = "avx512f,avx512bf16")]
#[expect(unsafe_code, reason = "loads and stores take pointers")]
unsafe fn multiply_rows(
    a: &[Tile],
    part: usize,
    b: [&[Tile]; 2],
    (start, start_stride): (*const f32, usize),
    (out, stride): (*mut f32, usize),
) {
    // SAFETY: the caller answers for these rows.
    let mut sums: [_; ROWS] = std::array::from_fn(|row| unsafe {
        let start = start.add(row * start_stride);
        [_mm512_loadu_ps(start), _mm512_loadu_ps(start.add(TILE_ROWS))]
    });
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
        // SAFETY: the caller answers for these rows.
        unsafe {
            let out = out.add(row * stride);
            _mm512_storeu_ps(out, sums[0]);
            _mm512_storeu_ps(out.add(TILE_ROWS), sums[1]);
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
