//! Matrix products over slices: the `gemm` crate, which Flex multiplies with too, behind checked views.

use std::mem::MaybeUninit;

use crate::buffer::Blank;

/// A view of a matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `cols` values each, one after the other.
    pub fn new(values: &'a [f32], cols: usize) -> Self {
        Self { values, rows: values.len() / cols.max(1), cols, row_stride: cols, col_stride: 1 }
    }

    /// Its rows.
    #[inline(always)]
    pub fn num_rows(&self) -> usize {
        self.rows
    }

    /// Its columns.
    pub fn num_cols(&self) -> usize {
        self.cols
    }

    /// One row of a matrix whose rows are contiguous.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.row_stride..][..self.cols]
    }

    /// `count` of its rows from `first`.
    pub fn rows(self, first: usize, count: usize) -> Self {
        Self { values: &self.values[first * self.row_stride..], rows: count, ..self }
    }

    /// `count` of its columns from `first`.
    pub fn cols(self, first: usize, count: usize) -> Self {
        Self { values: &self.values[first * self.col_stride..], cols: count, ..self }
    }

    /// Its transpose.
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn fits(&self) -> bool {
        let last = |count: usize, stride: usize| count.saturating_sub(1) * stride;
        self.rows == 0
            || self.cols == 0
            || last(self.rows, self.row_stride) + last(self.cols, self.col_stride) < self.values.len()
    }
}

/// `a b` on this thread, `[rows of a, columns of b]`, which `out` must hold.
#[expect(unsafe_code, reason = "a product without addition writes every value of its output")]
pub(crate) fn product<'a>(a: Matrix<'_>, b: Matrix<'_>, out: &'a mut Blank) -> &'a mut [f32] {
    assert_eq!(out.len(), a.rows * b.cols, "the output of a product");
    multiply(a, b, out, b.cols, false);
    // SAFETY: `out` is exactly the product.
    unsafe { out.assume_init_mut() }
}

/// `out = a b`, or with `add` `out += a b`, on this thread; rows of the output begin `stride` apart.
pub(crate) fn product_into(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], stride: usize, add: bool) {
    multiply(a, b, blank(out), stride, add);
}

#[expect(unsafe_code, reason = "values may be overwritten as if they were not there")]
fn blank(values: &mut [f32]) -> &mut Blank {
    // SAFETY: same layout; `multiply` writes nothing but numbers.
    unsafe { &mut *(std::ptr::from_mut(values) as *mut [MaybeUninit<f32>]) }
}

#[expect(unsafe_code, reason = "the product takes pointers; their reach is checked first")]
fn multiply(a: Matrix<'_>, b: Matrix<'_>, out: &mut Blank, stride: usize, add: bool) {
    assert_eq!(a.cols, b.rows, "the inner sides of a product");
    assert!(a.fits() && b.fits() && stride >= b.cols, "a view reaches beyond its values");
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    assert!((a.rows - 1) * stride + b.cols <= out.len(), "a product reaches beyond its output");
    let stride_of = |stride: usize| stride as isize;
    // SAFETY: all three reach no further than was checked, and `out` is borrowed alone. Values of `out` are read only
    // with `add`, which callers give initialised memory for.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr().cast::<f32>(),
            1,
            stride_of(stride),
            add,
            a.values.as_ptr(),
            stride_of(a.col_stride),
            stride_of(a.row_stride),
            b.values.as_ptr(),
            stride_of(b.col_stride),
            stride_of(b.row_stride),
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
