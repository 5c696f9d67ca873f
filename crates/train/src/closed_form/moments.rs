//! Means and covariances of pairs of features, added up block by block: memory does not grow with the number of pairs.

use burn::tensor::{Device, Tensor, TensorData};
#[cfg(feature = "flex")]
use dualenc_kernels::{WeightedRows, is_remote, weighted_sum};
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
    /// `[image width, image width]` and `[text width, text width]`; only the lower triangles count.
    squares: [Matrix; 2],
    /// `[image width, text width]`.
    products: Matrix,
}

/// Rows of a block with their weights, as products need them.
struct PairRows {
    /// Images with the sum of the weights of their pairs.
    weights: Vec<(usize, f64)>,
    /// Texts with the weights of their pairs.
    texts: Vec<(usize, f64)>,
    /// Texts image by image, with their weights over the root of the image's.
    of_images: Vec<(usize, f64)>,
    /// Where the texts of each image end.
    ends: Vec<usize>,
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
    /// No features.
    pub fn empty() -> Self {
        Self { images: Vec::new(), texts: Vec::new(), pairs: Vec::new() }
    }

    /// Adds the images of `other`, of which there are `images`, for which `is_in` is true, with their texts. Returns
    /// the number of images now.
    pub fn append(&mut self, other: &Self, images: usize, is_in: impl Fn(usize) -> bool) -> usize {
        let [image_width, text_width] = other.widths(images);
        let mut next = self.images.len() / image_width.max(1);
        let mut row_of = vec![None; images];
        for image in (0..images).filter(|&image| is_in(image)) {
            self.images.extend_from_slice(&other.images[image * image_width..][..image_width]);
            row_of[image] = Some(next);
            next += 1;
        }
        for (text, &(image, weight)) in other.pairs.iter().enumerate() {
            if let Some(row) = row_of[image] {
                self.texts.extend_from_slice(&other.texts[text * text_width..][..text_width]);
                self.pairs.push((row, weight));
            }
        }
        next
    }

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

    /// Adds the pairs of a block with an image for which `is_in` is true. Products are computed in f32 and added in
    /// f64. A pair of weight 0 does not count.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data.
    pub fn add(&mut self, block: &Block, is_in: impl Fn(usize) -> bool, device: &Device) -> Result<(), TrainError> {
        let rows = PairRows::of(block, block.images.len() / self.shift.image.len().max(1), is_in);
        if !rows.weights.is_empty() {
            self.add_sums(block, &rows, device)?;
        }
        self.pairs += rows.texts.len();
        self.weight += rows.texts.iter().map(|(_, weight)| weight).sum::<f64>();
        Ok(())
    }

    /// Adds sums over `rows`: on the host by kernels, else by tensors.
    fn add_sums(&mut self, block: &Block, rows: &PairRows, device: &Device) -> Result<(), TrainError> {
        let Self { shift: Shift { image: image_shift, text: text_shift }, sums, squares, products, .. } = self;
        let [of_images, of_texts] = sums;
        let [image_squares, text_squares] = squares;
        // Sums over the texts of an image are taken before the products: an image counts once in each.
        let factors = [roots(&rows.weights), roots(&rows.texts)];
        let ends = factors.each_ref().map(|factors| (1..=factors.len()).collect::<Vec<usize>>());
        #[cfg(feature = "flex")]
        if !is_remote(device) {
            let images = || WeightedRows::new(&block.images, image_shift, &factors[0], &ends[0]);
            let texts = || WeightedRows::new(&block.texts, text_shift, &factors[1], &ends[1]);
            // With one text an image, mostly the same rows: they are packed once.
            let are_same = rows.of_images == factors[1] && rows.ends == ends[1];
            let text_sums =
                || (!are_same).then(|| WeightedRows::new(&block.texts, text_shift, &rows.of_images, &rows.ends));
            let (images, (texts, text_sums)) = rayon::join(images, || rayon::join(texts, text_sums));
            add(of_images, &weighted_sum(&block.images, image_shift, &rows.weights), 1.0);
            add(of_texts, &weighted_sum(&block.texts, text_shift, &rows.texts), 1.0);
            let squares = || {
                rayon::join(
                    || images.add_squares(&mut image_squares.values),
                    || texts.add_squares(&mut text_squares.values),
                )
            };
            let text_sums = text_sums.as_ref().unwrap_or(&texts);
            rayon::join(squares, || images.add_products(text_sums, &mut products.values));
            return Ok(());
        }
        let (image_block, text_block) = ((&block.images[..], &image_shift[..]), (&block.texts[..], &text_shift[..]));
        rows.weights.iter().for_each(|&term| add(of_images, &centred(image_block, &[term]), 1.0));
        rows.texts.iter().for_each(|&term| add(of_texts, &centred(text_block, &[term]), 1.0));
        let images = tensor(image_block, &factors[0], &ends[0], device);
        let texts = tensor(text_block, &factors[1], &ends[1], device);
        let text_sums = tensor(text_block, &rows.of_images, &rows.ends, device);
        accumulate(image_squares, images.clone(), images.clone())?;
        accumulate(text_squares, texts.clone(), texts)?;
        accumulate(products, images, text_sums)
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
            within: [
                less_means(&self.squares[0].mirrored(), image, image),
                less_means(&self.squares[1].mirrored(), text, text),
            ],
            between: less_means(&self.products, image, text),
            means: [(&means[0], &self.shift.image), (&means[1], &self.shift.text)]
                .map(|(mean, shift)| mean.iter().zip(shift).map(|(mean, &shift)| mean + f64::from(shift)).collect()),
        }
    }
}

impl PairRows {
    /// Of the pairs with an image for which `is_in` is true, in a block of `num_images` images.
    fn of(block: &Block, num_images: usize, is_in: impl Fn(usize) -> bool) -> Self {
        let pairs = || {
            let numbered = block.pairs.iter().enumerate();
            numbered.filter(|(_, (image, weight))| *weight > 0.0 && is_in(*image))
        };
        let (mut sums, mut counts) = (vec![0.0; num_images], vec![0; num_images]);
        pairs().for_each(|(_, &(image, weight))| {
            sums[image] += weight;
            counts[image] += 1;
        });
        let weights: Vec<(usize, f64)> = (0..num_images).zip(sums.clone()).filter(|(_, sum)| *sum > 0.0).collect();
        let (mut next, mut ends, mut end) = (vec![0; num_images], Vec::with_capacity(weights.len()), 0);
        for &(image, _) in &weights {
            next[image] = end;
            end += counts[image];
            ends.push(end);
        }
        let mut of_images = vec![(0, 0.0); end];
        for (text, &(image, weight)) in pairs() {
            of_images[next[image]] = (text, weight / sums[image].sqrt());
            next[image] += 1;
        }
        Self { weights, texts: pairs().map(|(text, &(_, weight))| (text, weight)).collect(), of_images, ends }
    }
}

fn roots(weights: &[(usize, f64)]) -> Vec<(usize, f64)> {
    weights.iter().map(|&(row, weight)| (row, weight.sqrt())).collect()
}

/// The sum over `terms` of rows of `values`, less `shift`.
fn centred((values, shift): (&[f32], &[f32]), terms: &[(usize, f64)]) -> Vec<f64> {
    let mut sums = vec![0.0; shift.len()];
    for &(row, factor) in terms {
        let row = values[row * shift.len()..][..shift.len()].iter().zip(shift);
        let row = row.map(|(&value, &shift)| f64::from(value) - f64::from(shift));
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += factor * value);
    }
    sums
}

/// A row for each of `ends`: the sum of its terms.
fn tensor(block: (&[f32], &[f32]), terms: &[(usize, f64)], ends: &[usize], device: &Device) -> Tensor<2> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let sums = starts.zip(ends).flat_map(|(start, &end)| centred(block, &terms[start..end]));
    let values: Vec<f32> = sums.map(|value| value as f32).collect();
    Tensor::from_data(TensorData::new(values, [ends.len(), block.1.len()]), device)
}

/// Adds `rows^T columns` to `sum`.
fn accumulate(sum: &mut Matrix, rows: Tensor<2>, columns: Tensor<2>) -> Result<(), TrainError> {
    let product = parameters::host(rows.transpose().matmul(columns))?.values;
    sum.values.iter_mut().zip(product).for_each(|(sum, value)| *sum += f64::from(value));
    Ok(())
}
