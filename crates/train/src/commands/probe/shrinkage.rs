//! The covariance of features of which there are few samples, shrunk towards a multiple of the identity by the formula
//! of Ledoit and Wolf (A well-conditioned estimator for large-dimensional covariance matrices, 2004), which has no
//! setting. It equals scikit-learn's `ledoit_wolf`.

use crate::eval::probes::matrix::{Matrix, dot};

/// The lower triangle of the shrunk covariance of centred rows; `None` if they do not vary.
pub(super) fn covariance(centred: &Matrix) -> Option<Matrix> {
    let (samples, dim) = (centred.num_rows() as f64, centred.columns as f64);
    let mut covariance = centred.transposed().gram();
    covariance.values.iter_mut().for_each(|value| *value /= samples);
    let trace: f64 = covariance.values.iter().step_by(centred.columns + 1).sum();
    let mean = trace / dim;
    if !(mean > 0.0 && mean.is_finite()) {
        return None;
    }
    let norms: f64 = centred.rows().map(|row| dot(row, row).powi(2)).sum::<f64>() / samples;
    let mut squares = 0.0;
    for (at, row) in covariance.rows().enumerate() {
        squares += 2.0 * dot(&row[..at], &row[..at]) + row[at].powi(2);
    }
    let spread = (norms - squares) / (dim * samples);
    let distance = (squares - 2.0 * mean * trace + dim * mean * mean) / dim;
    let share = if spread <= 0.0 || distance <= 0.0 { 0.0 } else { spread.min(distance) / distance };
    covariance.values.iter_mut().for_each(|value| *value *= 1.0 - share);
    covariance.add_to_diagonal(share * mean);
    Some(covariance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_scikit_learn() {
        // sklearn.covariance.ledoit_wolf(X, assume_centered=True) of these rows.
        let rows = Matrix { columns: 2, values: vec![3.0, 1.0, 2.0, 1.5, -1.0, 0.0, -2.0, -1.0, 1.0, 0.5, -3.0, -2.0] };
        let found = covariance(&rows).unwrap();
        let expected = [4.3397816444899355, 0.0, 1.9305299670192198, 1.7435516888433984];
        for (found, expected) in found.values.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert!(covariance(&Matrix::zeros(3, 2)).is_none());
    }
}
