//! Linear layers with packed weights, on one thread.

use crate::cpu::bf16::packing::pack_weight;
use crate::cpu::bf16::product::{Columns, Rows, each_block, side_by_side, sums_room, with_kept, with_kept_sums};
use crate::cpu::bf16::tile::{BLOCK, Sums, TILE_DEPTH, Tile, depth_tiles, width_tiles};
use crate::cpu::bf16::unit::{Ready, Unit};
use crate::cpu::gemm::Matrix;
use crate::cpu::uninit::{Uninit, write};

/// A linear layer with its weight in bf16.
pub(crate) struct Layer {
    pub unit: Unit,
    /// As [`pack_weight`] packs them.
    tiles: Vec<Tile>,
    /// For each block of columns; zeros where there is none.
    pub bias: Vec<[f32; BLOCK]>,
    pub input: usize,
    pub output: usize,
}

impl Layer {
    /// `weight` is `[input, output]`, row-major; neither may be 0.
    pub fn new(unit: Unit, weight: &[f32], bias: Option<&[f32]>, [input, output]: [usize; 2]) -> Self {
        assert!(input > 0 && output > 0, "a packed layer has no inputs or no outputs");
        assert_eq!(Some(weight.len()), input.checked_mul(output), "size of the weight of a packed layer");
        assert!(bias.is_none_or(|bias| bias.len() == output), "length of the bias of a packed layer");
        let mut tiles = vec![Tile::ZERO; width_tiles(output) * depth_tiles(input)];
        pack_weight(Matrix::new(weight, output), &mut tiles);
        Self { unit, tiles, bias: blocks_of(bias, output), input, output }
    }

    pub fn columns(&self) -> Columns<'_> {
        Columns { tiles: &self.tiles, count: self.output, depth: depth_tiles(self.input) }
    }
}

/// A bias of `output` columns in blocks, filled up with zeros; all zeros without one.
pub(crate) fn blocks_of(bias: Option<&[f32]>, output: usize) -> Vec<[f32; BLOCK]> {
    let mut blocks = vec![[0.0; BLOCK]; output.div_ceil(BLOCK)];
    for (block, values) in blocks.iter_mut().zip(bias.unwrap_or_default().chunks(BLOCK)) {
        block[..values.len()].copy_from_slice(values);
    }
    blocks
}

/// `x W + b` of each of `layers`, side by side: `[rows, outputs of all]`. They have the same inputs, the columns of
/// `x`.
///
/// # Panics
///
/// If the shapes do not fit, or there is no layer.
pub(crate) fn affine<'o>(layers: &[&Layer], x: Matrix<'_>, out: &'o mut Uninit) -> &'o mut [f32] {
    assert!(layers.iter().all(|layer| layer.input == x.num_cols()), "columns of the input of linear layers");
    let ready = layers[0].unit.on_this_thread();
    with_kept(|[memory, ..]| {
        let rows = Rows::packed(memory, x);
        side_by_side(&ready, &rows, layers.iter().map(|layer| (layer.columns(), &layer.bias[..])), out)
    })
}

/// `activation(x W_up + b_up) W_down + b_down`, `[rows, outputs of down]`. `activation` replaces values, and takes 0 to
/// 0.
///
/// # Panics
///
/// If the shapes do not fit.
pub(crate) fn mlp<'o>(
    up: &Layer,
    activation: impl Fn(&mut [f32]),
    down: &Layer,
    x: Matrix<'_>,
    out: &'o mut Uninit,
) -> &'o mut [f32] {
    assert_eq!(up.input, x.num_cols(), "columns of the input of an MLP");
    let (ready, width) = (up.unit.on_this_thread(), down.output);
    assert_eq!(Some(out.len()), x.num_rows().checked_mul(width), "size of the output of an MLP");
    let out = write(out, |_| 0.0);
    let copy = |[row_block, block]: [usize; 2], sums: &mut [f32]| {
        let at = block * BLOCK;
        let columns = at..(at + BLOCK).min(width);
        for (sums, out) in sums.chunks_exact(BLOCK).zip(out[row_block * BLOCK * width..].chunks_exact_mut(width)) {
            out[columns.clone()].copy_from_slice(&sums[..columns.len()]);
        }
    };
    with_kept(|[memory, inner, ..]| {
        let rows = Rows::packed(memory, x);
        with_kept_sums(|[partial, ..]| mlp_blocks(&ready, [up, down], activation, &rows, (inner, partial), copy));
    });
    out
}

/// Tiles of the inner width of an MLP that are computed at a time: 768 values, of which those of 400 rows fill a third
/// of an L2 cache of 2 MiB.
const SLICE: usize = 24;

/// The blocks of an MLP of `rows`: `take` gets the indices of a block's rows and columns, and its rows of 32 sums.
/// `activation` takes 0 to 0.
pub(crate) fn mlp_blocks(
    ready: &Ready,
    [up, down]: [&Layer; 2],
    activation: impl Fn(&mut [f32]),
    rows: &Rows<'_>,
    (inner_memory, partial): (&mut Vec<Tile>, &mut Vec<Sums>),
    mut take: impl FnMut([usize; 2], &mut [f32]),
) {
    assert_eq!(up.output, down.input, "inner width of an MLP");
    let (blocks, columns) = (rows.blocks(), down.columns());
    let partial = sums_room(partial, blocks * columns.blocks());
    for first in (0..columns.depth).step_by(SLICE) {
        let end = (first + SLICE).min(columns.depth);
        let inner = Rows::room(inner_memory, rows.count, (end - first) * TILE_DEPTH);
        each_block(ready, rows, up.columns().of_blocks(first..end), &up.bias[first..end], |[row_block, at], sums| {
            activation(sums);
            ready.round(sums, row_block * BLOCK, [at, inner.depth], inner.tiles);
        });
        for (block, (bias, partial)) in down.bias.iter().zip(partial.chunks_exact_mut(blocks)).enumerate() {
            let weight = columns.block(block).map(|tiles| &tiles[first..end]);
            for (row_block, sums) in partial.iter_mut().enumerate() {
                ready.sums(inner.block(row_block), weight, (first == 0).then_some(bias), sums);
                if end == columns.depth {
                    take([row_block, block], &mut sums.0[..rows.rows_of(row_block) * BLOCK]);
                }
            }
        }
    }
}
