//! The inner loop: products of a few rows with a panel, summed in registers.

use std::hint::black_box;

use pulp::{Arch, Simd, WithSimd};

use crate::cpu::product::output::{Memory, Place};
use crate::cpu::product::prefetch::prefetch;
use crate::cpu::uninit::LINE;

/// Values in a row of a panel: the four vectors of AVX-512 that six rows of sums are wide.
pub(crate) const PANEL: usize = 64;

/// How many rows ahead a matrix is read that is not packed: a processor does not foresee rows that are on other pages.
pub(super) const ROWS_AHEAD: usize = 16;

/// Rows of both factors of sums over rows that are read at once. Rows that are 256 bytes apart share a quarter of the
/// sets of an L1 cache, which hold this many lines of each factor.
const ROWS_AT_ONCE: usize = 64;

/// Rows of a tile. Six rows of sums fit the registers of AVX2 (rows of 2 vectors, 16 registers), AVX-512 and NEON (rows
/// of 4 vectors, 32 registers) beside the factors.
pub(crate) const TILE_ROWS: usize = 6;

/// The inner dimension is cut into blocks of this many products, each summed from 0.
///
/// A panel's block then stays in a core's L2 cache, and rounding errors do not grow with the whole dimension.
pub(crate) const DEPTH: usize = 512;

/// Code that is compiled for each vector extension, with the number of vectors in a row of sums.
trait Tiled {
    fn run<S: Simd, const V: usize>(self, simd: S);
}

/// Vectors in a row of sums: AVX2 has 16 registers.
#[inline(always)]
const fn vectors<S: Simd>() -> usize {
    if S::F32_LANES == 8 { 2 } else { 4 }
}

/// Runs the form for this processor.
fn tiled<T: Tiled>(tiled: T) {
    struct Call<T>(T);
    impl<T: Tiled> WithSimd for Call<T> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            if vectors::<S>() == 2 {
                self.0.run::<S, 2>(simd);
            } else {
                self.0.run::<S, 4>(simd);
            }
        }
    }
    arch().dispatch(Call(tiled));
}

#[cfg(not(test))]
pub(crate) fn arch() -> Arch {
    Arch::new()
}

#[cfg(test)]
thread_local! {
    /// What this thread computes with in place of the widest vectors.
    pub(crate) static ARCH: std::cell::Cell<Option<Arch>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(crate) fn arch() -> Arch {
    ARCH.get().unwrap_or_default()
}

/// Adds the products of a row of `V` vectors with a value for each of `N` rows of sums.
///
/// Written out, because the compiler keeps sums in memory that a loop addresses. Conditions are known to it.
///
/// `mul_add_e`: one rounding where the processor has the instruction, and two elsewhere, where one would be emulated.
macro_rules! add_row {
    ($simd:ident, $sums:ident, $panel:ident, $N:ident, $V:ident, |$n:ident| $value:expr) => {
        add_row!(@rows $simd $sums $panel $N $V [$n $value] 0 1 2 3 4 5)
    };
    (@rows $simd:ident $sums:ident $panel:ident $N:ident $V:ident $value:tt $($row:literal)*) => {
        $(if $row < $N { add_row!(@row $simd $sums $panel $V $value $row) })*
    };
    (@row $simd:ident $sums:ident $panel:ident $V:ident [$n:ident $value:expr] $row:literal) => {{
        let $n: usize = $row;
        let value = $simd.splat_f32s($value);
        add_row!(@vectors $simd $sums $panel $V value $row, 0 1 2 3);
    }};
    (@vectors $simd:ident $sums:ident $panel:ident $V:ident $value:ident $row:literal, $($v:literal)*) => {{
        $(if $v < $V { $sums[$row][$v] = $simd.mul_add_e_f32s($panel[$v], $value, $sums[$row][$v]); })*
    }};
}

/// Values of a left factor: the one of row `n` at `k` is `values[n * row + k * depth]`.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub values: &'a [f32],
    pub row: usize,
    pub depth: usize,
}

/// The inner loop: adds `depth` products to each value of `N` rows of sums. The rows of the right factor are `step`
/// apart; `ahead` asks for what is read later. [`is_inside`] must hold.
///
/// A macro, because each function that holds it has its own way to keep the sums in registers.
macro_rules! add_depth {
    (
        $simd:ident, $sums:ident [$N:ident, $V:ident], $depth:ident, $left:ident, $right:ident, $step:ident,
        $ahead:expr
    ) => {
        // SAFETY: `is_inside` holds for this depth and these factors: the largest index is within the slice.
        let left = |n: usize, k: usize| unsafe { *$left.values.get_unchecked(n * $left.row + k * $left.depth) };
        // SAFETY: as above.
        let right = |k: usize| unsafe { $right.get_unchecked(k * $step) };
        for k in 0..$depth {
            $ahead(k);
            let row = right(k);
            add_row!($simd, $sums, row, $N, $V, |n| left(n, k));
        }
    };
}

/// Panics unless the factors hold all values of `rows` rows of sums. False if there is nothing to add.
#[inline(always)]
fn is_inside(rows: usize, depth: usize, left: Left<'_>, (right, step): (usize, usize)) -> bool {
    let Some(last) = depth.checked_sub(1) else { return false };
    let last_value = (rows - 1).checked_mul(left.row).zip(last.checked_mul(left.depth));
    let last_value = last_value.and_then(|(row, value)| row.checked_add(value));
    assert!(last_value.is_some_and(|at| at < left.values.len()), "values of the left factor of a tile");
    assert!(last.checked_mul(step).is_some_and(|at| at < right), "rows of the right factor of a tile");
    true
}

/// Adds `depth` products to each value of `N` rows of sums.
///
/// The sums pass through a pointer that hides its target from the compiler. Without it, sums over rows on AVX2 wrote
/// each sum to the stack after each multiply-add. With link-time optimisation, products of rows did so with some sums.
#[inline(always)]
#[expect(unsafe_code, reason = "a bounds check in the inner loop has the compiler keep the sums in memory")]
fn add_products<S: Simd, const V: usize, const N: usize>(
    simd: S,
    sums: &mut [[S::f32s; V]; N],
    depth: usize,
    left: Left<'_>,
    (right, step): (&[[S::f32s; V]], usize),
    ahead: impl Fn(usize),
) {
    if is_inside(N, depth, left, (right.len(), step)) {
        let kept = black_box(sums);
        let mut sums = *kept;
        add_depth!(simd, sums[N, V], depth, left, right, step, ahead);
        *kept = sums;
    }
}

/// `sums`, with `depth` products added to each value. They stay in registers: for products of a few rows and columns,
/// where a way through memory takes as long as the multiply-adds.
#[inline(always)]
#[expect(unsafe_code, reason = "as in `add_products`")]
pub(crate) fn summed<S: Simd, const V: usize, const N: usize>(
    simd: S,
    mut sums: [[S::f32s; V]; N],
    depth: usize,
    left: Left<'_>,
    (right, step): (&[[S::f32s; V]], usize),
) -> [[S::f32s; V]; N] {
    if is_inside(N, depth, left, (right.len(), step)) {
        add_depth!(simd, sums[N, V], depth, left, right, step, |_| ());
    }
    sums
}

/// What is computed tile by tile.
pub(crate) trait Tiles<S: Simd, const V: usize> {
    /// The sums of the rows from `row` on.
    fn tile<const N: usize>(&mut self, simd: S, row: usize);
}

/// Computes all tiles of `rows` rows.
#[inline(always)]
pub(crate) fn each_tile<S: Simd, const V: usize>(simd: S, rows: usize, tiles: &mut impl Tiles<S, V>) {
    let mut row = 0;
    while row < rows {
        let count = match rows - row {
            // Two tiles of 4 rows are faster than one of 6 and one of 2.
            7 | 8 => 4,
            rest => rest.min(TILE_ROWS),
        };
        match count {
            1 => tiles.tile::<1>(simd, row),
            2 => tiles.tile::<2>(simd, row),
            3 => tiles.tile::<3>(simd, row),
            4 => tiles.tile::<4>(simd, row),
            5 => tiles.tile::<5>(simd, row),
            _ => tiles.tile::<TILE_ROWS>(simd, row),
        }
        row += count;
    }
}

/// Part of the rows of a left factor: `depth` values of each, `stride` apart.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slice<'a> {
    pub values: &'a [f32],
    pub stride: usize,
    pub depth: usize,
}

/// A matrix in strips: the columns that a tile is wide, row after row.
///
/// A strip lies in one piece. Spread over the rows of a panel, its rows would share a part of the sets of an L1 cache.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Strips<'a> {
    /// `[strips, depth, width]`.
    pub values: &'a [f32],
    pub width: usize,
    pub depth: usize,
    /// The first row that is read.
    pub row: usize,
}

impl<'a> Strips<'a> {
    /// The strip that starts with a column; empty after the last one.
    #[inline(always)]
    fn at(self, column: usize) -> &'a [f32] {
        self.values.get(column * self.depth + self.row * self.width..).unwrap_or_default()
    }
}

/// Columns of a strip, those of this processor's tiles: 4 without vectors, 16 with AVX2 or NEON, 64 with AVX-512.
pub(crate) fn strip_width() -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            vectors::<S>() * S::F32_LANES
        }
    }
    arch().dispatch(Width)
}

/// Columns of the right factor, as many as a panel has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Columns<'a> {
    Packed(Strips<'a>),
    /// Of a row-major matrix: from the first value on, with the distance between the starts of two rows, a multiple of
    /// [`PANEL`].
    InPlace(&'a [f32], usize),
}

impl Columns<'_> {
    /// Those from row `row` on.
    pub fn rows_from(self, row: usize) -> Self {
        match self {
            Self::Packed(strips) => Self::Packed(Strips { row: strips.row + row, ..strips }),
            Self::InPlace(matrix, stride) => Self::InPlace(&matrix[row * stride..], stride),
        }
    }
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
                each_tile::<S, V>(simd, rows, &mut RowTiles { blocks, column, out: &mut *out, place });
            }
        }
    }
    tiled(Rows { blocks, rows, out, place });
}

/// Some columns of the products of rows with a panel.
struct RowTiles<'m, 'o> {
    blocks: &'m [(Slice<'m>, Columns<'m>)],
    /// The first of them.
    column: usize,
    out: &'m mut Memory<'o>,
    place: Place,
}

impl<S: Simd, const V: usize> Tiles<S, V> for RowTiles<'_, '_> {
    #[inline(always)]
    fn tile<const N: usize>(&mut self, simd: S, row: usize) {
        let mut sums = [[simd.splat_f32s(0.0); V]; N];
        for &(Slice { values, stride, depth }, right) in self.blocks {
            let left = Left { values: &values[row * stride..], row: stride, depth: 1 };
            match right {
                Columns::Packed(strips) => {
                    let width = V * S::F32_LANES;
                    assert_eq!(strips.width, width, "columns of a packed strip");
                    let strip = strips.at(self.column);
                    let next = ahead(strips.at(self.column + width), row, depth, width).unwrap_or(strip);
                    let right = columns::<S, V>(strip, width, 0);
                    add_products(simd, &mut sums, depth, left, right, |k| prefetch(next, k * (LINE / 2)));
                }
                Columns::InPlace(matrix, stride) => {
                    let right = columns::<S, V>(matrix, stride, self.column);
                    add_products(simd, &mut sums, depth, left, right, |k| {
                        // The tiles after the first find the columns in a cache.
                        if row == 0 {
                            for line in (0..V * S::F32_LANES).step_by(LINE) {
                                prefetch(matrix, (k + ROWS_AHEAD) * stride + self.column + line);
                            }
                        }
                    });
                }
            }
        }
        for (n, sums) in sums.iter().enumerate() {
            self.out.store(self.place, row + n, self.column, pulp::bytemuck::cast_slice(sums));
        }
    }
}

/// What the tile from `row` on reads ahead of the next strip, which the first tile would have to wait for: a cache line
/// for every second of its products. Nothing after the first few tiles.
#[inline(always)]
fn ahead(next: &[f32], row: usize, depth: usize, width: usize) -> Option<&[f32]> {
    let at = row / TILE_ROWS * (depth / 2 * LINE);
    next.get(at..(depth * width).min(next.len())).filter(|lines| !lines.is_empty())
}

/// The vectors from `column` on, and the distance between those of a row and those of the next; the rows of `panel` are
/// `stride` values apart.
#[inline(always)]
pub(crate) fn columns<S: Simd, const V: usize>(
    panel: &[f32],
    stride: usize,
    column: usize,
) -> (&[[S::f32s; V]], usize) {
    let width = V * S::F32_LANES;
    let rows = S::as_simd_f32s(panel).0.as_chunks::<V>().0;
    (rows.get(column / width..).unwrap_or_default(), stride / width)
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
            let zero = [simd.splat_f32s(0.0); V];
            for column in (0..place.count).step_by(V * S::F32_LANES) {
                let mut sums = [zero; PANEL];
                for &RowBlock { left, right, next } in blocks {
                    // The other columns find these panels in a cache.
                    let mut next = if column == 0 { next } else { Default::default() };
                    let parts = left.chunks(ROWS_AT_ONCE * PANEL).zip(right.chunks(ROWS_AT_ONCE * PANEL));
                    for (left, right) in parts {
                        let depth = right.len() / PANEL;
                        let right = columns::<S, V>(right, PANEL, column);
                        let (next, sums) = (&mut next, &mut sums);
                        each_tile(simd, rows, &mut ColumnTiles { left, right, depth, next, sums });
                    }
                }
                for (row, sums) in sums[..rows].iter().enumerate() {
                    out.store(place, row, column, pulp::bytemuck::cast_slice(sums));
                }
            }
        }
    }
    tiled(Sums { blocks, rows, out, place });
}

/// Some columns of sums over a block of rows.
struct ColumnTiles<'m, 'a, S: Simd, const V: usize> {
    left: &'m [f32],
    /// The vectors, and the distance between those of a row and those of the next.
    right: (&'m [[S::f32s; V]], usize),
    /// Rows of the block.
    depth: usize,
    /// What is left to read ahead.
    next: &'m mut [&'a [f32]; 2],
    sums: &'m mut [[S::f32s; V]; PANEL],
}

impl<S: Simd, const V: usize> Tiles<S, V> for ColumnTiles<'_, '_, S, V> {
    #[inline(always)]
    fn tile<const N: usize>(&mut self, simd: S, row: usize) {
        let sums = &mut self.sums[row..].as_chunks_mut::<N>().0[0];
        let left = Left { values: &self.left[row..], row: 1, depth: PANEL };
        let next = take_lines(self.next, self.depth).unwrap_or(left.values);
        add_products(simd, sums, self.depth, left, self.right, |k| prefetch(next, k * LINE));
    }
}

/// What a tile reads ahead, a cache line for each of its products: first all of one panel, then of the other.
#[inline(always)]
fn take_lines<'a>([panel, then]: &mut [&'a [f32]; 2], count: usize) -> Option<&'a [f32]> {
    if panel.is_empty() {
        std::mem::swap(panel, then);
    }
    let lines;
    (lines, *panel) = panel.split_at(panel.len().min(count * LINE));
    (!lines.is_empty()).then_some(lines)
}
