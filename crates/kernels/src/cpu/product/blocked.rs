//! Rows of a batch in blocks of [`CHUNK_ROWS`] rows, or in one block of at most [`DEPTH`] rows. A block is cut into
//! panels of [`PANEL`] columns, `[rows, PANEL]` each, so that a product can read its rows and a sum over rows its
//! columns without packing them.

use rayon::prelude::*;

use crate::cpu::chunks::CHUNK_ROWS;
use crate::cpu::gemm::Matrix;
use crate::cpu::product::tile::{DEPTH, PANEL, Slice};
use crate::cpu::simd::vectorised;
use crate::cpu::uninit::{
    Buffer, Scratch, Uninit, par_buffers, par_buffers_with, write_blocks, write_parts, write_rows,
};

/// Values per row of `cols` columns, those that fill up the last panel included.
pub(crate) fn blocked_cols(cols: usize) -> usize {
    cols.next_multiple_of(PANEL)
}

/// Packs the rows of `x` to a block; values after the last column are 0.
pub(crate) fn pack_block<'o>(x: Matrix<'_>, out: &'o mut Uninit) -> &'o mut [f32] {
    let (rows, cols) = (x.num_rows(), x.num_cols());
    if rows == 0 {
        return write_rows(out, PANEL, Default::default);
    }
    let panels = (0..cols).step_by(PANEL).map(|first| x.cols(first, PANEL.min(cols - first)));
    write_parts(out, rows * PANEL, panels, pack_rows::<PANEL>)
}

/// Fills blocks of a batch in parallel by panels; buffer `n` is one of `rows[n]` rows.
pub(crate) fn each_panel<const N: usize, F>(rows: [usize; N], aligned: [bool; N], panels: usize, fill: F) -> [Buffer; N]
where
    F: for<'a> Fn(&mut Scratch, usize, [&'a mut Uninit; N]) -> [&'a mut [f32]; N] + Sync,
{
    let ends: Vec<usize> = (1..=panels).collect();
    par_buffers_with(&ends, rows.map(|rows| rows * PANEL), aligned, panel_scratch, fill)
}

/// Memory of a task for [`DEPTH`] rows of a panel.
pub(crate) fn panel_scratch() -> Scratch {
    Scratch::aligned(DEPTH * PANEL)
}

/// Packs all rows of `x` to one block, in parallel by panels, of which `x` has whole ones.
pub(crate) fn pack_one(x: Matrix<'_>) -> Buffer {
    let ends: Vec<usize> = (1..=x.num_cols() / PANEL).collect();
    let [values] = par_buffers(&ends, [x.num_rows() * PANEL], [true], |panel, [out]| {
        [pack_rows::<PANEL>(x.cols(panel * PANEL, PANEL), out)]
    });
    values
}

/// Writes the rows of a row-major matrix of at most `W` columns, filled up with 0.
pub(crate) fn pack_rows<'o, const W: usize>(x: Matrix<'_>, out: &'o mut Uninit) -> &'o mut [f32] {
    let (mut row, mut padded) = (0, [0.0; W]);
    if x.num_cols() == W {
        return write_rows(out, W, || {
            row += 1;
            x.row(row - 1)
        });
    }
    write_blocks(out, &mut padded, |row, padded| padded[..x.num_cols()].copy_from_slice(x.row(row)))
}

/// A block of rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a> {
    values: &'a [f32],
    pub rows: usize,
    pub cols: usize,
}

impl<'a> Block<'a> {
    pub fn new(values: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(Some(values.len()), rows.checked_mul(blocked_cols(cols)), "size of a block");
        Self { values, rows, cols }
    }

    /// The columns of one panel.
    pub fn panel(&self, panel: usize) -> &'a [f32] {
        &self.values[panel * self.rows * PANEL..][..self.rows * PANEL]
    }

    /// The rows' values in one panel, those that fill it up left out.
    pub fn slice(&self, panel: usize) -> Slice<'a> {
        Slice { values: self.panel(panel), stride: PANEL, depth: PANEL.min(self.cols - panel * PANEL) }
    }
}

/// Where blocks are in memory.
#[derive(Debug, Clone, Copy)]
enum BlockValues<'a> {
    /// One after the other.
    Joined(&'a [f32]),
    /// Each in a place of its own.
    Each(&'a [&'a [f32]]),
}

/// All blocks of a batch. Several matrices may be in a block, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocks<'a> {
    values: BlockValues<'a>,
    rows: usize,
    /// Rows of a block.
    block_rows: usize,
    /// Columns of all matrices, as blocked.
    all_cols: usize,
    /// First panel of this matrix.
    first: usize,
    /// Columns of this matrix.
    pub cols: usize,
}

impl<'a> Blocks<'a> {
    /// The matrix `[rows, cols]` at `index` of `count` matrices of this shape.
    pub fn new(values: &'a [f32], rows: usize, cols: usize, [index, count]: [usize; 2]) -> Self {
        let all_cols = blocked_cols(cols) * count;
        assert_eq!(Some(values.len()), rows.checked_mul(all_cols), "size of blocked rows");
        let first = index * (blocked_cols(cols) / PANEL);
        Self { values: BlockValues::Joined(values), rows, block_rows: CHUNK_ROWS, all_cols, first, cols }
    }

    /// The matrix `[rows, cols]` of which each of `blocks` has [`CHUNK_ROWS`] rows, the last the rest.
    pub fn each(blocks: &'a [&'a [f32]], rows: usize, cols: usize) -> Self {
        let all_cols = blocked_cols(cols);
        assert_eq!(blocks.len(), rows.div_ceil(CHUNK_ROWS), "number of blocks");
        for (n, block) in blocks.iter().enumerate() {
            assert_eq!(block.len(), CHUNK_ROWS.min(rows - n * CHUNK_ROWS) * all_cols, "size of a block");
        }
        Self { values: BlockValues::Each(blocks), rows, block_rows: CHUNK_ROWS, all_cols, first: 0, cols }
    }

    /// The same with all rows in one block, at most [`DEPTH`].
    pub fn in_one(self) -> Self {
        assert!(matches!(self.values, BlockValues::Joined(_)), "blocks apart in memory are not one");
        assert!(self.rows <= DEPTH, "{} rows are not summed from 0 in one block", self.rows);
        Self { block_rows: self.rows.max(1), ..self }
    }

    /// The first `cols` columns.
    pub fn first_cols(self, cols: usize) -> Self {
        Self { cols: cols.min(self.cols), ..self }
    }

    pub fn num_rows(&self) -> usize {
        self.rows
    }

    pub fn num_blocks(&self) -> usize {
        self.rows.div_ceil(self.block_rows)
    }

    /// The sums of all columns.
    pub fn column_sums(&self) -> Vec<f32> {
        let mut sums = vec![0.0; self.cols];
        sums.par_chunks_mut(PANEL).enumerate().for_each(|(panel, sums)| {
            for block in 0..self.num_blocks() {
                add_rows(sums, self.panel(block, panel));
            }
        });
        sums
    }

    /// A panel of a block, `[rows, PANEL]`.
    pub fn panel(&self, block: usize, panel: usize) -> &'a [f32] {
        let first = block * self.block_rows;
        let count = self.block_rows.min(self.rows - first) * PANEL;
        let values = match self.values {
            BlockValues::Joined(values) => &values[first * self.all_cols..],
            BlockValues::Each(blocks) => blocks[block],
        };
        &values[(self.first + panel) * count..][..count]
    }
}

vectorised! {
    /// Adds the rows of a panel.
    fn add_rows(sums: &'a mut [f32], panel: &'a [f32]) {
        for row in panel.chunks_exact(PANEL) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
    }
}
