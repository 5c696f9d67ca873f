//! Products of rows with a packed matrix, on one thread.

use std::ops::Range;

use crate::cpu::gemm::Matrix;
use crate::cpu::product::blocked::{Block, blocked_cols};
use crate::cpu::product::output::{Memory, Place, Plus};
use crate::cpu::product::panels::Panels;
use crate::cpu::product::tile::{Columns, DEPTH, PANEL, Slice, rows_by_panel};
use crate::cpu::uninit::Uninit;

/// The rows of a left factor.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Row-major.
    Plain(Matrix<'a>),
    Blocked(Block<'a>),
}

impl Rows<'_> {
    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Plain(x) => [x.num_rows(), x.num_cols()],
            Self::Blocked(x) => [x.rows, x.cols],
        }
    }
}

/// How a product lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Row-major.
    Plain,
    /// As a [`Block`].
    Blocked,
}

/// `x matrix + plus`, in memory of exactly that size.
#[expect(unsafe_code, reason = "the first block writes every value of the output")]
pub(crate) fn product<'o>(
    x: Rows<'_>,
    matrix: &Panels,
    plus: Plus<'_>,
    layout: Layout,
    out: &'o mut Uninit,
) -> &'o mut [f32] {
    let [rows, depth] = x.shape();
    assert_eq!(depth, matrix.depth(), "inner dimensions of a product");
    let cols = matrix.num_cols();
    let cols = if layout == Layout::Blocked { blocked_cols(cols) } else { cols };
    assert_eq!(Some(out.len()), rows.checked_mul(cols), "size of the output of a product");
    add_block(x, rows, matrix, 0, layout, &mut Memory::Fresh(&mut *out, plus));
    // SAFETY: the panels have all columns, and each of them has written its columns of every row.
    let out = unsafe { out.assume_init_mut() };
    for depth in (DEPTH..depth).step_by(DEPTH) {
        add_block(x, rows, matrix, depth, layout, &mut Memory::Filled(&mut *out));
    }
    out
}

/// Computes the part of the products of which the inner dimension starts at `depth`.
fn add_block(x: Rows<'_>, rows: usize, matrix: &Panels, depth: usize, layout: Layout, out: &mut Memory<'_>) {
    let (count, cols) = (DEPTH.min(matrix.depth() - depth), matrix.num_cols());
    for panel in 0..cols.div_ceil(PANEL) {
        let first = panel * PANEL;
        let place = match layout {
            Layout::Plain => Place { start: first, stride: cols, first, count: PANEL.min(cols - first) },
            Layout::Blocked => Place { start: first * rows, stride: PANEL, first, count: PANEL },
        };
        let right = |row: usize| Columns::Packed(matrix.strips(first, depth + row));
        add_columns(x, rows, depth..depth + count, right, out, place);
    }
}

/// Computes the products with a panel's columns, over some of the inner dimension; `right` gives the columns from a row
/// on, counted from the first of them.
pub(super) fn add_columns<'a>(
    x: Rows<'_>,
    rows: usize,
    depth: Range<usize>,
    right: impl Fn(usize) -> Columns<'a>,
    out: &mut Memory<'_>,
    place: Place,
) {
    if rows == 0 {
        return;
    }
    // A row of a block is in as many parts as panels.
    let mut parts = [Default::default(); DEPTH / PANEL];
    let used = match x {
        Rows::Plain(x) => {
            let x = x.cols(depth.start, depth.len());
            parts[0] = (Slice { values: x.values(), stride: x.row_stride(), depth: depth.len() }, right(0));
            1
        }
        Rows::Blocked(x) => {
            let used = depth.len().div_ceil(PANEL);
            for (n, part) in parts[..used].iter_mut().enumerate() {
                *part = (x.slice(depth.start / PANEL + n), right(n * PANEL));
            }
            used
        }
    };
    rows_by_panel(&parts[..used], rows, out, place);
}
