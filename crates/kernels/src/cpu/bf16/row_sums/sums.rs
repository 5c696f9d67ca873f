//! Sums over rows, from blocks of 32 columns of both factors.

use std::ops::Range;

use crate::cpu::bf16::row_sums::panels::{PANEL_DEPTH, Panel};
use crate::cpu::bf16::tile::{BLOCK, LeftBlock, Sums, Tile};
use crate::cpu::bf16::unit::{Ready, Unit};
use crate::cpu::chunks::{CHUNK_ROWS, chunk_ends};
use crate::cpu::simd::vectorised;
use crate::cpu::uninit::{Uninit, par_groups};

/// Chunks of rows that are summed from 0, before the sum is added to those of the rows before: rounding errors do not
/// grow with all rows, and 32 columns of a factor, 32 KiB, stay in a core's nearest cache.
const DEPTH_CHUNKS: usize = 512 / CHUNK_ROWS;

/// Columns of the left factor per task: a panel of the right factor is used for two of the left one while it is in a
/// core's nearest cache, and common widths still give tasks to several cores.
const TASK_COLUMNS: usize = 2 * BLOCK;

/// Columns of a factor.
#[derive(Clone, Copy)]
pub(crate) struct Factor<'a> {
    chunks: &'a [Vec<Panel>],
    /// Of each chunk, the first panel of these columns.
    first: usize,
    cols: usize,
}

impl<'a> Factor<'a> {
    /// The columns of part `part`, where every part has `cols` columns.
    pub fn new(chunks: &'a [Vec<Panel>], cols: usize, part: usize) -> Self {
        Self { chunks, first: part * cols.div_ceil(BLOCK), cols }
    }

    fn panel(&self, chunk: usize, block: usize) -> &'a Panel {
        &self.chunks[chunk][self.first + block]
    }
}

/// `left^T right`, `[columns of left, columns of right]`. Chunks of rows are added in their order.
///
/// # Panics
///
/// If the factors have different numbers of chunks.
pub(crate) fn row_sums(unit: Unit, left: Factor<'_>, right: Factor<'_>) -> Vec<f32> {
    assert_eq!(left.chunks.len(), right.chunks.len(), "rows of both factors of sums over rows");
    let [values] = par_groups(&chunk_ends(left.cols, TASK_COLUMNS), [right.cols], |first, [out]| {
        [of_left_columns(&unit.on_this_thread(), left, right, first, out)]
    });
    values
}

/// The rows of the result for the columns of `left` from `first` on.
#[expect(unsafe_code, reason = "the first chunks write every value of the output")]
fn of_left_columns<'o>(
    ready: &Ready,
    left: Factor<'_>,
    right: Factor<'_>,
    first: usize,
    out: &'o mut Uninit,
) -> &'o mut [f32] {
    let rows = TASK_COLUMNS.min(left.cols - first);
    assert_eq!(Some(out.len()), rows.checked_mul(right.cols), "size of the output of sums over rows");
    let count = left.chunks.len();
    let chunks = |first: usize| first..count.min(first + DEPTH_CHUNKS);
    of_chunks(ready, left, right, first, chunks(0), |at, sums| {
        out[at..][..sums.len()].write_copy_of_slice(sums);
    });
    // SAFETY: `of_chunks` calls for every value of every row, also without chunks.
    let out = unsafe { out.assume_init_mut() };
    for at in (DEPTH_CHUNKS..count).step_by(DEPTH_CHUNKS) {
        of_chunks(ready, left, right, first, chunks(at), |at, sums| add(&mut out[at..][..sums.len()], sums));
    }
    out
}

/// Calls `take` with each part of a row of sums, and its place in the output of a task.
fn of_chunks(
    ready: &Ready,
    left: Factor<'_>,
    right: Factor<'_>,
    first: usize,
    chunks: Range<usize>,
    mut take: impl FnMut(usize, &[f32]),
) {
    let last = left.cols.min(first + TASK_COLUMNS);
    let mut sums = Sums::ZERO;
    for column in (0..right.cols).step_by(BLOCK) {
        let width = BLOCK.min(right.cols - column);
        for row in (first..last).step_by(BLOCK) {
            let panels = |chunk| [left.panel(chunk, row / BLOCK), right.panel(chunk, column / BLOCK)];
            let mut pairs = [[&EMPTY; 2]; DEPTH_CHUNKS];
            pairs.iter_mut().zip(chunks.clone()).for_each(|(pair, chunk)| *pair = panels(chunk));
            sum_panels(ready, &pairs[..chunks.len()], &mut sums);
            for (at, sums) in sums.0.chunks_exact(BLOCK).enumerate().take(last - row) {
                take((row - first + at) * right.cols + column, &sums[..width]);
            }
        }
    }
}

static EMPTY: Panel = [Tile::ZERO; 2 * PANEL_DEPTH];

vectorised! {
    fn add(sums: &'a mut [f32], values: &'a [f32]) {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
}

/// The sums of the products of the columns of both panels of each pair, over all pairs; 0 without any.
fn sum_panels(ready: &Ready, pairs: &[[&Panel; 2]], sums: &mut Sums) {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if let Ready::Amx(registers, _) = ready {
        registers.sum_panels(pairs, sums);
        return;
    }
    *sums = Sums::ZERO;
    for [left, right] in pairs {
        let (left, right) = (left.split_at(PANEL_DEPTH), right.split_at(PANEL_DEPTH));
        let left = LeftBlock { tiles: [left.0, left.1], count: BLOCK };
        ready.sums(left, [right.0, right.1], None, sums);
    }
}
