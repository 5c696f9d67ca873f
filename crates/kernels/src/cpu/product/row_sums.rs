//! Sums over all rows of a batch of the products of two columns, such as the gradient of a weight.

use std::ops::Range;

use rayon::prelude::*;

use crate::cpu::chunks::{CHUNK_ROWS, chunk_ends};
use crate::cpu::product::blocked::Blocks;
use crate::cpu::product::output::{Memory, Place, Plus};
use crate::cpu::product::tile::{DEPTH, PANEL, RowBlock, columns_by_panel};
use crate::cpu::simd::vectorised;
use crate::cpu::uninit::{Scratch, Uninit, par_groups};

/// Blocks of rows that are summed from 0.
const DEPTH_BLOCKS: usize = DEPTH / CHUNK_ROWS;

/// `left^T right`, `[columns of left, columns of right]`.
pub(crate) fn row_sums(left: Blocks<'_>, right: Blocks<'_>) -> Vec<f32> {
    assert_eq!(left.num_rows(), right.num_rows(), "rows of both factors of sums over rows");
    let [values] = par_groups(&chunk_ends(left.cols, PANEL), [right.cols], |first, [out]| {
        [of_left_panel(left, right, first / PANEL, out)]
    });
    values
}

/// Adds `left^T right` to `sums`, `[columns of left, columns of right]`.
pub(crate) fn add_row_sums(left: Blocks<'_>, right: Blocks<'_>, sums: &mut [f32]) {
    assert_eq!(left.num_rows(), right.num_rows(), "rows of both factors of sums over rows");
    assert_eq!(Some(sums.len()), left.cols.checked_mul(right.cols), "size of sums over rows");
    sums.par_chunks_mut((PANEL * right.cols).max(1)).enumerate().for_each(|(panel, sums)| {
        for first in (0..left.num_blocks()).step_by(DEPTH_BLOCKS) {
            let blocks = first..left.num_blocks().min(first + DEPTH_BLOCKS);
            add_blocks(left, right, panel, blocks, &mut Memory::Filled(&mut *sums));
        }
    });
}

/// As [`add_row_sums`], to sums of more digits. `only_lower`: the values above the diagonal are not needed, and most of
/// them are not computed.
pub(crate) fn add_wide_row_sums(left: Blocks<'_>, right: Blocks<'_>, only_lower: bool, sums: &mut [f64]) {
    let cols = right.cols;
    assert_eq!(left.num_rows(), right.num_rows(), "rows of both factors of sums over rows");
    assert_eq!(Some(sums.len()), left.cols.checked_mul(cols), "size of sums over rows");
    if sums.is_empty() || left.num_rows() == 0 {
        return;
    }
    let panels = sums.par_chunks_mut(PANEL * cols).enumerate();
    panels.for_each_init(
        || Scratch::new(PANEL * cols),
        |scratch, (panel, sums)| {
            let right = if only_lower { right.first_cols((panel + 1) * PANEL) } else { right };
            let values = of_left_panel(left, right, panel, scratch.uninit(sums.len() / cols * right.cols));
            for (sums, values) in sums.chunks_exact_mut(cols).zip(values.chunks_exact(right.cols)) {
                add_wide(sums, values);
            }
        },
    );
}

vectorised! {
    fn add_wide(sums: &'a mut [f64], values: &'a [f32]) {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(*value));
    }
}

/// The rows of the result that a panel of `left` gives.
#[expect(unsafe_code, reason = "the first blocks write every value of the output")]
fn of_left_panel<'o>(left: Blocks<'_>, right: Blocks<'_>, panel: usize, out: &'o mut Uninit) -> &'o mut [f32] {
    let rows = PANEL.min(left.cols - panel * PANEL);
    assert_eq!(Some(out.len()), rows.checked_mul(right.cols), "size of the output of sums over rows");
    let blocks = |first: usize| first..left.num_blocks().min(first + DEPTH_BLOCKS);
    add_blocks(left, right, panel, blocks(0), &mut Memory::Fresh(&mut *out, Plus::Nothing));
    // SAFETY: the panels have all columns, and each of them has written its columns of every row.
    let out = unsafe { out.assume_init_mut() };
    for first in (DEPTH_BLOCKS..left.num_blocks()).step_by(DEPTH_BLOCKS) {
        add_blocks(left, right, panel, blocks(first), &mut Memory::Filled(&mut *out));
    }
    out
}

/// Computes the sums over some blocks of rows.
fn add_blocks(left: Blocks<'_>, right: Blocks<'_>, left_panel: usize, blocks: Range<usize>, out: &mut Memory<'_>) {
    let (stride, rows) = (right.cols, PANEL.min(left.cols - left_panel * PANEL));
    for panel in 0..stride.div_ceil(PANEL) {
        let first = panel * PANEL;
        let place = Place { start: first, stride, first, count: PANEL.min(stride - first) };
        let is_last = first + PANEL >= stride;
        let mut parts = [RowBlock::default(); DEPTH_BLOCKS];
        for (part, block) in parts.iter_mut().zip(blocks.clone()) {
            let next =
                if is_last { after(left, right, left_panel, block) } else { [right.panel(block, panel + 1), &[]] };
            *part = RowBlock { left: left.panel(block, left_panel), right: right.panel(block, panel), next };
        }
        columns_by_panel(&parts[..blocks.len()], rows, out, place);
    }
}

/// The panels that are read after all right ones of a block: of the rows that follow, or for the next left panel.
fn after<'a>(left: Blocks<'a>, right: Blocks<'a>, left_panel: usize, block: usize) -> [&'a [f32]; 2] {
    if block + DEPTH_BLOCKS < left.num_blocks() {
        let block = block + DEPTH_BLOCKS;
        [right.panel(block, 0), left.panel(block, left_panel)]
    } else if (left_panel + 1) * PANEL < left.cols {
        let block = block % DEPTH_BLOCKS;
        [right.panel(block, 0), left.panel(block, left_panel + 1)]
    } else {
        [&[]; 2]
    }
}
