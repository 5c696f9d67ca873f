//! Rows of tiles as pairs of numbers, and their transpose.

use crate::cpu::bf16::tile::{TILE_DEPTH, TILE_ROWS};

/// A row of a tile. The lower half of each is the first number of a pair.
pub(crate) type Pairs = [u32; TILE_ROWS];

/// Two numbers as a pair.
#[inline(always)]
pub(crate) fn beside(first: u16, second: u16) -> u32 {
    u32::from(first) | u32::from(second) << 16
}

#[inline(always)]
pub(crate) fn read(row: &[u16; TILE_DEPTH]) -> Pairs {
    std::array::from_fn(|n| beside(row[2 * n], row[2 * n + 1]))
}

#[inline(always)]
pub(crate) fn put(pairs: &Pairs, row: &mut [u16; TILE_DEPTH]) {
    for (n, pair) in pairs.iter().enumerate() {
        row[2 * n] = *pair as u16;
        row[2 * n + 1] = (*pair >> 16) as u16;
    }
}

/// The transpose, in four rounds that each move one bit of a row's index into the column's, and the reverse: the
/// compiler makes a shuffle of two registers of each row.
#[inline(always)]
pub(crate) fn transposed(mut rows: [Pairs; TILE_ROWS]) -> [Pairs; TILE_ROWS] {
    const HALF: usize = TILE_ROWS / 2;
    for _ in 0..TILE_ROWS.ilog2() {
        let mut shuffled = [[0; TILE_ROWS]; TILE_ROWS];
        for row in 0..HALF {
            for at in 0..HALF {
                shuffled[2 * row][2 * at] = rows[row][at];
                shuffled[2 * row][2 * at + 1] = rows[row + HALF][at];
                shuffled[2 * row + 1][2 * at] = rows[row][at + HALF];
                shuffled[2 * row + 1][2 * at + 1] = rows[row + HALF][at + HALF];
            }
        }
        rows = shuffled;
    }
    rows
}
