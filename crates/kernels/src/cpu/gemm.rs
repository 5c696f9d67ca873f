//! Single-threaded matrix products over slices: bounds-checked views in front of the `gemm` crate, which Flex uses too.

use crate::cpu::uninit::Uninit;

/// A strided view of a matrix, `[rows, cols]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix of `cols` columns; its number of rows follows from the length of `values`.
    pub fn new(values: &'a [f32], cols: usize) -> Self {
        Self { values, rows: values.len() / cols.max(1), cols, row_stride: cols, col_stride: 1 }
    }

    #[inline(always)]
    pub fn num_rows(&self) -> usize {
        self.rows
    }

    pub fn num_cols(&self) -> usize {
        self.cols
    }

    /// One row of a matrix that is not transposed.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.row_stride..][..self.cols]
    }

    /// Rows `first..first + count`.
    pub fn rows(self, first: usize, count: usize) -> Self {
        Self { values: &self.values[first * self.row_stride..], rows: count, ..self }
    }

    /// Columns `first..first + count`.
    pub fn cols(self, first: usize, count: usize) -> Self {
        Self { values: &self.values[first * self.col_stride..], cols: count, ..self }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// Whether the last element lies within `values`.
    fn is_in_bounds(&self) -> bool {
        if self.rows == 0 || self.cols == 0 {
            return true;
        }
        let last_row = (self.rows - 1).checked_mul(self.row_stride);
        let last_col = (self.cols - 1).checked_mul(self.col_stride);
        let last = last_row.zip(last_col).and_then(|(row, col)| row.checked_add(col));
        last.is_some_and(|last| last < self.values.len())
    }
}

/// `a b`, `[rows of a, columns of b]`, written to `out` of exactly that size.
#[expect(unsafe_code, reason = "the product writes every value of its output")]
pub(crate) fn matmul<'a>(a: Matrix<'_>, b: Matrix<'_>, out: &'a mut Uninit) -> &'a mut [f32] {
    assert_eq!(Some(out.len()), a.rows.checked_mul(b.cols), "size of the output of a matrix product");
    // SAFETY: `out` is borrowed mutably, and is not read because `add` is false.
    unsafe { gemm(a, b, Output { start: out.as_mut_ptr().cast(), len: out.len(), stride: b.cols, add: false }) };
    // SAFETY: the product has just written all `a.rows * b.cols` values.
    unsafe { out.assume_init_mut() }
}

/// Writes `a b` to `out`, rows `stride` values apart; other values of `out` stay as they are.
#[expect(unsafe_code, reason = "the product takes pointers")]
pub(crate) fn matmul_into(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], stride: usize) {
    // SAFETY: `out` is initialised and borrowed mutably.
    unsafe { gemm(a, b, Output { start: out.as_mut_ptr(), len: out.len(), stride, add: false }) };
}

/// Adds `a b` to `out`, rows `stride` values apart; other values of `out` stay as they are.
#[expect(unsafe_code, reason = "the product takes pointers")]
pub(crate) fn matmul_add(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], stride: usize) {
    // SAFETY: `out` is initialised and borrowed mutably.
    unsafe { gemm(a, b, Output { start: out.as_mut_ptr(), len: out.len(), stride, add: true }) };
}

/// Memory that receives a product.
struct Output {
    start: *mut f32,
    len: usize,
    /// Distance between the starts of two rows.
    stride: usize,
    /// Adds to the values instead of replacing them.
    add: bool,
}

/// # Safety
///
/// `out.len` values from `out.start` must be valid for writes, without another reference to them, and initialised if
/// `out.add` is set.
#[expect(unsafe_code, reason = "the product takes pointers; their reach is checked first")]
unsafe fn gemm(a: Matrix<'_>, b: Matrix<'_>, out: Output) {
    assert_eq!(a.cols, b.rows, "inner dimensions of a matrix product");
    assert!(a.is_in_bounds() && b.is_in_bounds(), "a matrix view reaches beyond its values");
    assert!(out.stride >= b.cols, "rows of the output of a matrix product overlap");
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    let end = (a.rows - 1).checked_mul(out.stride).and_then(|last_row| last_row.checked_add(b.cols));
    assert!(end.is_some_and(|end| end <= out.len), "a matrix product reaches beyond its output");
    let stride = |stride: usize| stride as isize;
    // SAFETY: the assertions bound what is read and written; the caller vouches for the output's memory.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.start,
            1,
            stride(out.stride),
            out.add,
            a.values.as_ptr(),
            stride(a.col_stride),
            stride(a.row_stride),
            b.values.as_ptr(),
            stride(b.col_stride),
            stride(b.row_stride),
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
