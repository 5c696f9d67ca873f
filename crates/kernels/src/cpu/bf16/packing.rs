//! Numbers rounded to bf16 and packed in the order in which products read them.

use crate::cpu::bf16::pairs::{beside, put, read, transposed};
use crate::cpu::bf16::tile::{TILE_DEPTH, TILE_ROWS, Tile, depth_tiles};
use crate::cpu::gemm::Matrix;
use crate::cpu::simd::vectorised;

/// The bits of `x` in bf16, rounded to nearest, ties to even.
#[inline(always)]
pub(crate) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    // A NaN may lie in the bits that are cut off.
    let number = if x.is_nan() { (bits >> 16) | 0x40 } else { rounded };
    number as u16
}

vectorised! {
    /// Packs a weight: the tiles of 16 columns follow each other, and those of the next 16 columns follow them. `tiles`
    /// are zeros, which fill up both dimensions, the columns to whole blocks.
    pub(crate) fn pack_weight(weight: Matrix<'a>, tiles: &'a mut [Tile]) {
        let (rows, depth) = (weight.num_rows(), weight.num_rows().div_ceil(TILE_DEPTH));
        for row in (0..rows).step_by(2) {
            let (at, pair) = (row / TILE_DEPTH, row % TILE_DEPTH / 2);
            let first = weight.row(row);
            let second = if row + 1 < rows { weight.row(row + 1) } else { &[] };
            for (group, tiles) in tiles.chunks_exact_mut(depth).enumerate() {
                let start = (group * TILE_ROWS).min(first.len());
                let (first, second) = (part(first, start), part(second, start));
                let pairs = &mut tiles[at].0[pair];
                for column in 0..TILE_ROWS {
                    pairs[2 * column] = round(first[column]);
                    pairs[2 * column + 1] = round(second[column]);
                }
            }
        }
    }
}

vectorised! {
    /// Packs the transpose of `weight`, as [`pack_weight`].
    pub(crate) fn pack_transposed(weight: Matrix<'a>, tiles: &'a mut [Tile]) {
        let (rows, depth) = (weight.num_rows(), weight.num_cols().div_ceil(TILE_DEPTH));
        for (group, tiles) in tiles.chunks_exact_mut(depth).enumerate() {
            let first = (group * TILE_ROWS).min(rows);
            for (at, tile) in tiles.iter_mut().enumerate() {
                let mut rounded = [[0; TILE_DEPTH]; TILE_ROWS];
                for (row, slots) in (first..rows).zip(&mut rounded) {
                    let values = &weight.row(row)[at * TILE_DEPTH..];
                    match values.first_chunk::<TILE_DEPTH>() {
                        Some(values) => round_row(values, slots),
                        None => round_row(values, slots),
                    }
                }
                for (pair, slots) in tile.0.iter_mut().enumerate() {
                    for (column, rounded) in rounded.iter().enumerate() {
                        slots[2 * column] = rounded[2 * pair];
                        slots[2 * column + 1] = rounded[2 * pair + 1];
                    }
                }
            }
        }
    }
}

/// 16 values from `start` on, with zeros in the place of absent ones.
#[inline(always)]
fn part(values: &[f32], start: usize) -> [f32; TILE_ROWS] {
    let rest = values.get(start..).unwrap_or_default();
    match rest.first_chunk() {
        Some(whole) => *whole,
        None => {
            let mut padded = [0.0; TILE_ROWS];
            padded[..rest.len()].copy_from_slice(rest);
            padded
        }
    }
}

vectorised! {
    /// Packs the rows of a left factor: the tiles of 16 rows follow each other, and those of the next 16 rows follow
    /// them. Zeros fill up the columns; what is left of the last rows stays as it is.
    pub(crate) fn pack_rows(factor: Matrix<'a>, tiles: &'a mut [Tile]) {
        let depth = factor.num_cols().div_ceil(TILE_DEPTH);
        for row in 0..factor.num_rows() {
            let tiles = &mut tiles[row / TILE_ROWS * depth..][..depth];
            let parts = factor.row(row).chunks_exact(TILE_DEPTH);
            let rest = parts.remainder();
            for (values, tile) in parts.zip(tiles.iter_mut()) {
                round_row(values, &mut tile.0[row % TILE_ROWS]);
            }
            if !rest.is_empty() {
                let mut last = [0.0; TILE_DEPTH];
                last[..rest.len()].copy_from_slice(rest);
                round_row(&last, &mut tiles[depth - 1].0[row % TILE_ROWS]);
            }
        }
    }
}

vectorised! {
    /// Rounds rows of 32 values.
    pub(crate) fn round_rows(values: &'a [f32], rows: &'a mut [[u16; TILE_DEPTH]]) {
        for (values, row) in values.chunks_exact(TILE_DEPTH).zip(rows) {
            round_row(values, row);
        }
    }
}

vectorised! {
    /// Replaces tiles of a left factor by those of its transpose as a weight: pairs of a row become pairs of a column.
    pub(crate) fn transpose_pairs(tiles: &'a mut [Tile]) {
        for tile in tiles {
            let columns = transposed(std::array::from_fn(|row| read(&tile.0[row])));
            for (column, row) in columns.iter().zip(&mut tile.0) {
                put(column, row);
            }
        }
    }
}

vectorised! {
    /// Packs a weight of `count` rows from its rows in the tiles of a left factor. Zeros fill up the last rows.
    pub(crate) fn pair_rows(rows: &'a [Tile], count: usize, tiles: &'a mut [Tile]) {
        let depth = depth_tiles(count);
        let width = tiles.len() / depth / 2;
        for (pair, first) in (0..depth * TILE_DEPTH).step_by(2).enumerate() {
            for at in 0..width {
                let row = |row: usize| match row < count {
                    true => rows[row / TILE_ROWS * width + at].0[row % TILE_ROWS],
                    false => [0; TILE_DEPTH],
                };
                let (first, second) = (row(first), row(first + 1));
                for (half, from) in [0, TILE_ROWS].into_iter().enumerate() {
                    let pairs = std::array::from_fn(|n| beside(first[from + n], second[from + n]));
                    let slots = &mut tiles[(2 * at + half) * depth + pair / TILE_ROWS].0[pair % TILE_ROWS];
                    put(&pairs, slots);
                }
            }
        }
    }
}

#[inline(always)]
fn round_row(values: &[f32], row: &mut [u16; TILE_DEPTH]) {
    for (slot, value) in row.iter_mut().zip(values) {
        *slot = round(*value);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::bf16;

    use super::*;
    use crate::cpu::bf16::tile::width_tiles;

    #[test]
    fn rounds_as_bf16() {
        let patterns = (0..=u32::MAX).step_by(65_521 / 16);
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1.0 + 2f32.powi(-8), 1e-40];
        for x in patterns.map(f32::from_bits).chain(special) {
            if !x.is_nan() {
                assert_eq!(round(x), bf16::from_f32(x).to_bits(), "{x}");
            }
        }
        for bits in [0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0xffff_ffff] {
            assert!(bf16::from_bits(round(f32::from_bits(bits))).is_nan(), "{bits:x}");
        }
    }

    #[test]
    fn numbers_stand_in_the_order_of_products() {
        let (rows, columns) = (35, 18);
        let number = |row: usize, column: usize| (row * columns + column) as f32 / 8.0;
        let values: Vec<f32> = (0..rows * columns).map(|at| number(at / columns, at % columns)).collect();
        // Two tiles of rows times two groups of 16 columns.
        let mut tiles = [Tile::ZERO; 4];
        assert_eq!(width_tiles(columns) * depth_tiles(rows), tiles.len());
        pack_weight(Matrix::new(&values, columns), &mut tiles);
        for row in 0..64 {
            for column in 0..32 {
                let tile = &tiles[column / 16 * 2 + row / 32].0;
                let expected = if row < rows && column < columns { round(number(row, column)) } else { 0 };
                assert_eq!(tile[row % 32 / 2][column % 16 * 2 + row % 2], expected, "{row}, {column}");
            }
        }
        let transposed: Vec<f32> = (0..rows * columns).map(|at| number(at % rows, at / rows)).collect();
        let mut of_transposed = [Tile::ZERO; 4];
        pack_transposed(Matrix::new(&transposed, rows), &mut of_transposed);
        assert!(tiles.iter().zip(&of_transposed).all(|(tile, other)| tile.0 == other.0));
        let mut tiles = vec![Tile([[7; 32]; 16]); 3];
        pack_rows(Matrix::new(&values, columns), &mut tiles);
        for row in 0..48 {
            for column in 0..32 {
                let expected = match (row < rows, column < columns) {
                    (true, true) => round(number(row, column)),
                    (true, false) => 0,
                    (false, _) => 7,
                };
                assert_eq!(tiles[row / 16].0[row % 16][column], expected, "{row}, {column}");
            }
        }
    }

    /// What attention makes of rows of keys and values, against the same from numbers in `f32`.
    #[test]
    fn rows_become_weights() {
        for (rows, columns) in [(32, 32), (33, 64), (70, 32), (15, 96)] {
            let values: Vec<f32> = (0..rows * columns).map(|at| (at * 37 % 1009) as f32 / 64.0).collect();
            let matrix = Matrix::new(&values, columns);
            let mut packed = vec![Tile::ZERO; width_tiles(rows) * depth_tiles(columns)];
            pack_rows(matrix, &mut packed);
            let mut expected = vec![Tile::ZERO; width_tiles(columns) * depth_tiles(rows)];
            let mut found = vec![Tile([[7; 32]; 16]); expected.len()];
            pack_weight(matrix, &mut expected);
            pair_rows(&packed, rows, &mut found);
            assert!(found.iter().zip(&expected).all(|(tile, other)| tile.0 == other.0), "{rows} x {columns}");
            let mut expected = vec![Tile::ZERO; packed.len()];
            pack_transposed(matrix, &mut expected);
            transpose_pairs(&mut packed);
            assert!(packed.iter().zip(&expected).all(|(tile, other)| tile.0 == other.0), "{rows} x {columns}");
        }
    }
}
