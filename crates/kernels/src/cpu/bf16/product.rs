//! Products of packed factors, on one thread: 32 columns of a weight are used for all rows while they are in a core's
//! cache.

use std::cell::Cell;
use std::ops::Range;
use std::thread::LocalKey;

use crate::cpu::bf16::packing::pack_rows;
use crate::cpu::bf16::tile::{BLOCK, LeftBlock, Sums, Tile, depth_tiles, width_tiles};
use crate::cpu::bf16::unit::Ready;
use crate::cpu::chunks::CHUNK_ROWS;
use crate::cpu::gemm::Matrix;
use crate::cpu::uninit::Uninit;

// A task is whole blocks of rows.
const _: () = assert!(CHUNK_ROWS.is_multiple_of(BLOCK));

/// The rows of a left factor.
pub(crate) struct Rows<'a> {
    pub tiles: &'a mut [Tile],
    pub count: usize,
    /// Tiles of a row.
    pub depth: usize,
}

/// A weight.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    /// As [`pack_weight`](crate::cpu::bf16::packing::pack_weight) packs them.
    pub tiles: &'a [Tile],
    pub count: usize,
    /// Tiles of a column.
    pub depth: usize,
}

impl<'a> Rows<'a> {
    /// Room for `count` rows of `columns` columns. What is in it is of no meaning.
    pub fn room(memory: &'a mut Vec<Tile>, count: usize, columns: usize) -> Self {
        let depth = depth_tiles(columns);
        Self { tiles: room(memory, 2 * count.div_ceil(BLOCK) * depth), count, depth }
    }

    pub fn packed(memory: &'a mut Vec<Tile>, factor: Matrix<'_>) -> Self {
        let rows = Self::room(memory, factor.num_rows(), factor.num_cols());
        pack_rows(factor, rows.tiles);
        rows
    }

    pub fn blocks(&self) -> usize {
        self.count.div_ceil(BLOCK)
    }

    /// Rows of a block, without those that fill it up.
    pub fn rows_of(&self, block: usize) -> usize {
        (self.count - block * BLOCK).min(BLOCK)
    }

    pub fn block(&self, block: usize) -> LeftBlock<'_> {
        LeftBlock { tiles: halves(self.tiles, self.depth, block), count: self.rows_of(block) }
    }
}

impl<'a> Columns<'a> {
    /// A weight of `rows` rows and `count` columns, which `pack` packs.
    pub fn packed(memory: &'a mut Vec<Tile>, rows: usize, count: usize, pack: impl FnOnce(&mut [Tile])) -> Self {
        Self::room(memory, rows, count, |tiles| {
            tiles.fill(Tile::ZERO);
            pack(tiles);
        })
    }

    /// The same, where `pack` writes every tile.
    pub fn room(memory: &'a mut Vec<Tile>, rows: usize, count: usize, pack: impl FnOnce(&mut [Tile])) -> Self {
        let depth = depth_tiles(rows);
        let tiles = room(memory, width_tiles(count) * depth);
        pack(tiles);
        Self { tiles, count, depth }
    }

    pub fn blocks(self) -> usize {
        self.count.div_ceil(BLOCK)
    }

    /// The columns of several blocks, with those that fill up the last.
    pub fn of_blocks(self, blocks: Range<usize>) -> Self {
        let tiles = 2 * self.depth;
        let count = blocks.len() * BLOCK;
        Self { tiles: &self.tiles[blocks.start * tiles..blocks.end * tiles], count, depth: self.depth }
    }

    /// Both groups of 16 columns of a block.
    pub fn block(self, block: usize) -> [&'a [Tile]; 2] {
        halves(self.tiles, self.depth, block)
    }
}

fn halves(tiles: &[Tile], depth: usize, block: usize) -> [&[Tile]; 2] {
    let (first, second) = tiles[2 * block * depth..][..2 * depth].split_at(depth);
    [first, second]
}

/// The first `count` tiles of `memory`.
fn room(memory: &mut Vec<Tile>, count: usize) -> &mut [Tile] {
    if memory.len() < count {
        memory.resize(count, Tile::ZERO);
    }
    &mut memory[..count]
}

/// Computes a product block by block: for each 32 columns all rows. `take` gets the indices of the block's rows and
/// columns, and its rows of 32 sums, which are in the nearest cache. `bias` has the blocks of `columns`.
pub(crate) fn each_block(
    ready: &Ready,
    rows: &Rows<'_>,
    columns: Columns<'_>,
    bias: &[[f32; BLOCK]],
    mut take: impl FnMut([usize; 2], &mut [f32]),
) {
    assert_eq!(columns.depth, rows.depth, "inner dimension of a product of tiles");
    assert_eq!(columns.blocks(), bias.len(), "blocks of a bias");
    let mut sums = Sums::ZERO;
    for (block, bias) in bias.iter().enumerate() {
        for row_block in 0..rows.blocks() {
            ready.sums(rows.block(row_block), columns.block(block), Some(bias), &mut sums);
            take([row_block, block], &mut sums.0[..rows.rows_of(row_block) * BLOCK]);
        }
    }
}

/// The product of whole blocks of rows with the columns of one block, `[rows, 32]`. `take` gets the index of each block
/// of rows and its sums, which it may change, before they are written.
#[expect(unsafe_code, reason = "the products write every value of their output")]
pub(crate) fn block_of_columns<'o>(
    ready: &Ready,
    rows: &Rows<'_>,
    columns: Columns<'_>,
    bias: &[f32; BLOCK],
    out: &'o mut Uninit,
    mut take: impl FnMut(usize, &mut [f32]),
) -> &'o mut [f32] {
    assert_eq!(out.len(), rows.blocks() * BLOCK * BLOCK, "size of a product of whole blocks");
    assert_eq!(rows.blocks() * BLOCK, rows.count, "rows of whole blocks");
    each_block(ready, rows, columns, std::slice::from_ref(bias), |[row_block, _], sums| {
        take(row_block, sums);
        out[row_block * BLOCK * BLOCK..][..BLOCK * BLOCK].write_copy_of_slice(sums);
    });
    // SAFETY: `out` is as many whole blocks as there are, and all of each was written.
    unsafe { out.assume_init_mut() }
}

/// The products of `rows` with several weights side by side, each with its bias: `[rows, columns of all]`.
#[expect(unsafe_code, reason = "the products write every value of their output")]
pub(crate) fn side_by_side<'o, 'w>(
    ready: &Ready,
    rows: &Rows<'_>,
    weights: impl Iterator<Item = (Columns<'w>, &'w [[f32; BLOCK]])> + Clone,
    out: &'o mut Uninit,
) -> &'o mut [f32] {
    let stride = weights.clone().map(|(columns, _)| columns.count).sum::<usize>();
    assert_eq!(Some(out.len()), rows.count.checked_mul(stride), "size of products side by side");
    let mut first = 0;
    for (columns, bias) in weights {
        write(ready, rows, columns, bias, &mut out[first.min(rows.count * stride)..], stride);
        first += columns.count;
    }
    // SAFETY: the weights are side by side without a gap, up to `stride`, and `write` has written all rows of each.
    unsafe { out.assume_init_mut() }
}

/// Writes every value of a product to `out`, in rows `stride` values apart.
///
/// Through the sums of a block: tiles of AMX that are stored to rows far apart take as long as their product.
fn write(ready: &Ready, rows: &Rows<'_>, columns: Columns<'_>, bias: &[[f32; BLOCK]], out: &mut Uninit, stride: usize) {
    each_block(ready, rows, columns, bias, |[row_block, block], sums| {
        let (row, at) = (row_block * BLOCK, block * BLOCK);
        let width = (columns.count - at).min(BLOCK);
        for (sums, out) in sums.chunks_exact(BLOCK).zip(out[row * stride + at..].chunks_mut(stride)) {
            out[..width].write_copy_of_slice(&sums[..width]);
        }
    });
}

/// Lends memory for the factors of a task, as large as this thread needed it so far.
pub(crate) fn with_kept<R>(work: impl FnOnce(&mut [Vec<Tile>; 7]) -> R) -> R {
    thread_local! {
        static KEPT: Cell<[Vec<Tile>; 7]> = const { Cell::new([const { Vec::new() }; 7]) };
    }
    lend(&KEPT, work)
}

/// The same for sums.
pub(crate) fn with_kept_sums<R>(work: impl FnOnce(&mut [Vec<Sums>; 2]) -> R) -> R {
    thread_local! {
        static KEPT: Cell<[Vec<Sums>; 2]> = const { Cell::new([const { Vec::new() }; 2]) };
    }
    lend(&KEPT, work)
}

fn lend<M: Default, R>(kept: &'static LocalKey<Cell<M>>, work: impl FnOnce(&mut M) -> R) -> R {
    let mut memory = kept.take();
    let result = work(&mut memory);
    kept.set(memory);
    result
}

/// The first `count` sums of blocks of `memory`. What is in them is of no meaning.
pub(crate) fn sums_room(memory: &mut Vec<Sums>, count: usize) -> &mut [Sums] {
    if memory.len() < count {
        memory.resize(count, Sums::ZERO);
    }
    &mut memory[..count]
}
