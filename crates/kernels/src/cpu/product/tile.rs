//! The inner loop: products of a few rows with a panel, summed in registers.

use pulp::{Arch, Simd, WithSimd};

use crate::cpu::product::output::{Memory, Place};
use crate::cpu::product::prefetch::prefetch;

/// Values in a row of a panel: the four vectors of AVX-512 that six rows of sums are wide.
pub(crate) const PANEL: usize = 64;

/// Values in a cache line.
const LINE: usize = 16;

/// How many rows ahead a matrix is read that is not packed: a processor does not foresee rows that are on other pages.
const ROWS_AHEAD: usize = 16;

/// Rows of a tile. Six rows of sums fit the registers of AVX2 (rows of 2 vectors, 16 registers), AVX-512 and NEON (rows
/// of 4 vectors, 32 registers) beside the factors.
pub(crate) const TILE_ROWS: usize = 6;

/// The inner dimension is cut into blocks of this many products, each summed in registers from 0.
///
/// A panel's block then stays in a core's L2 cache, and rounding errors do not grow with the whole dimension.
pub(crate) const DEPTH: usize = 512;

/// Code that is compiled for each vector extension, with the number of vectors in a row of sums.
trait Tiled {
    fn run<S: Simd, const V: usize>(self, simd: S);
}

/// Runs the form for this processor.
fn tiled<T: Tiled>(tiled: T) {
    struct Call<T>(T);
    impl<T: Tiled> WithSimd for Call<T> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            // SSE and AVX2 have 16 registers.
            if matches!(S::F32_LANES, 4 | 8) && cfg!(target_arch = "x86_64") {
                self.0.run::<S, 2>(simd);
            } else {
                self.0.run::<S, 4>(simd);
            }
        }
    }
    arch().dispatch(Call(tiled));
}

#[cfg(not(test))]
fn arch() -> Arch {
    Arch::new()
}

#[cfg(test)]
thread_local! {
    /// What this thread computes with in place of the widest vectors.
    pub(super) static ARCH: std::cell::Cell<Option<Arch>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
fn arch() -> Arch {
    ARCH.get().unwrap_or_default()
}

/// Adds the products of a panel's row of `V` vectors with a value for each of `N` rows of sums.
///
/// Written out, because the compiler keeps sums in memory that a loop addresses. Conditions are known to it.
///
/// `mul_add_e`: one rounding where the processor has the instruction, and two elsewhere, where one would be emulated.
macro_rules! add_products {
    ($simd:ident, $sums:ident, $panel:ident, $N:ident, $V:ident, |$n:ident| $value:expr) => {
        add_products!(@rows $simd $sums $panel $N $V [$n $value] 0 1 2 3 4 5)
    };
    (@rows $simd:ident $sums:ident $panel:ident $N:ident $V:ident $value:tt $($row:literal)*) => {
        $(if $row < $N { add_products!(@row $simd $sums $panel $V $value $row) })*
    };
    (@row $simd:ident $sums:ident $panel:ident $V:ident [$n:ident $value:expr] $row:literal) => {{
        let $n: usize = $row;
        let value = $simd.splat_f32s($value);
        add_products!(@vectors $simd $sums $panel $V value $row, 0 1 2 3);
    }};
    (@vectors $simd:ident $sums:ident $panel:ident $V:ident $value:ident $row:literal, $($v:literal)*) => {{
        $(if $v < $V { $sums[$row][$v] = $simd.mul_add_e_f32s($panel[$v], $value, $sums[$row][$v]); })*
    }};
}

/// Part of the rows of a left factor: `depth` values of each, `stride` apart.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slice<'a> {
    pub values: &'a [f32],
    pub stride: usize,
    pub depth: usize,
}

/// How many rows the next tile has.
#[inline(always)]
fn next_rows(rest: usize) -> usize {
    match rest {
        // Two tiles of 4 rows are faster than one of 6 and one of 2.
        7 | 8 => 4,
        rest => rest.min(TILE_ROWS),
    }
}

/// Columns of the right factor, as many as a panel has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Columns<'a> {
    /// Of a panel, `[depth, PANEL]`, and of that which follows.
    Packed([&'a [f32]; 2]),
    /// Of a row-major matrix: from the first value on, with the distance between the starts of two rows, a multiple of
    /// [`PANEL`].
    InPlace(&'a [f32], usize),
}

impl Default for Columns<'_> {
    fn default() -> Self {
        Self::Packed(Default::default())
    }
}

/// Products of `rows` rows with a panel's columns. `blocks`: the parts of a block of the inner dimension.
pub(crate) fn rows_by_panel(blocks: &[(Slice<'_>, Columns<'_>)], rows: usize, out: &mut Memory<'_>, place: Place) {
    struct Rows<'m, 'o> {
        blocks: &'m [(Slice<'m>, Columns<'m>)],
        rows: usize,
        out: &'m mut Memory<'o>,
        place: Place,
    }
    impl Tiled for Rows<'_, '_> {
        #[inline(always)]
        fn run<S: Simd, const V: usize>(self, simd: S) {
            let Self { blocks, rows, out, place } = self;
            for column in (0..place.count).step_by(V * S::F32_LANES) {
                let mut row = 0;
                while row < rows {
                    let (count, at) = (next_rows(rows - row), [row, column]);
                    match count {
                        1 => rows_tile::<S, V, 1>(simd, blocks, at, out, place),
                        2 => rows_tile::<S, V, 2>(simd, blocks, at, out, place),
                        3 => rows_tile::<S, V, 3>(simd, blocks, at, out, place),
                        4 => rows_tile::<S, V, 4>(simd, blocks, at, out, place),
                        5 => rows_tile::<S, V, 5>(simd, blocks, at, out, place),
                        _ => rows_tile::<S, V, TILE_ROWS>(simd, blocks, at, out, place),
                    }
                    row += count;
                }
            }
        }
    }
    tiled(Rows { blocks, rows, out, place });
}

#[inline(always)]
fn rows_tile<S: Simd, const V: usize, const N: usize>(
    simd: S,
    blocks: &[(Slice<'_>, Columns<'_>)],
    [row, column]: [usize; 2],
    out: &mut Memory<'_>,
    place: Place,
) {
    let mut sums = [[simd.splat_f32s(0.0); V]; N];
    for &(Slice { values, stride, depth }, right) in blocks {
        let x: [&[f32]; N] = std::array::from_fn(|n| &values[(row + n) * stride..][..depth]);
        match right {
            Columns::Packed([panel, next]) => {
                let next = ahead(next, row, depth);
                let panel = columns::<S, V>(panel, PANEL, column, depth);
                for k in 0..depth {
                    let panel = &panel[k * (PANEL / (V * S::F32_LANES))];
                    if k.is_multiple_of(2) {
                        prefetch(next, k / 2 * LINE);
                    }
                    add_products!(simd, sums, panel, N, V, |n| x[n][k]);
                }
            }
            Columns::InPlace(right, stride) => {
                let panel = columns::<S, V>(right, stride, column, depth);
                for k in 0..depth {
                    let panel = &panel[k * (stride / (V * S::F32_LANES))];
                    // The tiles after the first find the columns in a cache.
                    if row == 0 {
                        for line in (0..V * S::F32_LANES).step_by(LINE) {
                            prefetch(right, (k + ROWS_AHEAD) * stride + column + line);
                        }
                    }
                    add_products!(simd, sums, panel, N, V, |n| x[n][k]);
                }
            }
        }
    }
    let sums = sums;
    for (n, sums) in sums.iter().enumerate() {
        out.store(place, row + n, column, pulp::bytemuck::cast_slice(sums));
    }
}

/// What the tile from `row` on reads ahead of the next panel, which the first tile would have to wait for: a cache line
/// for every second of its products.
#[inline(always)]
fn ahead(next: &[f32], row: usize, depth: usize) -> &[f32] {
    next.get(row / TILE_ROWS * (depth / 2 * LINE)..).unwrap_or_default()
}

/// The vectors of a panel's columns from `column` on; those of a row are `stride` values from those of the next.
#[inline(always)]
fn columns<S: Simd, const V: usize>(panel: &[f32], stride: usize, column: usize, depth: usize) -> &[[S::f32s; V]] {
    let Some(last) = depth.checked_sub(1) else { return &[] };
    let rows = S::as_simd_f32s(&panel[..last * stride + PANEL]).0.as_chunks::<V>().0;
    &rows[column / (V * S::F32_LANES)..]
}

/// A block of rows of both factors of sums over rows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowBlock<'a> {
    /// `[rows, PANEL]`.
    pub left: &'a [f32],
    /// `[rows, PANEL]`.
    pub right: &'a [f32],
    /// The panels that are read next, of as many rows.
    pub next: [&'a [f32]; 2],
}

/// Sums over rows of the products of the first `rows` columns of left panels with the columns of right ones.
pub(crate) fn columns_by_panel(blocks: &[RowBlock<'_>], rows: usize, out: &mut Memory<'_>, place: Place) {
    struct Sums<'m, 'o> {
        blocks: &'m [RowBlock<'m>],
        rows: usize,
        out: &'m mut Memory<'o>,
        place: Place,
    }
    impl Tiled for Sums<'_, '_> {
        #[inline(always)]
        fn run<S: Simd, const V: usize>(self, simd: S) {
            let Self { blocks, rows, out, place } = self;
            for column in (0..place.count).step_by(V * S::F32_LANES) {
                let mut row = 0;
                while row < rows {
                    let (count, at) = (next_rows(rows - row), [row, column]);
                    match count {
                        1 => columns_tile::<S, V, 1>(simd, blocks, at, out, place),
                        2 => columns_tile::<S, V, 2>(simd, blocks, at, out, place),
                        3 => columns_tile::<S, V, 3>(simd, blocks, at, out, place),
                        4 => columns_tile::<S, V, 4>(simd, blocks, at, out, place),
                        5 => columns_tile::<S, V, 5>(simd, blocks, at, out, place),
                        _ => columns_tile::<S, V, TILE_ROWS>(simd, blocks, at, out, place),
                    }
                    row += count;
                }
            }
        }
    }
    tiled(Sums { blocks, rows, out, place });
}

#[inline(always)]
#[expect(unsafe_code, reason = "a bounds check in the inner loop has the compiler keep the sums in memory")]
fn columns_tile<S: Simd, const V: usize, const N: usize>(
    simd: S,
    blocks: &[RowBlock<'_>],
    [row, column]: [usize; 2],
    out: &mut Memory<'_>,
    place: Place,
) {
    let step = PANEL / (V * S::F32_LANES);
    let mut sums = [[simd.splat_f32s(0.0); V]; N];
    for block in blocks {
        let depth = block.right.len() / PANEL;
        let Some(last) = depth.checked_sub(1) else { continue };
        let next = next_line(block.next, row, depth);
        let right = columns::<S, V>(block.right, PANEL, column, depth);
        let left = &block.left[row..];
        assert!(right.len() > last * step && left.len() >= last * PANEL + N, "rows of a panel");
        for k in 0..depth {
            // SAFETY: `k` is at most `last`, with which both are in bounds.
            let (right, left) =
                unsafe { (right.get_unchecked(k * step), left.get_unchecked(k * PANEL..k * PANEL + N)) };
            prefetch(next, k * LINE);
            add_products!(simd, sums, right, N, V, |n| left[n]);
        }
    }
    for (n, sums) in sums.iter().enumerate() {
        out.store(place, row + n, column, pulp::bytemuck::cast_slice(sums));
    }
}

/// What the tile from `row` on reads ahead: a cache line for each of its products, first all of one panel, then the
/// other.
#[inline(always)]
fn next_line(next: [&[f32]; 2], row: usize, depth: usize) -> &[f32] {
    const TILES: usize = PANEL / LINE;
    let tile = row / TILE_ROWS;
    let panel = next.get(tile / TILES).copied().unwrap_or_default();
    panel.get(tile % TILES * (depth * LINE)..).unwrap_or_default()
}
