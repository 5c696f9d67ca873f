//! Weights of a training step, which are packed by all threads and used once.

use rayon::prelude::*;

use crate::cpu::bf16::layer::blocks_of;
use crate::cpu::bf16::packing::{pack_rows, pack_transposed, pack_weight};
use crate::cpu::bf16::product::{Columns, Rows, side_by_side, with_kept};
use crate::cpu::bf16::tile::{BLOCK, Tile, depth_tiles, width_tiles};
use crate::cpu::bf16::unit::Unit;
use crate::cpu::gemm::Matrix;
use crate::cpu::uninit::par_rows;

/// A packed weight with its bias.
pub(crate) struct Weight {
    tiles: Vec<Tile>,
    /// For each block of columns; zeros where there is none.
    pub bias: Vec<[f32; BLOCK]>,
    /// Rows of the weight.
    pub input: usize,
    /// Columns of the weight.
    pub output: usize,
}

impl Weight {
    /// Packs `weight`, `[input, output]`.
    pub fn packed(weight: Matrix<'_>, bias: Option<&[f32]>) -> Self {
        let (input, output) = (weight.num_rows(), weight.num_cols());
        let tiles = par_tiles([input, output], |first, count, tiles| pack_weight(weight.cols(first, count), tiles));
        Self { tiles, bias: blocks_of(bias, output), input, output }
    }

    /// Packs the transposes of `weights`, which have the same shape, one below the other: the gradient of an input of
    /// several layers is one product of the gradients of their outputs, side by side.
    pub fn transposed(weights: &[Matrix<'_>]) -> Self {
        let (rows, cols) = weights.first().map_or((0, 0), |weight| (weight.num_rows(), weight.num_cols()));
        let input = cols * weights.len();
        let tiles = par_tiles([input, rows], |first, count, tiles| match weights {
            [weight] => pack_transposed(weight.rows(first, count), tiles),
            _ => {
                let row = |row| weights.iter().flat_map(move |weight| weight.row(row));
                let beside: Vec<f32> = (first..first + count).flat_map(row).copied().collect();
                pack_transposed(Matrix::new(&beside, input), tiles);
            }
        });
        Self { tiles, bias: blocks_of(None, rows), input, output: rows }
    }

    pub fn columns(&self) -> Columns<'_> {
        Columns { tiles: &self.tiles, count: self.output, depth: depth_tiles(self.input) }
    }

    /// Blocks of 32 columns.
    pub fn blocks(&self) -> usize {
        self.bias.len()
    }
}

/// `x W + b` of each of `weights`, side by side: `[rows, outputs of all]`.
pub(crate) fn affine(unit: Unit, x: Matrix<'_>, weights: &[&Weight]) -> Vec<f32> {
    let stride = weights.iter().map(|weight| weight.output).sum::<usize>();
    par_rows(x.num_rows(), stride, |first, out| {
        let ready = unit.on_this_thread();
        with_kept(|[memory, ..]| {
            let rows = Rows::packed(memory, x.rows(first, out.len() / stride));
            side_by_side(&ready, &rows, weights.iter().map(|weight| (weight.columns(), &weight.bias[..])), out)
        })
    })
}

/// The first `count` rows of a factor, with rows of zeros that fill up blocks of 32.
pub(crate) fn padded_rows<'a>(memory: &'a mut Vec<Tile>, factor: Matrix<'_>) -> Rows<'a> {
    let count = factor.num_rows().next_multiple_of(BLOCK);
    let rows = Rows::room(memory, count, factor.num_cols());
    if count > factor.num_rows() {
        rows.tiles.fill(Tile::ZERO);
    }
    pack_rows(factor, rows.tiles);
    rows
}

/// The tiles of a weight of `[rows, columns]`. `fill` gets the first of a block of columns, their number, and their
/// tiles, which are zeros.
#[expect(unsafe_code, reason = "sets the length to what has been written")]
fn par_tiles([rows, columns]: [usize; 2], fill: impl Fn(usize, usize, &mut [Tile]) + Sync) -> Vec<Tile> {
    let (of_block, count) = (2 * depth_tiles(rows), width_tiles(columns) * depth_tiles(rows));
    let mut all = Vec::with_capacity(count);
    let blocks = all.spare_capacity_mut()[..count].par_chunks_exact_mut(of_block.max(1));
    blocks.enumerate().for_each(|(block, tiles)| {
        let first = block * BLOCK;
        for tile in &mut *tiles {
            tile.write(Tile::ZERO);
        }
        // SAFETY: the loop has written every tile.
        fill(first, BLOCK.min(columns - first), unsafe { tiles.assume_init_mut() });
    });
    // SAFETY: `count` is a multiple of the size of a block, so the blocks cover all of these tiles, and each was
    // written.
    unsafe { all.set_len(count) };
    all
}
