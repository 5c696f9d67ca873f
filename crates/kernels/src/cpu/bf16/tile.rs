//! What a tile register holds, and how many tiles numbers take.

/// Rows of a tile, and columns of a tile of a weight.
pub(crate) const TILE_ROWS: usize = 16;

/// Inner values of a tile: columns of a left factor, rows of a weight.
pub(crate) const TILE_DEPTH: usize = 32;

/// Rows and columns of what one product of blocks computes: two tiles each.
pub(crate) const BLOCK: usize = 2 * TILE_ROWS;

/// What a tile register of AMX holds: 16 rows of 64 bytes.
///
/// A tile of a left factor has 16 rows of 32 columns. A tile of a weight has 32 rows and 16 columns; the numbers of two
/// rows that follow each other are side by side, column after column ("VNNI"): both instruction sets read them so.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub [[u16; TILE_DEPTH]; TILE_ROWS]);

impl Tile {
    pub const ZERO: Self = Self([[0; TILE_DEPTH]; TILE_ROWS]);
}

/// A block of a left factor.
#[derive(Clone, Copy)]
pub(crate) struct LeftBlock<'a> {
    /// Both groups of 16 rows.
    pub tiles: [&'a [Tile]; 2],
    /// Rows that count, at most 32. The sums of the others are of no meaning.
    pub count: usize,
}

/// The sums of a block, row after row.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Sums(pub [f32; BLOCK * BLOCK]);

impl Sums {
    pub const ZERO: Self = Self([0.0; BLOCK * BLOCK]);
}

/// Tiles that `values` of an inner dimension take.
#[inline(always)]
pub(crate) fn depth_tiles(values: usize) -> usize {
    values.div_ceil(TILE_DEPTH)
}

/// Tiles that a weight of `columns` columns takes, for each 32 of its rows.
pub(crate) fn width_tiles(columns: usize) -> usize {
    2 * columns.div_ceil(BLOCK)
}
