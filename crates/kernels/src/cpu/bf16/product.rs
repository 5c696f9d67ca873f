//! Products of packed factors, on one thread: 32 columns of a weight are used for all rows while they are in a core's
//! cache.

use std::cell::Cell;
use std::mem::MaybeUninit;

use crate::cpu::bf16::tiles::{BLOCK, Tile, depth_tiles, pack_rows, width_tiles};
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
    /// As [`pack_weight`](crate::cpu::bf16::tiles::pack_weight) packs them.
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

    /// Both groups of 16 rows of a block.
    fn block(&self, block: usize) -> [&[Tile]; 2] {
        halves(self.tiles, self.depth, block)
    }
}

impl<'a> Columns<'a> {
    /// A weight of `rows` rows and `count` columns, which `pack` packs.
    pub fn packed(memory: &'a mut Vec<Tile>, rows: usize, count: usize, pack: impl FnOnce(&mut [Tile])) -> Self {
        let depth = depth_tiles(rows);
        let tiles = room(memory, width_tiles(count) * depth);
        tiles.fill(Tile::ZERO);
        pack(tiles);
        Self { tiles, count, depth }
    }

    pub fn blocks(self) -> usize {
        self.count.div_ceil(BLOCK)
    }

    /// The columns of one block, with those that fill it up.
    pub fn of_block(self, block: usize) -> Self {
        let tiles = 2 * self.depth;
        Self { tiles: &self.tiles[block * tiles..][..tiles], count: BLOCK, depth: self.depth }
    }

    /// Both groups of 16 columns of a block.
    fn block(self, block: usize) -> [&'a [Tile]; 2] {
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

/// The product of whole blocks: rows and columns with those that fill them up, `[32 * blocks, 32 * blocks]`. `bias` has
/// the blocks of `columns`.
#[expect(unsafe_code, reason = "the products write every value of their output")]
pub(crate) fn whole_blocks<'o>(
    ready: &Ready,
    rows: &Rows<'_>,
    columns: Columns<'_>,
    bias: &[[f32; BLOCK]],
    out: &'o mut Uninit,
) -> &'o mut [f32] {
    assert_eq!(columns.depth, rows.depth, "inner dimension of a product of tiles");
    assert_eq!(columns.blocks(), bias.len(), "blocks of a bias");
    let stride = columns.blocks() * BLOCK;
    assert_eq!(out.len(), rows.blocks() * BLOCK * stride, "size of a product of whole blocks");
    for (block, bias) in bias.iter().enumerate() {
        for (row_block, out) in out.chunks_exact_mut(BLOCK * stride).enumerate() {
            ready.multiply(rows.block(row_block), columns.block(block), bias, &mut out[block * BLOCK..], stride);
        }
    }
    // SAFETY: `out` is as many whole blocks as there are, and each product has written all of one.
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

/// Writes a product into columns of `out`, rows `stride` values apart; other values of `out` stay as they are.
#[expect(unsafe_code, reason = "values that are written over need not be initialised")]
pub(crate) fn write_between(ready: &Ready, rows: &Rows<'_>, columns: Columns<'_>, out: &mut [f32], stride: usize) {
    let (start, len) = (out.as_mut_ptr(), out.len());
    // SAFETY: the same memory, borrowed mutably; `write` only puts numbers there.
    let out = unsafe { std::slice::from_raw_parts_mut(start.cast::<MaybeUninit<f32>>(), len) };
    for block in 0..columns.blocks() {
        let count = (columns.count - block * BLOCK).min(BLOCK);
        let columns = Columns { count, ..columns.of_block(block) };
        write(ready, rows, columns, &[[0.0; BLOCK]], &mut out[block * BLOCK..], stride);
    }
}

/// Writes a product to `out`, rows `stride` values apart, and every value of it.
fn write(ready: &Ready, rows: &Rows<'_>, columns: Columns<'_>, bias: &[[f32; BLOCK]], out: &mut Uninit, stride: usize) {
    assert_eq!(columns.depth, rows.depth, "inner dimension of a product of tiles");
    assert_eq!(columns.blocks(), bias.len(), "blocks of a bias");
    for (block, bias) in bias.iter().enumerate() {
        let at = block * BLOCK;
        let width = (columns.count - at).min(BLOCK);
        for row_block in 0..rows.blocks() {
            let row = row_block * BLOCK;
            let height = (rows.count - row).min(BLOCK);
            let out = &mut out[row * stride + at..];
            if [height, width] == [BLOCK; 2] {
                ready.multiply(rows.block(row_block), columns.block(block), bias, out, stride);
                continue;
            }
            let mut whole = [MaybeUninit::uninit(); BLOCK * BLOCK];
            ready.multiply(rows.block(row_block), columns.block(block), bias, &mut whole, BLOCK);
            for (values, out) in whole.chunks_exact(BLOCK).zip(out.chunks_mut(stride)).take(height) {
                out[..width].copy_from_slice(&values[..width]);
            }
        }
    }
}

/// Lends memory for the factors of a task, as large as this thread needed it so far.
pub(crate) fn with_kept<R>(work: impl FnOnce(&mut [Vec<Tile>; 4]) -> R) -> R {
    thread_local! {
        static KEPT: Cell<[Vec<Tile>; 4]> = const { Cell::new([const { Vec::new() }; 4]) };
    }
    let mut memory = KEPT.take();
    let result = work(&mut memory);
    KEPT.set(memory);
    result
}
