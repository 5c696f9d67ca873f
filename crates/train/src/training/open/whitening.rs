//! The first weights of an image projection that whitens a locked tower's features. Nothing is trained here.
//!
//! A tower trained for another task spreads its features unevenly: a few directions, the mean among them, carry most of
//! the norm, and what separates two objects lies in the rest. A random projection keeps that imbalance and spends its
//! first epochs undoing it.

use burn::linalg::svd;
use burn::tensor::Tensor;
use dualenc_model::parameters;

use crate::device::read_scalar;
use crate::error::TrainError;

/// Added to the variance of every direction, as a fraction of the median variance: bounds the gain of directions with
/// hardly any.
const FLOOR: f64 = 1e-3;

/// QR sweeps per singular value: LAPACK's `dbdsqr` allows 6 (`MAXITR`).
const SWEEPS: usize = 30;

/// `projection` `[width, dim]` made orthonormal and preceded by a whitening of the features, scaled to its former norm.
/// The features of `images` images come in blocks `[block, width]`, since all may not fit in memory.
///
/// With `C = features^T features / images = U diag(v) U^T` this is `U diag(v^(-strength / 2)) U^T` times the
/// orthonormal projection (ZCA whitening, Bell and Sejnowski, 1997, at `strength` 1). `C` is not centred: the
/// projection has no bias to centre with, and the mean is one more long direction that is shortened.
///
/// # Errors
/// [`TrainError::Usage`] when there are fewer images than directions, or the features are not finite or nearly equal;
/// [`TrainError::Model`] when the device cannot return its data.
pub(crate) fn whitened(
    projection: Tensor<2>,
    images: usize,
    blocks: impl Iterator<Item = Result<Tensor<2>, TrainError>>,
    strength: f64,
) -> Result<Tensor<2>, TrainError> {
    let [width, _] = projection.dims();
    if images < width {
        return Err(TrainError::Usage(format!(
            "`model.image_projection.whitening` measures {width} directions of the image tower's features and needs as \
             many images: found {images}; remove it, or add images"
        )));
    }
    let length = norm(projection.clone())?;
    let mut sum = Tensor::<2>::zeros([width, width], &projection.device());
    for features in blocks {
        let features = features?;
        sum = sum + features.clone().transpose().matmul(features);
    }
    let moments = sum / images as f64;
    // The decomposition panics on a matrix that is not finite.
    if !norm(moments.clone())?.is_finite() {
        return Err(TrainError::Usage(
            "`model.image_projection.whitening` found features of the image tower that are not finite; check the \
             tower's weights"
                .to_owned(),
        ));
    }
    let (directions, variances, _) = svd::<2, 1>(moments, SWEEPS);
    let median = median(parameters::host(variances.clone())?.values)?;
    let factors = (variances + FLOOR * f64::from(median)).powf_scalar(-strength / 2.0);
    let whitening = (directions.clone() * factors.unsqueeze()).matmul(directions.transpose());
    let (left, _, right) = svd::<2, 1>(projection, SWEEPS);
    let whitened = whitening.matmul(left.matmul(right));
    match norm(whitened.clone())? {
        now if now.is_finite() && now > 0.0 => Ok(whitened * (length / now)),
        _ => Err(TrainError::Usage(
            "`model.image_projection.whitening` found features of the image tower that hardly differ between images; \
             remove it, or look at the images"
                .to_owned(),
        )),
    }
}

/// The Frobenius norm.
fn norm(matrix: Tensor<2>) -> Result<f64, TrainError> {
    Ok(read_scalar(matrix.square().sum())?.sqrt())
}

fn median(mut values: Vec<f32>) -> Result<f32, TrainError> {
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().ok_or_else(|| TrainError::Internal("the median of no values".to_owned()))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    /// Features with directions of very different length, around a mean far from zero.
    fn features(images: usize) -> Tensor<2> {
        let values: Vec<f32> = (0..images)
            .flat_map(|image| {
                let wave = |speed: f32| (image as f32 * speed).sin();
                [9.0 + wave(0.7), 3.0 * wave(1.1) + wave(0.7), wave(1.9), 0.7 * wave(2.3)]
            })
            .collect();
        Tensor::from_data(TensorData::new(values, [images, 4]), &Device::flex())
    }

    fn projection(dim: usize) -> Tensor<2> {
        let values: Vec<f32> = (0..4 * dim).map(|at| ((at * at) as f32 * 0.37).sin() * 0.02).collect();
        Tensor::from_data(TensorData::new(values, [4, dim]), &Device::flex())
    }

    fn moments(features: Tensor<2>) -> Tensor<2> {
        let [images, _] = features.dims();
        features.clone().transpose().matmul(features) / images as f64
    }

    #[test]
    fn full_strength_equalizes_variance() {
        let features = features(500);
        let blocks = [features.clone().slice_dim(0, 0..300), features.clone().slice_dim(0, 300..500)];
        let whitened = whitened(projection(4), 500, blocks.into_iter().map(Ok), 1.0).unwrap();
        let moments: Vec<f32> = moments(features.matmul(whitened)).into_data().try_into_vec().unwrap();
        let variance = moments[0];
        for row in 0..4 {
            for column in 0..4 {
                let expected = if row == column { variance } else { 0.0 };
                // The floor takes a little from the shortest direction.
                assert!((moments[row * 4 + column] - expected).abs() < 0.1 * variance, "{moments:?}");
            }
        }
    }

    #[test]
    fn refuses_unusable_features() {
        let refused = |features: Tensor<2>| {
            let images = features.dims()[0];
            whitened(projection(4), images, std::iter::once(Ok(features)), 1.0).unwrap_err().to_string()
        };
        assert!(refused(features(3)).contains("needs as many images: found 3"));
        assert!(refused(features(9) * f32::NAN).contains("not finite"));
        assert!(refused(features(9) * 0.0).contains("hardly differ"));
    }

    #[test]
    fn zero_strength_is_orthonormal() {
        for dim in [3, 4, 7] {
            let before = projection(dim);
            let after = whitened(before.clone(), 50, std::iter::once(Ok(features(50))), 0.0).unwrap();
            assert_eq!(after.dims(), [4, dim]);
            assert!((norm(after.clone()).unwrap() - norm(before).unwrap()).abs() < 1e-6);
            let gram =
                if dim < 4 { after.clone().transpose().matmul(after) } else { after.clone().matmul(after.transpose()) };
            let [size, _] = gram.dims();
            let gram: Vec<f32> = gram.into_data().try_into_vec().unwrap();
            for (at, value) in gram.iter().enumerate() {
                let expected = if at / size == at % size { gram[0] } else { 0.0 };
                assert!((value - expected).abs() < 1e-7, "{dim}: {gram:?}");
            }
        }
    }
}
