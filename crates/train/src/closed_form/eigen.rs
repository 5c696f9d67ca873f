//! Eigenvalues and eigenvectors of a symmetric matrix in f64: Householder's reduction to tridiagonal form and the
//! implicit QL iteration (Golub and Van Loan, Matrix Computations, sec. 8.3). The bits do not depend on the number of
//! threads.

use rayon::prelude::*;

use crate::eval::probes::matrix::{Matrix, dot};

/// Components of the eigenvectors that are computed together: two AVX-512 registers, or four of AVX2.
const LANES: usize = 16;

/// QL sweeps per eigenvalue: EISPACK's `tql2` allows 30, and needs about 2.
const MAX_SWEEPS: usize = 60;

/// The eigenvalues, in descending order, and the eigenvector of each as a row.
#[derive(Debug)]
pub(crate) struct Eigen {
    pub values: Vec<f64>,
    /// `[size, size]`, orthonormal rows.
    pub vectors: Matrix,
}

/// Rotates the vectors `first` and `first + 1`.
#[derive(Clone, Copy)]
struct Rotation {
    first: usize,
    cosine: f64,
    sine: f64,
}

/// [`LANES`] components of all vectors: shape `[vectors, LANES]`, flat.
type Panel = Vec<f64>;

impl Eigen {
    /// Decomposes a symmetric matrix; `None` if a value is not finite.
    pub fn of(mut matrix: Matrix) -> Option<Self> {
        if !matrix.values.iter().all(|value| value.is_finite()) {
            return None;
        }
        let size = matrix.columns;
        let (mut diagonal, mut beside, reflections) = tridiagonal(&mut matrix);
        let mut panels: Vec<Panel> = (0..size.div_ceil(LANES)).map(|panel| identity(panel, size)).collect();
        panels.par_iter_mut().for_each(|panel| {
            for (step, reflection) in reflections.iter().enumerate() {
                reflect(&mut panel[(step + 1) * LANES..], reflection);
            }
        });
        iterate(&mut diagonal, &mut beside, |rotations| {
            panels.par_iter_mut().for_each(|panel| rotations.iter().for_each(|rotation| rotation.apply(panel)));
        })?;
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
        let component = |vector: usize, at: usize| panels[at / LANES][vector * LANES + at % LANES];
        let values = order.iter().map(|&vector| diagonal[vector]).collect();
        let vectors = order.iter().flat_map(|&vector| (0..size).map(move |at| component(vector, at))).collect();
        Some(Self { values, vectors: Matrix { columns: size, values: vectors } })
    }
}

/// Reduces a symmetric matrix, which is overwritten: returns the diagonal, what is beside it (padded by a 0), and the
/// unit vectors `v` of the reflections `I - 2 v v^T`, of which that of step `k` acts on the components from `k + 1` on.
fn tridiagonal(matrix: &mut Matrix) -> (Vec<f64>, Vec<f64>, Vec<Vec<f64>>) {
    let size = matrix.columns;
    let mut beside = vec![0.0; size];
    let mut reflections = Vec::with_capacity(size.saturating_sub(2));
    for step in 0..size.saturating_sub(1) {
        let mut v: Vec<f64> = (step + 1..size).map(|row| matrix.values[row * size + step]).collect();
        let tail = dot(&v[1..], &v[1..]);
        if tail == 0.0 {
            beside[step] = v[0];
            v.fill(0.0);
            reflections.push(v);
            continue;
        }
        beside[step] = -dot(&v, &v).sqrt().copysign(v[0]);
        v[0] -= beside[step];
        let length = (v[0] * v[0] + tail).sqrt();
        v.iter_mut().for_each(|value| *value /= length);
        let rest = &mut matrix.values[(step + 1) * size..];
        let of_row = |row: &[f64]| dot(&row[step + 1..], &v);
        let products: Vec<f64> = rest.par_chunks_exact(size).map(of_row).collect();
        let along = dot(&products, &v);
        let w: Vec<f64> = products.iter().zip(&v).map(|(product, v)| 2.0 * (product - along * v)).collect();
        rest.par_chunks_exact_mut(size).enumerate().for_each(|(row, values)| {
            for ((value, v_at), w_at) in values[step + 1..].iter_mut().zip(&v).zip(&w) {
                *value -= v[row] * w_at + w[row] * v_at;
            }
        });
        reflections.push(v);
    }
    let diagonal = matrix.values.iter().step_by(size + 1).copied().collect();
    (diagonal, beside, reflections)
}

/// The components of a panel of the unit vectors.
fn identity(panel: usize, size: usize) -> Panel {
    let mut values = vec![0.0; size * LANES];
    for lane in (0..LANES).take_while(|lane| panel * LANES + lane < size) {
        values[(panel * LANES + lane) * LANES + lane] = 1.0;
    }
    values
}

/// Multiplies by `I - 2 v v^T` from the right. `panel`: shape `[v, LANES]`, flat.
fn reflect(panel: &mut [f64], v: &[f64]) {
    let mut sums = [0.0; LANES];
    for (values, v) in panel.chunks_exact(LANES).zip(v) {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += v * value);
    }
    for (values, v) in panel.chunks_exact_mut(LANES).zip(v) {
        values.iter_mut().zip(&sums).for_each(|(value, sum)| *value -= 2.0 * v * sum);
    }
}

impl Rotation {
    fn apply(self, panel: &mut Panel) {
        let (first, second) = panel[self.first * LANES..][..2 * LANES].split_at_mut(LANES);
        for (a, b) in first.iter_mut().zip(second) {
            (*a, *b) = (self.cosine * *a - self.sine * *b, self.sine * *a + self.cosine * *b);
        }
    }
}

/// Turns the diagonal into the eigenvalues; passes the rotations of each sweep to `rotate`. `None` if that takes too
/// many sweeps.
fn iterate(diagonal: &mut [f64], beside: &mut [f64], mut rotate: impl FnMut(&[Rotation])) -> Option<()> {
    let size = diagonal.len();
    let largest = diagonal.iter().chain(&*beside).fold(0.0f64, |largest, value| largest.max(value.abs()));
    let negligible = f64::EPSILON * largest;
    let mut rotations = Vec::with_capacity(size);
    for first in 0..size {
        for sweep in 0.. {
            let last = (first..size - 1).find(|&at| beside[at].abs() <= negligible).unwrap_or(size - 1);
            if last == first {
                break;
            }
            if sweep == MAX_SWEEPS {
                return None;
            }
            // Wilkinson's shift.
            let half = (diagonal[first + 1] - diagonal[first]) / (2.0 * beside[first]);
            let mut bulge = diagonal[last] - diagonal[first] + beside[first] / (half + half.hypot(1.0).copysign(half));
            let (mut sine, mut cosine, mut shift) = (1.0, 1.0, 0.0);
            rotations.clear();
            let mut is_split = false;
            for at in (first..last).rev() {
                let (across, along) = (sine * beside[at], cosine * beside[at]);
                let length = across.hypot(bulge);
                beside[at + 1] = length;
                if length == 0.0 {
                    // The matrix falls apart here.
                    diagonal[at + 1] -= shift;
                    beside[last] = 0.0;
                    is_split = true;
                    break;
                }
                (sine, cosine) = (across / length, bulge / length);
                let corner = diagonal[at + 1] - shift;
                let change = (diagonal[at] - corner) * sine + 2.0 * cosine * along;
                shift = sine * change;
                diagonal[at + 1] = corner + shift;
                bulge = cosine * change - along;
                rotations.push(Rotation { first: at, cosine, sine });
            }
            rotate(&rotations);
            if !is_split {
                diagonal[first] -= shift;
                beside[first] = bulge;
                beside[last] = 0.0;
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use dualenc_data::mix;

    use super::*;

    fn symmetric(seed: u64, size: usize) -> Matrix {
        let value = |at: usize| {
            let (row, column) = ((at / size) as u64, (at % size) as u64);
            (mix(seed, &[row.min(column), row.max(column)]) % 2001) as f64 / 1000.0 - 1.0
        };
        Matrix { columns: size, values: (0..size * size).map(value).collect() }
    }

    fn assert_decomposes(matrix: &Matrix) {
        let Eigen { values, vectors } = Eigen::of(matrix.clone()).unwrap();
        let size = matrix.columns;
        let scale = matrix.values.iter().fold(1e-300f64, |scale, value| scale.max(value.abs())) * size as f64;
        assert!(values.is_sorted_by(|a, b| a >= b), "{values:?}");
        let image = vectors.times_transposed(matrix);
        for (row, value) in values.iter().enumerate() {
            for column in 0..size {
                let error = image.row(row)[column] - value * vectors.row(row)[column];
                assert!(error.abs() < 1e-13 * scale, "{size}: {error}");
            }
            for other in 0..=row {
                let expected = if row == other { 1.0 } else { 0.0 };
                assert!((dot(vectors.row(row), vectors.row(other)) - expected).abs() < 1e-12, "{size}");
            }
        }
    }

    #[test]
    fn decomposes_symmetric_matrices() {
        for size in [1, 2, 3, 5, 15, 16, 17, 64, 131] {
            assert_decomposes(&symmetric(size as u64, size));
        }
    }

    #[test]
    fn decomposes_degenerate_matrices() {
        for size in [1, 2, 7, 20] {
            assert_decomposes(&Matrix::zeros(size, size));
            let mut identity = Matrix::zeros(size, size);
            identity.add_to_diagonal(3.0);
            assert_decomposes(&identity);
            // Rank 1, with every entry equal.
            assert_decomposes(&Matrix { columns: size, values: vec![2.0; size * size] });
            // Rank 2, far from 1 in scale.
            let rows = Matrix { columns: 2, values: (0..2 * size).map(|at| 1e-9 * (at as f64).sin()).collect() };
            assert_decomposes(&rows.times_transposed(&rows));
        }
    }

    #[test]
    fn diagonal_by_hand() {
        let matrix = Matrix { columns: 2, values: vec![2.0, 1.0, 1.0, 2.0] };
        let found = Eigen::of(matrix).unwrap();
        assert!((found.values[0] - 3.0).abs() < 1e-15 && (found.values[1] - 1.0).abs() < 1e-15);
    }

    #[test]
    fn threads_change_no_bits() {
        let matrix = symmetric(9, 70);
        let found = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Eigen::of(matrix.clone()).unwrap())
        });
        assert_eq!(found[0].values, found[1].values);
        assert_eq!(found[0].vectors, found[1].vectors);
    }

    #[test]
    fn refuses_what_is_not_finite() {
        assert!(Eigen::of(Matrix { columns: 2, values: vec![1.0, f64::NAN, f64::NAN, 1.0] }).is_none());
    }
}
