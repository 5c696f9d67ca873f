//! Means and covariances of pairs of features, added up block by block: memory does not grow with the number of pairs.

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_model::parameters;

use crate::error::TrainError;
use crate::eval::probes::matrix::{Matrix, add};

/// Features of some images and of their texts.
pub(crate) struct Block {
    /// `[images, image width]`, flat.
    pub images: Vec<f32>,
    /// `[texts, text width]`, flat.
    pub texts: Vec<f32>,
    /// Of each text, its image, as a row of `images`, and its weight.
    pub pairs: Vec<(usize, f64)>,
}

/// What is subtracted from every feature, so that sums of squares in f32 do not cancel: the means of the first block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shift {
    image: Vec<f32>,
    text: Vec<f32>,
}

/// Weighted sums over pairs, of features less the [`Shift`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Moments {
    shift: Shift,
    /// Number of pairs.
    pub pairs: usize,
    weight: f64,
    sums: [Vec<f64>; 2],
    /// `[image width, image width]` and `[text width, text width]`.
    squares: [Matrix; 2],
    /// `[image width, text width]`.
    products: Matrix,
}

/// Means and covariances of images and texts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Covariances {
    /// Values of the features of each side, which the ridge is measured by. What is below has fewer in the span of few
    /// pairs.
    pub widths: [usize; 2],
    pub means: [Vec<f64>; 2],
    /// Of images, `[image width, image width]`, and of texts.
    pub within: [Matrix; 2],
    /// `[image width, text width]`.
    pub between: Matrix,
}

impl Block {
    /// The widths of both sides.
    fn widths(&self, images: usize) -> [usize; 2] {
        [self.images.len() / images.max(1), self.texts.len() / self.pairs.len().max(1)]
    }
}

impl Shift {
    /// The means of a block of `images` images.
    pub fn of(block: &Block, images: usize) -> Self {
        let [image, text] = block.widths(images);
        let mean = |values: &[f32], width: usize| {
            let mean = Matrix::of(values, width).mean();
            mean.into_iter().map(|value| value as f32).collect()
        };
        Self { image: mean(&block.images, image), text: mean(&block.texts, text) }
    }

    /// That of images and that of texts.
    pub fn sides(&self) -> [&[f32]; 2] {
        [&self.image, &self.text]
    }
}

impl Moments {
    /// No pairs.
    pub fn new(shift: Shift) -> Self {
        let (image, text) = (shift.image.len(), shift.text.len());
        Self {
            pairs: 0,
            weight: 0.0,
            sums: [vec![0.0; image], vec![0.0; text]],
            squares: [Matrix::zeros(image, image), Matrix::zeros(text, text)],
            products: Matrix::zeros(image, text),
            shift,
        }
    }

    /// Adds the pairs of a block for whose image `is_in` is true. Products are computed in f32 on `device` and added in
    /// f64. A pair of weight 0 does not count.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data.
    pub fn add(&mut self, block: &Block, is_in: impl Fn(usize) -> bool, device: &Device) -> Result<(), TrainError> {
        let Shift { image: image_shift, text: text_shift } = &self.shift;
        let (image_width, text_width) = (image_shift.len(), text_shift.len());
        let pairs: Vec<(usize, (usize, f64))> = block
            .pairs
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, (image, weight))| *weight > 0.0 && is_in(*image))
            .collect();
        let num_images = block.images.len() / image_width.max(1);
        let mut weights = vec![0.0; num_images];
        pairs.iter().for_each(|(_, (image, weight))| weights[*image] += weight);
        let used: Vec<usize> = (0..num_images).filter(|&image| weights[image] > 0.0).collect();
        let mut row_of = vec![0; num_images];
        used.iter().enumerate().for_each(|(row, &image)| row_of[image] = row);

        // Sums over the texts of an image are taken before the products: an image counts once in each.
        let mut images = Vec::with_capacity(used.len() * image_width);
        for &image in &used {
            let root = weights[image].sqrt();
            let centred = centred(&block.images, image, image_shift);
            for (sum, value) in self.sums[0].iter_mut().zip(centred.clone()) {
                *sum += weights[image] * value;
            }
            images.extend(centred.map(|value| (root * value) as f32));
        }
        let mut text_sums = vec![0.0; used.len() * text_width];
        let mut texts = Vec::with_capacity(pairs.len() * text_width);
        for &(text, (image, weight)) in &pairs {
            let root = weight.sqrt();
            let centred: Vec<f64> = centred(&block.texts, text, text_shift).collect();
            add(&mut self.sums[1], &centred, weight);
            add(&mut text_sums[row_of[image] * text_width..][..text_width], &centred, weight / weights[image].sqrt());
            texts.extend(centred.iter().map(|value| (root * value) as f32));
        }
        let text_sums = text_sums.into_iter().map(|value| value as f32).collect();

        let tensor = |values: Vec<f32>, width: usize| {
            let rows = values.len() / width.max(1);
            Tensor::<2>::from_data(TensorData::new(values, [rows, width]), device)
        };
        if !used.is_empty() {
            let (images, texts) = (tensor(images, image_width), tensor(texts, text_width));
            accumulate(&mut self.squares[0], images.clone(), images.clone())?;
            accumulate(&mut self.squares[1], texts.clone(), texts)?;
            accumulate(&mut self.products, images, tensor(text_sums, text_width))?;
        }
        self.pairs += pairs.len();
        self.weight += pairs.iter().map(|(_, (_, weight))| weight).sum::<f64>();
        Ok(())
    }

    /// The moments of the pairs of both.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.pairs += other.pairs;
        self.weight += other.weight;
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, other)| add(sum, other, 1.0));
        let matrices = self.squares.iter_mut().chain([&mut self.products]);
        for (matrix, other) in matrices.zip(other.squares.iter().chain([&other.products])) {
            add(&mut matrix.values, &other.values, 1.0);
        }
        self
    }

    /// Means and covariances. Those of no pairs are not numbers.
    pub fn covariances(&self) -> Covariances {
        let means = self.sums.each_ref().map(|sum| sum.iter().map(|sum| sum / self.weight).collect::<Vec<f64>>());
        let less_means = |matrix: &Matrix, rows: &[f64], columns: &[f64]| {
            let mut matrix = matrix.clone();
            for (row, mean) in matrix.rows_mut().zip(rows) {
                for (value, other) in row.iter_mut().zip(columns) {
                    *value = *value / self.weight - mean * other;
                }
            }
            matrix
        };
        let [image, text] = &means;
        Covariances {
            widths: [image.len(), text.len()],
            within: [less_means(&self.squares[0], image, image), less_means(&self.squares[1], text, text)],
            between: less_means(&self.products, image, text),
            means: [(&means[0], &self.shift.image), (&means[1], &self.shift.text)]
                .map(|(mean, shift)| mean.iter().zip(shift).map(|(mean, &shift)| mean + f64::from(shift)).collect()),
        }
    }
}

/// A row of `values`, less `shift`.
fn centred<'a>(values: &'a [f32], row: usize, shift: &'a [f32]) -> impl Iterator<Item = f64> + Clone + 'a {
    let row = &values[row * shift.len()..][..shift.len()];
    row.iter().zip(shift).map(|(&value, &shift)| f64::from(value) - f64::from(shift))
}

/// Adds `rows^T columns` to `sum`.
fn accumulate(sum: &mut Matrix, rows: Tensor<2>, columns: Tensor<2>) -> Result<(), TrainError> {
    let product = parameters::host(rows.transpose().matmul(columns))?.values;
    sum.values.iter_mut().zip(product).for_each(|(sum, value)| *sum += f64::from(value));
    Ok(())
}
