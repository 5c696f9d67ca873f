//! Products of few rows, such as the tokens of one query, on all threads of the pool: each computes some columns. The
//! matrix is read where it lies, because packing it would take longer than the product.

use crate::cpu::chunks::CHUNK_ROWS;
use crate::cpu::gemm::Matrix;
use crate::cpu::product::output::{Memory, Place, Plus};
use crate::cpu::product::rows::{Rows, add_columns};
use crate::cpu::product::tile::{Columns, DEPTH, PANEL};
use crate::cpu::uninit::{Uninit, par_groups, par_rows, write_rows};

/// Whether [`few_rows`] computes products of this size: rows that one thread would multiply otherwise, and matrices of
/// whole panels.
///
/// With up to four times the rows, a text tower of 384 x 1536 took 1.2 of the time that it takes with packed matrices.
pub(crate) fn are_few(rows: usize, cols: usize) -> bool {
    rows <= CHUNK_ROWS && cols.is_multiple_of(PANEL)
}

/// `x matrices + plus` as a block, of row-major matrices of one shape side by side. The values are those of products
/// with packed matrices, to the bit.
///
/// # Panics
///
/// If the shapes do not fit, or are not for this form.
pub(crate) fn few_rows(x: Rows<'_>, matrices: &[Matrix<'_>], plus: Plus<'_>) -> Vec<f32> {
    let [rows, depth] = x.shape();
    let cols = matrices.first().map_or(0, Matrix::num_cols);
    assert!(are_few(rows, cols), "{rows} rows and {cols} columns are not for products without packing");
    for matrix in matrices {
        assert_eq!([matrix.num_rows(), matrix.num_cols()], [depth, cols], "shape of a factor of a product");
        assert!(matrix.is_row_major() && matrix.row_stride() == cols, "a factor is transposed or part of a matrix");
    }
    let ends: Vec<usize> = (1..=matrices.len() * cols / PANEL).collect();
    let [values] = par_groups(&ends, [rows * PANEL], |panel, [out]| {
        let first = panel * PANEL;
        [of_panel(x, matrices[first / cols].cols(first % cols, PANEL), first, plus, out)]
    });
    values
}

/// Rows of a block of whole panels, row-major.
pub(crate) fn row_major(block: Vec<f32>, rows: usize, cols: usize) -> Vec<f32> {
    if rows == 1 {
        return block;
    }
    par_rows(rows, cols, |first, out| {
        let of_row = |row: usize| (0..cols / PANEL).map(move |panel| (panel * rows + row) * PANEL);
        let mut parts = (first..rows).flat_map(of_row);
        write_rows(out, PANEL, || parts.next().map_or(&[], |at| &block[at..][..PANEL]))
    })
}

/// The products with a panel's columns, of which the first in all matrices is `first`.
#[expect(unsafe_code, reason = "the first block writes every value of the output")]
fn of_panel<'o>(x: Rows<'_>, columns: Matrix<'_>, first: usize, plus: Plus<'_>, out: &'o mut Uninit) -> &'o mut [f32] {
    let ([rows, depth], stride) = (x.shape(), columns.row_stride());
    assert_eq!(Some(out.len()), rows.checked_mul(PANEL), "size of the output of a product");
    let place = Place { start: 0, stride: PANEL, first, count: PANEL };
    let block = |start: usize| start..depth.min(start + DEPTH);
    let right = |start: usize| move |row: usize| Columns::InPlace(columns.values_from_row(start + row), stride);
    add_columns(x, rows, block(0), right(0), &mut Memory::Fresh(&mut *out, plus), place);
    // SAFETY: the place is the whole output, and the first block has written all columns of every row.
    let out = unsafe { out.assume_init_mut() };
    for start in (DEPTH..depth).step_by(DEPTH) {
        add_columns(x, rows, block(start), right(start), &mut Memory::Filled(&mut *out), place);
    }
    out
}
