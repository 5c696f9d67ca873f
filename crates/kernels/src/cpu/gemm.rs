//! Single-threaded matrix products over slices: bounds-checked views in front of the `gemm` crate, which Flex uses too.

use std::mem::MaybeUninit;

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

    #[inline(always)]
    pub fn num_cols(&self) -> usize {
        self.cols
    }

    /// One row of a matrix that is not transposed in memory.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.row_stride..][..self.cols]
    }

    /// Whether the values of a row follow each other.
    pub fn is_row_major(&self) -> bool {
        self.col_stride == 1
    }

    /// The values from the first on, those between and after its rows included.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// The values from the first of row `row` on, if there is such a row.
    pub fn values_from_row(&self, row: usize) -> &'a [f32] {
        self.values_from(row, self.row_stride)
    }

    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Rows `first..first + count`.
    pub fn rows(self, first: usize, count: usize) -> Self {
        Self { values: self.values_from(first, self.row_stride), rows: count, ..self }
    }

    /// Columns `first..first + count`.
    pub fn cols(self, first: usize, count: usize) -> Self {
        Self { values: self.values_from(first, self.col_stride), cols: count, ..self }
    }

    /// The values from item `first` of a dimension on.
    fn values_from(&self, first: usize, stride: usize) -> &'a [f32] {
        match first.checked_mul(stride) {
            Some(start) => &self.values[start..],
            None => panic!("a matrix view starts beyond its values"),
        }
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
    // SAFETY: `out` is borrowed mutably.
    unsafe { gemm(a, b, Output { start: out.as_mut_ptr().cast(), len: out.len(), stride: b.cols }) };
    // SAFETY: the product has just written all `a.rows * b.cols` values.
    unsafe { out.assume_init_mut() }
}

/// Writes `a b` to `out`, rows `stride` values apart; other values of `out` stay as they are.
#[expect(unsafe_code, reason = "the product takes pointers")]
pub(crate) fn matmul_into(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], stride: usize) {
    // SAFETY: `out` is borrowed mutably.
    unsafe { gemm(a, b, Output { start: out.as_mut_ptr(), len: out.len(), stride }) };
}

/// Memory that receives a product.
struct Output {
    start: *mut f32,
    len: usize,
    /// Distance between the starts of two rows.
    stride: usize,
}

/// Writes the product of a single row.
///
/// The `gemm` crate multiplies a single row in another order than a row among others, so that what stands beside a row
/// would change its bits: the row is multiplied twice.
#[expect(unsafe_code, reason = "the product takes pointers")]
fn lone_row(a: Matrix<'_>, b: Matrix<'_>, out: &mut Uninit) {
    let mut rows = vec![0.0; 2 * b.cols];
    let twice = Matrix { rows: 2, row_stride: 0, ..a };
    // SAFETY: `rows` is borrowed by nothing else.
    unsafe { gemm(twice, b, Output { start: rows.as_mut_ptr(), len: rows.len(), stride: b.cols }) };
    out[..b.cols].write_copy_of_slice(&rows[..b.cols]);
}

/// # Safety
///
/// `out.len` values from `out.start` must be valid for writes, without another reference to them.
#[expect(unsafe_code, reason = "the product takes pointers; their reach is checked first")]
unsafe fn gemm(a: Matrix<'_>, b: Matrix<'_>, out: Output) {
    assert_eq!(a.cols, b.rows, "inner dimensions of a matrix product");
    assert!(a.is_in_bounds() && b.is_in_bounds(), "a matrix view reaches beyond its values");
    assert!(out.stride >= b.cols, "rows of the output of a matrix product overlap");
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    if a.rows == 1 && b.cols > 1 {
        // SAFETY: the caller vouches for the output's memory.
        unsafe {
            let row = std::slice::from_raw_parts_mut(out.start.cast::<MaybeUninit<f32>>(), out.len);
            return lone_row(a, b, row);
        }
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
            false,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::uninit::{Scratch, par_rows};

    fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
        let mut scratch = Scratch::new(a.rows * b.cols);
        matmul(a, b, scratch.uninit(a.rows * b.cols)).to_vec()
    }

    const VALUES: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

    #[test]
    fn views_select_rows_and_columns() {
        let x = Matrix::new(&VALUES, 3);
        assert_eq!(product(x, x.t()), [14.0, 32.0, 32.0, 77.0]);
        assert_eq!(product(x.rows(1, 1), x.rows(1, 1).t()), [77.0]);
        assert_eq!(product(x.cols(1, 2), x.cols(0, 2).t()), [8.0, 23.0, 17.0, 50.0]);
        let mut out = [1.0; 8];
        matmul_into(x, x.t(), &mut out[1..], 4);
        assert_eq!(out, [1.0, 14.0, 32.0, 1.0, 1.0, 32.0, 77.0, 1.0]);
    }

    #[test]
    fn lone_rows_are_written() {
        let x = Matrix::new(&VALUES, 3);
        assert_eq!(product(x.rows(1, 1), x.t()), [32.0, 77.0]);
        assert_eq!(product(x.cols(1, 1).t().rows(0, 1), Matrix::new(&VALUES, 3)), [22.0, 29.0, 36.0]);
        let mut out = [1.0; 4];
        matmul_into(x.rows(1, 1), x.t(), &mut out[1..], 2);
        assert_eq!(out, [1.0, 32.0, 77.0, 1.0]);
    }

    #[test]
    #[should_panic]
    fn lone_row_beyond_output_panics() {
        let x = Matrix::new(&VALUES, 3);
        matmul_into(x.rows(1, 1), x.t(), &mut [0.0; 1], 2);
    }

    /// A product without inner values writes zeros: its output starts uninitialised.
    #[test]
    fn empty_products_are_zero() {
        let (tall, wide) = (Matrix { rows: 5, ..Matrix::new(&[], 0) }, Matrix { cols: 7, ..Matrix::new(&[], 7) });
        assert_eq!((tall.rows, tall.cols, wide.rows, wide.cols), (5, 0, 0, 7));
        let mut dirty = vec![f32::NAN; 35];
        matmul_into(tall, wide, &mut dirty, 7);
        assert_eq!(dirty, [0.0; 35]);
        assert_eq!(par_rows(5, 7, |_, out| matmul(tall, wide, out)), [0.0; 35]);
        let x = Matrix::new(&VALUES, 3);
        assert_eq!(product(x.rows(0, 0), x.t()), [0.0; 0]);
    }

    #[test]
    #[should_panic = "a matrix view reaches beyond its values"]
    fn view_beyond_values_panics() {
        product(Matrix::new(&VALUES, 3).rows(1, 2), Matrix::new(&VALUES, 2));
    }

    #[test]
    #[should_panic = "a matrix view reaches beyond its values"]
    fn overflowing_view_panics() {
        let view = Matrix { rows: 3, cols: 1, row_stride: usize::MAX / 2 + 1, ..Matrix::new(&VALUES, 3) };
        product(view, Matrix::new(&VALUES[..1], 1));
    }

    #[test]
    #[should_panic = "size of the output of a matrix product"]
    fn output_of_another_size_panics() {
        let x = Matrix::new(&VALUES, 3);
        matmul(x, x.t(), Scratch::new(6).uninit(6));
    }

    #[test]
    #[should_panic = "a matrix product reaches beyond its output"]
    fn output_too_small_panics() {
        let x = Matrix::new(&VALUES, 3);
        matmul_into(x, x.t(), &mut [0.0; 5], 4);
    }

    #[test]
    #[should_panic = "rows of the output of a matrix product overlap"]
    fn overlapping_output_rows_panic() {
        let x = Matrix::new(&VALUES, 3);
        matmul_into(x, x.t(), &mut [0.0; 5], 1);
    }

    #[test]
    #[should_panic = "inner dimensions of a matrix product"]
    fn inner_dimensions_must_agree() {
        let x = Matrix::new(&VALUES, 3);
        product(x, x);
    }
}
