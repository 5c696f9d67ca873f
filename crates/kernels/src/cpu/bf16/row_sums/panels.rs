//! Columns of a chunk of rows, in the order in which sums over rows read them.

use rayon::prelude::*;

use crate::cpu::bf16::packing::round;
use crate::cpu::bf16::pairs::{Pairs, beside, put, transposed};
use crate::cpu::bf16::tile::{BLOCK, TILE_DEPTH, TILE_ROWS, Tile};
use crate::cpu::chunks::CHUNK_ROWS;
use crate::cpu::gemm::Matrix;
use crate::cpu::simd::vectorised;

/// Tiles of 16 columns of a panel.
pub(crate) const PANEL_DEPTH: usize = CHUNK_ROWS / TILE_DEPTH;

/// 32 columns of [`CHUNK_ROWS`] rows: the tiles of the first 16 columns, then those of the others. Zeros stand in the
/// place of absent rows and columns. The rows are the inner values of tiles, of a left factor or of a weight.
pub(crate) type Panel = [Tile; 2 * PANEL_DEPTH];

/// Which factor of a sum over rows is packed.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Left,
    Right,
}

/// The panels of each chunk of rows of `parts`, which have the same rows: those of the first part from left to right,
/// then those of the next.
pub(crate) fn panels(parts: &[Matrix<'_>], side: Side) -> Vec<Vec<Panel>> {
    let rows = parts.first().map_or(0, Matrix::num_rows);
    (0..rows.div_ceil(CHUNK_ROWS))
        .into_par_iter()
        .map(|chunk| {
            let (first, count) = (chunk * CHUNK_ROWS, CHUNK_ROWS.min(rows - chunk * CHUNK_ROWS));
            parts.iter().flat_map(|part| panels_of_chunk(part.rows(first, count), side)).collect()
        })
        .collect()
}

/// The panels of a chunk of at most [`CHUNK_ROWS`] rows.
pub(crate) fn panels_of_chunk(chunk: Matrix<'_>, side: Side) -> Vec<Panel> {
    let cols = chunk.num_cols();
    let mut panels = Vec::with_capacity(cols.div_ceil(BLOCK));
    for first in (0..cols).step_by(BLOCK) {
        push(&mut panels, chunk.cols(first, BLOCK.min(cols - first)), side);
    }
    panels
}

/// Adds the panel of at most [`CHUNK_ROWS`] rows of at most 32 columns.
pub(crate) fn push(panels: &mut Vec<Panel>, block: Matrix<'_>, side: Side) {
    let mut panel = [Tile::ZERO; 2 * PANEL_DEPTH];
    match side {
        Side::Left => pack_left(block, &mut panel),
        Side::Right => pack_right(block, &mut panel),
    }
    panels.push(panel);
}

vectorised! {
    /// Packs columns as those of a weight: pairs of rows side by side.
    fn pack_right(block: Matrix<'a>, panel: &'a mut Panel) {
        for row in (0..block.num_rows()).step_by(2) {
            let (at, pair) = (row / TILE_DEPTH, row % TILE_DEPTH / 2);
            let [left, right] = pairs_of(block, row);
            put(&left, &mut panel[at].0[pair]);
            put(&right, &mut panel[PANEL_DEPTH + at].0[pair]);
        }
    }
}

vectorised! {
    /// Packs columns as the rows of a left factor: pair by pair the transpose of what [`pack_right`] packs.
    fn pack_left(block: Matrix<'a>, panel: &'a mut Panel) {
        for at in 0..block.num_rows().div_ceil(TILE_DEPTH) {
            let [mut left, mut right] = [[[0; TILE_ROWS]; TILE_ROWS]; 2];
            for (pair, (left, right)) in left.iter_mut().zip(&mut right).enumerate() {
                [*left, *right] = pairs_of(block, at * TILE_DEPTH + 2 * pair);
            }
            for (half, pairs) in [left, right].into_iter().enumerate() {
                let columns = transposed(pairs);
                for (column, slots) in columns.iter().zip(&mut panel[half * PANEL_DEPTH + at].0) {
                    put(column, slots);
                }
            }
        }
    }
}

/// The numbers of a row and of the next one, rounded, side by side for each of 32 columns.
#[inline(always)]
fn pairs_of(block: Matrix<'_>, row: usize) -> [Pairs; 2] {
    let (first, second) = (padded(block, row), padded(block, row + 1));
    let mut pairs = [[0; TILE_ROWS]; 2];
    for (half, pairs) in pairs.iter_mut().enumerate() {
        for (column, pair) in pairs.iter_mut().enumerate() {
            let at = half * TILE_ROWS + column;
            *pair = beside(round(first[at]), round(second[at]));
        }
    }
    pairs
}

/// A row, with zeros in the place of absent values.
#[inline(always)]
fn padded(block: Matrix<'_>, row: usize) -> [f32; BLOCK] {
    let mut padded = [0.0; BLOCK];
    if row < block.num_rows() {
        let values = block.row(row);
        match values.first_chunk() {
            Some(whole) => padded = *whole,
            None => padded[..values.len()].copy_from_slice(values),
        }
    }
    padded
}
