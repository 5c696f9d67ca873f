//! Features of one tower, layer and pooling, prepared for comparisons with many others.

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_model::parameters;

use crate::commands::probe::shrinkage::covariance;
use crate::commands::probe::towers::Features;
use crate::error::TrainError;
use crate::eval::metrics::scores::{Scores, TILE_SCORES, normalize_rows};
use crate::eval::metrics::top::Top;
use crate::eval::probes::matrix::{Cholesky, Matrix, add, dot};
use crate::stop_flag::StopFlag;

/// Variances below this fraction of the mean square are rounding errors of features that do not vary: f32 has 7 digits.
const CONSTANT: f64 = 1e-11;

/// What both sides need.
pub(super) struct FeatureSet {
    pub tower: String,
    pub layer: usize,
    pub num_layers: usize,
    pub pool: &'static str,
    pub width: usize,
    /// Of each row, the rows with the most similar features, ascending.
    pub neighbors: Vec<Vec<usize>>,
    /// Centred and scaled: `[pairs, width]`.
    pub centred: Tensor<2>,
    /// Of each row of `centred`, its squared norm.
    pub squares: Vec<f64>,
    /// Of each row of `centred`, its dot products with all other rows, added up.
    pub sums: Vec<f64>,
    /// Its dependence on itself; 0 if the features do not vary.
    pub spread: f64,
    /// For alignments; `None` if the features of the pairs that it is fitted to do not vary.
    pub fitted: Option<Tensor<2>>,
    /// As `fitted`, for the pairs that are tested.
    pub tested: Option<Tensor<2>>,
}

/// On which side of an alignment features are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Images, from which text features are predicted. `tested` is `[tested, fitted]`: what to take of the text
    /// features of the fitted pairs. `fitted` is empty.
    Image,
    /// Texts. Their whitened features are predicted: `[pairs, width]`.
    Text,
}

/// How a sample is used.
pub(super) struct Protocol<'a> {
    /// Neighbours of a row.
    pub neighbors: usize,
    /// Number of pairs that an alignment is fitted to: the first ones.
    pub fitted: usize,
    pub device: &'a Device,
    pub stop: &'a StopFlag,
}

impl FeatureSet {
    /// Prepares features.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when the stop flag is set.
    pub fn new(features: Features, side: Side, protocol: &Protocol<'_>) -> Result<Self, TrainError> {
        let Features { tower, layer, num_layers, pool, width, values } = features;
        let neighbors = neighbors(values.clone(), width, protocol)?;
        let mut x = Matrix::of(&values, width);
        centre(&mut x, None);
        let pairs = x.num_rows();
        let norm = dot(&x.values, &x.values) / pairs.max(1) as f64;
        let raw: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / pairs.max(1) as f64;
        let varies = norm > CONSTANT * raw;
        let scale = if varies { norm.sqrt().recip() } else { 0.0 };
        x.values.iter_mut().for_each(|value| *value *= scale);
        let squares: Vec<f64> = x.rows().map(|row| dot(row, row)).collect();
        let mut total = vec![0.0; width];
        x.rows().for_each(|row| add(&mut total, row, 1.0));
        let sums = x.rows().zip(&squares).map(|(row, square)| dot(row, &total) - square).collect();
        let aligned = if varies { aligned(&values, width, side, protocol) } else { None };
        let (fitted, tested) = aligned.unzip();
        let to_device = |matrix: Matrix| on_device(&matrix, protocol.device);
        let centred = on_device(&x, protocol.device);
        let (fitted, tested) = (fitted.map(to_device), tested.map(to_device));
        let spread = 0.0;
        let new =
            Self { tower, layer, num_layers, pool, width, neighbors, centred, squares, sums, spread, fitted, tested };
        Ok(Self { spread: new.dependence(&new)?, ..new })
    }

    /// The unbiased estimator of the Hilbert-Schmidt independence criterion of linear kernels (Song et al., 2012).
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data.
    pub fn dependence(&self, other: &Self) -> Result<f64, TrainError> {
        let pairs = self.squares.len() as f64;
        let cross = parameters::host(self.centred.clone().transpose().matmul(other.centred.clone()))?.values;
        let squares: f64 = cross.iter().map(|&value| f64::from(value).powi(2)).sum();
        let trace = squares - dot(&self.squares, &other.squares);
        let totals = self.sums.iter().sum::<f64>() * other.sums.iter().sum::<f64>();
        let sum = trace + totals / ((pairs - 1.0) * (pairs - 2.0)) - 2.0 / (pairs - 2.0) * dot(&self.sums, &other.sums);
        Ok(sum / (pairs * (pairs - 3.0)))
    }
}

/// The features for alignments, of the pairs that are fitted and those that are tested.
///
/// Ridge regression from images to whitened text features: with the covariances `Cx` and `Cy` of the fitted pairs, a
/// test image is compared with a test text by the cosine of `Ly^-1 Cyx Cx^-1 x` and `Ly^-1 y`, where `Cy = Ly Ly^T`.
/// That is what canonical correlation analysis compares, with all correlations on the image side.
fn aligned(values: &[f32], width: usize, side: Side, protocol: &Protocol<'_>) -> Option<(Matrix, Matrix)> {
    let (fitted, tested) = values.split_at(protocol.fitted * width);
    let (mut fitted, mut tested) = (Matrix::of(fitted, width), Matrix::of(tested, width));
    let mean = fitted.mean();
    centre(&mut fitted, Some(&mean));
    centre(&mut tested, Some(&mean));
    let factor = Cholesky::of(covariance(&fitted)?)?;
    match side {
        Side::Image => {
            factor.solve(&mut tested);
            let mut shares = tested.times_transposed(&fitted);
            shares.values.iter_mut().for_each(|share| *share /= protocol.fitted as f64);
            Some((Matrix::zeros(0, width), shares))
        }
        Side::Text => {
            factor.solve_lower(&mut fitted);
            factor.solve_lower(&mut tested);
            Some((fitted, tested))
        }
    }
}

/// Subtracts a mean from every row; `None`: that of the rows.
fn centre(matrix: &mut Matrix, mean: Option<&[f64]>) {
    let own = matrix.mean();
    let mean = mean.unwrap_or(&own);
    matrix.rows_mut().for_each(|row| add(row, mean, -1.0));
}

fn on_device(matrix: &Matrix, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = matrix.values.iter().map(|&value| value as f32).collect();
    Tensor::from_data(TensorData::new(values, [matrix.num_rows(), matrix.columns]), device)
}

/// Of each row, the rows with features of the highest cosine similarity, in ascending order.
fn neighbors(mut values: Vec<f32>, width: usize, protocol: &Protocol<'_>) -> Result<Vec<Vec<usize>>, TrainError> {
    normalize_rows(&mut values, width);
    let (device, stop) = (protocol.device, protocol.stop);
    let scores = Scores { rows: &values, columns: &values, dim: width, device, stop, tile: TILE_SCORES };
    let top = Top::of(&scores, protocol.neighbors + 1, 1.0)?;
    let of = |row: usize| {
        let others = top.row(row).iter().map(|answer| answer.column).filter(|&column| column != row);
        let mut others: Vec<usize> = others.take(protocol.neighbors).collect();
        others.sort_unstable();
        others
    };
    Ok((0..top.len()).map(of).collect())
}
