//! Rows of bytes to columns of a strip, and back.
//!
//! Squares of 8 x 8 bytes are transposed inside words of 64 bits, by swaps of ever smaller squares (H. S. Warren,
//! Hacker's Delight, 2nd edition, section 7-3). The words of several squares lie side by side, so that each step is one
//! operation on a vector.

use crate::images::resize_pillow::products::STRIP_ROWS;

/// Bytes of a row that are transposed at a time: those of a vector of 512 bits.
pub(super) const TILE: usize = 64;

/// Rows, and bytes of a row, of a square.
const SIDE: usize = 8;

/// Squares side by side.
const SQUARES: usize = TILE / SIDE;

/// The rows of [`SQUARES`] squares: row `i` has the word of row `i` of each.
type Squares = [[u64; SQUARES]; SIDE];

/// Writes up to [`STRIP_ROWS`] rows of equal length into columns. What is left of the last tile becomes zero; rows that
/// are missing have any content.
#[inline(always)]
pub(super) fn to_columns<'a>(columns: &mut [[u8; STRIP_ROWS]], rows: impl Iterator<Item = &'a [u8]>) {
    let mut all: [&[u8]; STRIP_ROWS] = [&[]; STRIP_ROWS];
    for (slot, row) in all.iter_mut().zip(rows) {
        *slot = row;
    }
    for (tile, columns) in columns.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
        for (half, rows) in all.as_chunks::<SIDE>().0.iter().enumerate() {
            let mut squares: Squares = [[0; SQUARES]; SIDE];
            for (words, row) in squares.iter_mut().zip(rows) {
                let rest = row.get(tile * TILE..).unwrap_or_default();
                let bytes: [u8; TILE] = match rest.first_chunk() {
                    Some(whole) => *whole,
                    None => {
                        let mut padded = [0; TILE];
                        padded[..rest.len()].copy_from_slice(rest);
                        padded
                    }
                };
                for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
                    *word = u64::from_le_bytes(*bytes);
                }
            }
            transpose(&mut squares);
            for (square, columns) in columns.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
                for (column, words) in columns.iter_mut().zip(&squares) {
                    column.as_chunks_mut().0[half] = words[square].to_le_bytes();
                }
            }
        }
    }
}

/// Writes columns into rows, up to the length of each row.
#[inline(always)]
pub(super) fn to_rows<'a>(columns: &[[u8; STRIP_ROWS]], rows: impl Iterator<Item = &'a mut [u8]>) {
    let mut all: [&mut [u8]; STRIP_ROWS] = Default::default();
    for (slot, row) in all.iter_mut().zip(rows) {
        *slot = row;
    }
    for (tile, columns) in columns.as_chunks::<TILE>().0.iter().enumerate() {
        for (half, rows) in all.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
            let mut squares: Squares = [[0; SQUARES]; SIDE];
            for (square, columns) in columns.as_chunks::<SIDE>().0.iter().enumerate() {
                for (words, column) in squares.iter_mut().zip(columns) {
                    words[square] = u64::from_le_bytes(column.as_chunks().0[half]);
                }
            }
            transpose(&mut squares);
            for (row, words) in rows.iter_mut().zip(&squares) {
                let mut bytes = [0; TILE];
                for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
                    *bytes = word.to_le_bytes();
                }
                let rest = row.get_mut(tile * TILE..).unwrap_or_default();
                match rest.first_chunk_mut() {
                    Some(whole) => *whole = bytes,
                    None => rest.copy_from_slice(&bytes[..rest.len()]),
                }
            }
        }
    }
}

/// Transposes each square.
#[inline(always)]
fn transpose(squares: &mut Squares) {
    swap::<4>(squares, 0x0000_0000_FFFF_FFFF);
    swap::<2>(squares, 0x0000_FFFF_0000_FFFF);
    swap::<1>(squares, 0x00FF_00FF_00FF_00FF);
}

/// Swaps the `APART` x `APART` bytes at the upper right and at the lower left of every square of twice that side.
/// `mask` has the bytes of a row that are at the left.
#[inline(always)]
fn swap<const APART: usize>(squares: &mut Squares, mask: u64) {
    let bits = 8 * APART;
    for row in (0..SIDE).filter(|row| row & APART == 0) {
        let (mut upper, mut lower) = (squares[row], squares[row + APART]);
        for (upper, lower) in upper.iter_mut().zip(&mut lower) {
            let (right, left) = ((*upper >> bits) & mask, (*lower & mask) << bits);
            *upper = (*upper & mask) | left;
            *lower = right | (*lower & !mask);
        }
        (squares[row], squares[row + APART]) = (upper, lower);
    }
}
