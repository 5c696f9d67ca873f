//! Dense matrices in f64 on the host. Every sum runs in one order, whatever the number of threads.

use rayon::prelude::*;

/// Partial sums of a dot product, so that the compiler can use vector registers.
const LANES: usize = 8;

/// A matrix, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix {
    pub columns: usize,
    /// `[rows, columns]`, flat.
    pub values: Vec<f64>,
}

impl Matrix {
    /// Zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self { columns, values: vec![0.0; rows * columns] }
    }

    /// `values`: shape `[rows, columns]`, flat.
    pub fn of(values: &[f32], columns: usize) -> Self {
        Self { columns, values: values.iter().map(|&value| f64::from(value)).collect() }
    }

    pub fn num_rows(&self) -> usize {
        self.values.len() / self.columns.max(1)
    }

    pub fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..][..self.columns]
    }

    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.columns.max(1))
    }

    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f64]> {
        self.values.chunks_exact_mut(self.columns.max(1))
    }

    pub fn transposed(&self) -> Self {
        let rows = self.num_rows();
        let value = |at: usize| self.values[at % rows * self.columns + at / rows];
        Self { columns: rows, values: (0..self.values.len()).map(value).collect() }
    }

    /// A square matrix with its lower triangle above the diagonal, too.
    pub fn mirrored(&self) -> Self {
        let size = self.columns;
        let value = |at: usize| self.values[(at / size).max(at % size) * size + (at / size).min(at % size)];
        Self { columns: size, values: (0..self.values.len()).map(value).collect() }
    }

    /// The mean of the rows.
    pub fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.columns];
        self.rows().for_each(|row| add(&mut mean, row, 1.0));
        let rows = self.num_rows().max(1) as f64;
        mean.iter_mut().for_each(|value| *value /= rows);
        mean
    }

    /// `self` times the transpose of `other`: `[rows, other's rows]`.
    pub fn times_transposed(&self, other: &Self) -> Self {
        let rows = self.values.par_chunks_exact(self.columns.max(1));
        let values = rows.flat_map_iter(|row| other.rows().map(move |column| dot(row, column)));
        Self { columns: other.num_rows(), values: values.collect() }
    }

    /// The lower triangle of `self` times its transpose: `[rows, rows]`; the rest is 0.
    pub fn gram(&self) -> Self {
        let size = self.num_rows();
        let mut gram = Self::zeros(size, size);
        gram.values.par_chunks_exact_mut(size.max(1)).enumerate().for_each(|(row, values)| {
            for (column, value) in values.iter_mut().enumerate().take(row + 1) {
                *value = dot(self.row(row), self.row(column));
            }
        });
        gram
    }

    /// Adds `value` to the diagonal.
    pub fn add_to_diagonal(&mut self, value: f64) {
        self.values.iter_mut().step_by(self.columns + 1).for_each(|on_diagonal| *on_diagonal += value);
    }
}

/// The factor L of a symmetric positive definite matrix `L L^T`.
pub(crate) struct Cholesky(Matrix);

impl Cholesky {
    /// Factors a matrix of which the lower triangle is read; `None` if it is not positive definite.
    pub fn of(mut matrix: Matrix) -> Option<Self> {
        let size = matrix.columns;
        for row in 0..size {
            let (above, rest) = matrix.values.split_at_mut(row * size);
            let values = &mut rest[..size];
            for column in 0..row {
                let other = &above[column * size..][..size];
                values[column] = (values[column] - dot(&values[..column], &other[..column])) / other[column];
            }
            let square = values[row] - dot(&values[..row], &values[..row]);
            // False for a value that is not a number, too.
            if !(square > 0.0 && square.is_finite()) {
                return None;
            }
            values[row] = square.sqrt();
        }
        Some(Self(matrix))
    }

    /// Replaces every row `b` by `L^-1 b`.
    pub fn solve_lower(&self, rows: &mut Matrix) {
        let factor = &self.0;
        rows.values.par_chunks_exact_mut(rows.columns.max(1)).for_each(|x| {
            for at in 0..x.len() {
                let row = factor.row(at);
                x[at] = (x[at] - dot(&row[..at], &x[..at])) / row[at];
            }
        });
    }

    /// Replaces every row `b` by `L^-T b`.
    pub fn solve_upper(&self, rows: &mut Matrix) {
        let factor = &self.0;
        rows.values.par_chunks_exact_mut(rows.columns.max(1)).for_each(|x| {
            for at in (0..x.len()).rev() {
                let row = factor.row(at);
                x[at] /= row[at];
                let (before, solved) = x.split_at_mut(at);
                add(before, &row[..at], -solved[0]);
            }
        });
    }

    /// Replaces every row `b` by the solution `x` of `L L^T x = b`.
    pub fn solve(&self, rows: &mut Matrix) {
        self.solve_lower(rows);
        self.solve_upper(rows);
    }
}

/// Adds `factor` times `values` to `sum`.
pub(crate) fn add(sum: &mut [f64], values: &[f64], factor: f64) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
}

/// The dot product.
pub(crate) fn dot(one: &[f64], other: &[f64]) -> f64 {
    let (ones, others) = (one.chunks_exact(LANES), other.chunks_exact(LANES));
    let rest: f64 = ones.remainder().iter().zip(others.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0.0; LANES];
    for (one, other) in ones.zip(others) {
        for lane in 0..LANES {
            sums[lane] += one[lane] * other[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use dualenc_data::mix;

    use super::*;

    fn random(seed: u64, rows: usize, columns: usize) -> Matrix {
        let value = |at| (mix(seed, &[at as u64]) % 2001) as f64 / 1000.0 - 1.0;
        Matrix { columns, values: (0..rows * columns).map(value).collect() }
    }

    #[test]
    fn solves_what_it_multiplied() {
        for (size, seed) in [(1, 1), (5, 2), (23, 3)] {
            let mut matrix = random(seed, size, size + 4).gram();
            matrix.add_to_diagonal(0.1);
            let full: Vec<f64> =
                (0..size * size).map(|at| matrix.row((at / size).max(at % size))[(at / size).min(at % size)]).collect();
            let full = Matrix { columns: size, values: full };
            let expected = random(seed + 10, 3, size);
            let mut found = expected.times_transposed(&full);
            Cholesky::of(matrix).unwrap().solve(&mut found);
            for (found, expected) in found.values.iter().zip(&expected.values) {
                assert!((found - expected).abs() < 1e-9, "{found} {expected}");
            }
        }
    }

    #[test]
    fn refuses_matrices_without_a_factor() {
        for values in [[1.0, 0.0, 2.0, 1.0], [1.0, 0.0, f64::NAN, 1.0], [0.0, 0.0, 0.0, 0.0]] {
            assert!(Cholesky::of(Matrix { columns: 2, values: values.to_vec() }).is_none(), "{values:?}");
        }
    }

    #[test]
    fn products_by_hand() {
        let matrix = Matrix::of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3);
        assert_eq!(matrix.transposed().values, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(matrix.times_transposed(&matrix).values, [14.0, 32.0, 32.0, 77.0]);
        assert_eq!(matrix.gram().values, [14.0, 0.0, 32.0, 77.0]);
        assert_eq!(matrix.gram().mirrored().values, [14.0, 32.0, 32.0, 77.0]);
        assert_eq!(matrix.mean(), [2.5, 3.5, 4.5]);
    }
}
