//! From covariances of pairs to the linear maps of both sides.
//!
//! Canonical correlation analysis (Hotelling, 1936) with a ridge: with `Cx + lam tr(Cx) / D I = Lx Lx^T`, and `Ly` for
//! the other side, `Lx^-1 Cxy Ly^-T = U diag(rho) V^T`. The maps are `U^T Lx^-1` and `V^T Ly^-1`: their outputs are
//! uncorrelated, have variance 1 but for the ridge, and the output `k` of one side correlates by `rho_k` with that of
//! the other. Any other root of the covariances gives the same maps.
//!
//! Ridge regression from texts to images is the same without the root of the image side: `Cxy Ly^-T = U diag(s) V^T`.
//! `U^T` rotates the image features, and `diag(s) V^T Ly^-1` predicts the rotated ones.

use crate::closed_form::eigen::Eigen;
use crate::closed_form::moments::Covariances;
use crate::error::TrainError;
use crate::eval::probes::matrix::{Cholesky, Matrix, add, dot};

/// Correlations below this fraction of the largest, times the gain of whitening, are rounding errors: products of
/// features are computed in f32, which has 7 digits, and whitening raises the directions with hardly any variance.
const NEGLIGIBLE: f64 = 1e-6;

/// Correlations that are never taken for rounding errors, as a fraction of the largest.
const NOTABLE: f64 = 1e-2;

/// Variances below this fraction of the mean square are rounding errors of features that do not vary: f32 has 7 digits.
const CONSTANT: f64 = 1e-11;

/// How the maps follow from the covariances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Canonical correlation analysis.
    #[default]
    Cca,
    /// Ridge regression from text features to image features, which are rotated only.
    Ridge,
}

/// The maps of both sides, strongest direction first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Solution {
    pub method: Method,
    /// Of images and of texts: `[directions, width]`.
    pub maps: [Matrix; 2],
    /// The canonical correlation of each direction; with [`Method::Ridge`], its covariance.
    pub strengths: Vec<f64>,
}

impl Method {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cca => "cca",
            Self::Ridge => "ridge",
        }
    }
}

impl Covariances {
    /// Without what lies along the means: maps without bias that map the mean to 0 are blind to that direction.
    #[must_use]
    pub fn beside_means(mut self, without: [bool; 2]) -> Self {
        let directions: [Option<Vec<f64>>; 2] = std::array::from_fn(|side| {
            let length = dot(&self.means[side], &self.means[side]).sqrt();
            let unit = || self.means[side].iter().map(|value| value / length).collect();
            (without[side] && length > 0.0).then(unit)
        });
        for (matrix, direction) in self.within.iter_mut().zip(&directions) {
            if let Some(direction) = direction {
                remove_from_rows(matrix, direction);
                *matrix = matrix.transposed();
                remove_from_rows(matrix, direction);
            }
        }
        let [image, text] = &directions;
        if let Some(direction) = text {
            remove_from_rows(&mut self.between, direction);
        }
        if let Some(direction) = image {
            let mut transposed = self.between.transposed();
            remove_from_rows(&mut transposed, direction);
            self.between = transposed.transposed();
        }
        self
    }

    /// The maps with at most `dims` directions. `ridge`: what is added to the variance of every direction, as a
    /// fraction of the mean variance.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when the features of a side do not vary, or no direction of one side tells of the other;
    /// [`TrainError::Internal`] when features are not finite.
    pub fn solve(&self, method: Method, ridge: f64, dims: usize) -> Result<Solution, TrainError> {
        let factor = |side: usize, name: &str| {
            let mut matrix = self.within[side].clone();
            let trace: f64 = matrix.values.iter().step_by(matrix.columns + 1).sum();
            if trace <= CONSTANT * (dot(&self.means[side], &self.means[side]) + trace) {
                return Err(TrainError::Usage(format!(
                    "the features of the {name} tower are the same for every pair, so nothing can be fitted to them; \
                     look at the data, and at the pooling of the tower (`dualenc inspect`)"
                )));
            }
            matrix.add_to_diagonal(ridge * trace / self.widths[side] as f64);
            let not_finite = || TrainError::Internal(format!("covariances of the {name} tower without a root"));
            Cholesky::of(matrix).ok_or_else(not_finite)
        };
        let image_factor = factor(0, "image")?;
        let text_factor = factor(1, "text")?;
        // `[image width, text width]`, then `[text width, image width]`.
        let mut whitened = self.between.clone();
        text_factor.solve_lower(&mut whitened);
        let mut transposed = whitened.transposed();
        if method == Method::Cca {
            image_factor.solve_lower(&mut transposed);
            whitened = transposed.transposed();
        }
        let gain = match method {
            Method::Cca => ridge.recip(),
            Method::Ridge => ridge.sqrt().recip(),
        };
        let least = (NEGLIGIBLE * gain.max(1.0)).min(NOTABLE);
        let (mut images, mut texts, strengths) = if whitened.num_rows() <= transposed.num_rows() {
            singular(&whitened, &transposed, dims, least)?
        } else {
            let (texts, images, strengths) = singular(&transposed, &whitened, dims, least)?;
            (images, texts, strengths)
        };
        if strengths.is_empty() {
            return Err(TrainError::Usage(
                "the features of images and captions are not correlated at all, so nothing can be fitted to them; \
                 check that images and captions belong together"
                    .to_owned(),
            ));
        }
        if method == Method::Cca {
            image_factor.solve_upper(&mut images);
        }
        text_factor.solve_upper(&mut texts);
        Ok(Solution { method, maps: [images, texts], strengths })
    }
}

/// The left and right singular vectors of `matrix` as rows, and its singular values: at most `dims`, and none that are
/// at most `least` times the largest. `matrix` has no more rows than columns, and `transposed` is its transpose.
fn singular(
    matrix: &Matrix,
    transposed: &Matrix,
    dims: usize,
    least: f64,
) -> Result<(Matrix, Matrix, Vec<f64>), TrainError> {
    let gram = matrix.gram().mirrored();
    let size = gram.columns;
    let eigen = Eigen::of(gram)
        .ok_or_else(|| TrainError::Internal("the products of whitened features have no eigenvectors".to_owned()))?;
    let strengths: Vec<f64> = eigen.values.iter().map(|value| value.max(0.0).sqrt()).collect();
    let least = least * strengths.first().copied().unwrap_or(0.0);
    let strengths: Vec<f64> = strengths.into_iter().take(dims).take_while(|&strength| strength > least).collect();
    let mut left = eigen.vectors;
    left.values.truncate(strengths.len() * size);
    let mut right = left.times_transposed(transposed);
    for row in right.rows_mut() {
        let length = dot(row, row).sqrt();
        row.iter_mut().for_each(|value| *value /= length);
    }
    Ok((left, right, strengths))
}

/// Removes from every row what lies along the unit vector `direction`.
pub(crate) fn remove_from_rows(matrix: &mut Matrix, direction: &[f64]) {
    for row in matrix.rows_mut() {
        let along = dot(row, direction);
        add(row, direction, -along);
    }
}

#[cfg(test)]
mod tests;
