//! Products of rows with a packed matrix, on one thread.

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
    add_block(x, matrix, 0, layout, &mut Memory::Fresh(&mut *out, plus));
    // SAFETY: the panels have all columns, and each of them has written its columns of every row.
    let out = unsafe { out.assume_init_mut() };
    for depth in (DEPTH..depth).step_by(DEPTH) {
        add_block(x, matrix, depth, layout, &mut Memory::Filled(&mut *out));
    }
    out
}

/// Computes the part of the products of which the inner dimension starts at `depth`.
fn add_block(x: Rows<'_>, matrix: &Panels, depth: usize, layout: Layout, out: &mut Memory<'_>) {
    let (count, cols, [rows, _]) = (DEPTH.min(matrix.depth() - depth), matrix.num_cols(), x.shape());
    for panel in 0..cols.div_ceil(PANEL) {
        let first = panel * PANEL;
        let place = match layout {
            Layout::Plain => Place { start: first, stride: cols, first, count: PANEL.min(cols - first) },
            Layout::Blocked => Place { start: first * rows, stride: PANEL, first, count: PANEL },
        };
        let columns = Columns::Packed(matrix.strips(first, depth));
        add_columns(x, depth, &[Piece { depth: count, columns }], out, place);
    }
}

/// Rows of a panel's columns that lie in one piece.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Piece<'a> {
    pub depth: usize,
    pub columns: Columns<'a>,
}

/// Computes the products with a panel's columns. `pieces` are the rows of the inner dimension from `start` on.
/// All but the last have whole panels of rows if the rows of `x` are blocked.
pub(super) fn add_columns(x: Rows<'_>, start: usize, pieces: &[Piece<'_>], out: &mut Memory<'_>, place: Place) {
    let [rows, _] = x.shape();
    if rows == 0 {
        return;
    }
    // A row of a block is in as many parts as panels.
    let (mut parts, mut used, mut at) = ([Default::default(); DEPTH / PANEL], 0, start);
    for &Piece { depth, columns } in pieces {
        match x {
            Rows::Plain(x) => {
                let x = x.cols(at, depth);
                parts[used] = (Slice { values: x.values(), stride: x.row_stride(), depth }, columns);
                used += 1;
            }
            Rows::Blocked(x) => {
                for n in 0..depth.div_ceil(PANEL) {
                    parts[used] = (x.slice(at / PANEL + n), columns.rows_from(n * PANEL));
                    used += 1;
                }
            }
        }
        at += depth;
    }
    rows_by_panel(&parts[..used], rows, out, place);
}
