//! A linear classifier in closed form: L2-regularised least squares with the targets 1 for the class of an image and -1
//! for the others, as in LiT's few-shot evaluation (big_vision, `evaluators/fewshot_lsr.py`). Features are standardised
//! by the train side, and the intercept is not regularised: the result is that of scikit-learn's `StandardScaler` and
//! `RidgeClassifier`.

use dualenc_data::mix;

use crate::error::TrainError;
use crate::eval::probes::knn::place;
use crate::eval::probes::matrix::{Cholesky, Matrix, add};

/// Strengths that are tried, as exponents of 2: around the fixed 2^10 of big_vision (`configs/common_fewshot.py`).
const EXPONENTS: [i32; 11] = [-10, -7, -4, -1, 2, 5, 8, 11, 14, 17, 20];

/// The strength if no class has two images to choose by: that of big_vision.
const DEFAULT_L2: f64 = 1024.0;

/// One in `HELD_OUT` train images of a class is held out to choose the strength.
const HELD_OUT: usize = 5;

/// Seed of the choice of the images that are held out (ASCII `l2`).
const SEED: u64 = 0x6c32;

/// Standard deviations below this fraction of the mean are rounding errors of a constant.
const CONSTANT: f64 = 1e-10;

/// A fitted classifier.
#[derive(Debug, Clone)]
pub(crate) struct RidgeClassifier {
    scaling: Scaling,
    /// `[classes, dim]`
    weights: Matrix,
    intercepts: Vec<f64>,
}

/// Maps features to mean 0 and standard deviation 1.
#[derive(Debug, Clone)]
struct Scaling {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

/// Features and labels of some images.
#[derive(Clone, Copy)]
pub(crate) struct Labelled<'a> {
    /// `[images, dim]`, flat.
    pub features: &'a [f32],
    pub labels: &'a [usize],
    pub dim: usize,
}

impl Labelled<'_> {
    fn filter(self, keep: impl Fn(usize) -> bool) -> (Vec<f32>, Vec<usize>) {
        let kept = (0..self.labels.len()).filter(|&image| keep(image));
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        for image in kept {
            features.extend_from_slice(&self.features[image * self.dim..][..self.dim]);
            labels.push(self.labels[image]);
        }
        (features, labels)
    }
}

/// The least-squares problem of some images, of which the strength of the regularisation is open.
struct Problem {
    scaling: Scaling,
    /// Standardised, `[images, dim]`.
    x: Matrix,
    /// `x^T x`, or `x x^T` if there are fewer images than dimensions: the lower triangle.
    gram: Matrix,
    /// Right-hand sides for `gram`, by class.
    targets: Matrix,
    intercepts: Vec<f64>,
}

impl Problem {
    fn new(train: Labelled<'_>, num_classes: usize) -> Self {
        let mut x = Matrix::of(train.features, train.dim);
        let scaling = Scaling::of(&x);
        scaling.apply(&mut x);
        let (images, mut counts) = (x.num_rows(), vec![0_usize; num_classes]);
        train.labels.iter().for_each(|&label| counts[label] += 1);
        let intercepts: Vec<f64> = counts.iter().map(|&count| 2.0 * count as f64 / images as f64 - 1.0).collect();
        let (gram, targets) = if images < train.dim {
            let mut targets = Matrix::zeros(num_classes, images);
            for (class, row) in targets.rows_mut().enumerate() {
                for (target, &label) in row.iter_mut().zip(train.labels) {
                    *target = if label == class { 1.0 } else { -1.0 } - intercepts[class];
                }
            }
            (x.gram(), targets)
        } else {
            // x^T (y - mean of y): the columns of x sum to 0, and the targets 1 and -1 differ by 2.
            let mut targets = Matrix::zeros(num_classes, train.dim);
            for (row, &label) in x.rows().zip(train.labels) {
                add(&mut targets.values[label * train.dim..][..train.dim], row, 2.0);
            }
            (x.transposed().gram(), targets)
        };
        Self { scaling, x, gram, targets, intercepts }
    }

    /// The solution with the strength `l2`.
    ///
    /// # Errors
    /// [`TrainError::Internal`] when the problem has none, since features are not finite.
    fn solve(&self, l2: f64) -> Result<RidgeClassifier, TrainError> {
        let mut gram = self.gram.clone();
        gram.add_to_diagonal(l2);
        let factor = Cholesky::of(gram)
            .ok_or_else(|| TrainError::Internal("the least squares of a linear probe have no solution".to_owned()))?;
        let mut weights = self.targets.clone();
        factor.solve(&mut weights);
        if self.x.num_rows() < self.x.columns {
            weights = weights.times_transposed(&self.x.transposed());
        }
        Ok(RidgeClassifier { scaling: self.scaling.clone(), weights, intercepts: self.intercepts.clone() })
    }
}

impl Scaling {
    fn of(x: &Matrix) -> Self {
        let mean = x.mean();
        let mut squares = vec![0.0; x.columns];
        for row in x.rows() {
            for ((square, value), mean) in squares.iter_mut().zip(row).zip(&mean) {
                *square += (value - mean).powi(2);
            }
        }
        let images = x.num_rows().max(1) as f64;
        let deviation = squares.iter().zip(&mean).map(|(square, mean)| {
            let deviation = (square / images).sqrt();
            if deviation > CONSTANT * mean.abs() && deviation > 0.0 { deviation } else { 1.0 }
        });
        Self { deviation: deviation.collect(), mean }
    }

    fn apply(&self, x: &mut Matrix) {
        for row in x.rows_mut() {
            for ((value, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                *value = (*value - mean) / deviation;
            }
        }
    }
}

impl RidgeClassifier {
    /// Fits a classifier with the strength `l2`.
    ///
    /// # Errors
    /// [`TrainError::Internal`] when a feature is not finite.
    #[cfg(test)]
    pub fn fit(train: Labelled<'_>, num_classes: usize, l2: f64) -> Result<Self, TrainError> {
        Problem::new(train, num_classes).solve(l2)
    }

    /// Fits a classifier, and chooses the strength by the accuracy on a fifth of the images of each class, which are
    /// held out for it. Returns the strength, too. Of equally good ones it is the largest.
    ///
    /// # Errors
    /// [`TrainError::Internal`] when a feature is not finite.
    pub fn fit_best(train: Labelled<'_>, num_classes: usize) -> Result<(Self, f64), TrainError> {
        let held_out = held_out(train.labels, num_classes);
        let problem = Problem::new(train, num_classes);
        if !held_out.contains(&true) {
            return Ok((problem.solve(DEFAULT_L2)?, DEFAULT_L2));
        }
        let (features, labels) = train.filter(|image| !held_out[image]);
        let chooser = Problem::new(Labelled { features: &features, labels: &labels, dim: train.dim }, num_classes);
        let (features, labels) = train.filter(|image| held_out[image]);
        let test = Labelled { features: &features, labels: &labels, dim: train.dim };
        let mut best = (0, DEFAULT_L2);
        for exponent in EXPONENTS {
            let l2 = f64::from(exponent).exp2();
            let hits = chooser.solve(l2)?.ranks(test).into_iter().filter(|&rank| rank == 0).count();
            if hits >= best.0 {
                best = (hits, l2);
            }
        }
        Ok((problem.solve(best.1)?, best.1))
    }

    /// Scores of images, `[images, classes]`. `features`: shape `[images, dim]`, flat.
    pub fn scores(&self, features: &[f32]) -> Matrix {
        let mut x = Matrix::of(features, self.scaling.mean.len());
        self.scaling.apply(&mut x);
        let mut scores = x.times_transposed(&self.weights);
        scores.rows_mut().for_each(|row| add(row, &self.intercepts, 1.0));
        scores
    }

    /// Of each image, the number of classes before its own.
    pub fn ranks(&self, test: Labelled<'_>) -> Vec<usize> {
        self.scores(test.features).rows().zip(test.labels).map(|(scores, &label)| place(scores, label)).collect()
    }
}

/// Which images are held out: a fifth of each class, at least one if there are two.
fn held_out(labels: &[usize], num_classes: usize) -> Vec<bool> {
    let mut of_class = vec![Vec::new(); num_classes];
    labels.iter().enumerate().for_each(|(image, &label)| of_class[label].push(image));
    let mut held_out = vec![false; labels.len()];
    for mut images in of_class {
        images.sort_by_key(|&image| mix(SEED, &[image as u64]));
        let count = if images.len() < 2 { 0 } else { images.len().div_ceil(HELD_OUT) };
        images.iter().take(count).for_each(|&image| held_out[image] = true);
    }
    held_out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes along the first dimension; the second is noise, the third constant.
    fn images(count: usize) -> (Vec<f32>, Vec<usize>) {
        let noise = |at: usize, seed| (mix(seed, &[at as u64]) % 1000) as f32 / 500.0 - 1.0;
        let row = |at: usize| [if at.is_multiple_of(2) { 1.0 } else { -1.0 } + noise(at, 1) * 0.5, noise(at, 2), 7.0];
        ((0..count).flat_map(row).collect(), (0..count).map(|at| at % 2).collect())
    }

    #[test]
    fn separable_classes_are_separated() {
        let (features, labels) = images(40);
        let train = Labelled { features: &features, labels: &labels, dim: 3 };
        let (classifier, l2) = RidgeClassifier::fit_best(train, 3).unwrap();
        assert!(classifier.ranks(train).iter().all(|&rank| rank == 0));
        assert!(EXPONENTS.iter().any(|&exponent| f64::from(exponent).exp2() == l2), "{l2}");
        // A class without an image is never answered.
        assert!(classifier.scores(&features).rows().all(|scores| scores[2] < scores[0].max(scores[1])));
    }

    #[test]
    fn both_forms_have_one_solution() {
        // 4 images of 6 dimensions are solved by images, and with two copies of each, and twice the strength, by
        // dimensions.
        let features: Vec<f32> = (0..24).map(|at| (mix(5, &[at]) % 100) as f32 / 50.0).collect();
        let labels = [0, 1, 1, 0];
        let by_images =
            RidgeClassifier::fit(Labelled { features: &features, labels: &labels, dim: 6 }, 2, 0.5).unwrap();
        let (twice, labels) = (features.repeat(2), labels.repeat(2));
        let by_dims = RidgeClassifier::fit(Labelled { features: &twice, labels: &labels, dim: 6 }, 2, 1.0).unwrap();
        for (one, other) in by_images.weights.values.iter().zip(&by_dims.weights.values) {
            assert!((one - other).abs() < 1e-9, "{one} {other}");
        }
    }

    #[test]
    fn holds_out_a_fifth() {
        let labels: Vec<usize> = [vec![0; 10], vec![1; 3], vec![2; 1]].concat();
        let held_out = held_out(&labels, 4);
        let count =
            |class| held_out.iter().zip(&labels).filter(|(held_out, label)| **held_out && **label == class).count();
        assert_eq!([0, 1, 2].map(count), [2, 1, 0]);
        let (classifier, l2) =
            RidgeClassifier::fit_best(Labelled { features: &[1.0, -1.0], labels: &[0, 1], dim: 1 }, 2).unwrap();
        assert_eq!((l2, classifier.weights.columns), (DEFAULT_L2, 1));
    }

    #[test]
    fn features_without_a_number_are_refused() {
        let train = Labelled { features: &[1.0, f32::NAN, 0.5], labels: &[0, 1, 1], dim: 1 };
        assert!(matches!(RidgeClassifier::fit(train, 2, 1.0), Err(TrainError::Internal(_))));
    }
}
