//! What an evaluation found beside its metrics: the answers to single images and texts.

use crate::eval::metrics::calibration::CalibrationBin;

/// The answers of an evaluation. Images and captions have their numbers in the evaluation's data.
#[derive(Debug, Clone)]
pub enum Details {
    /// Of zero-shot classification.
    Classes(ClassDetails),
    /// Of retrieval.
    Retrieval(RetrievalDetails),
    /// The task has none.
    None,
}

/// Embeddings of the images or texts of an evaluation.
#[derive(Debug, Clone, Default)]
pub struct DetailEmbeds {
    /// Values per row.
    pub dim: usize,
    /// L2-normalised, shape `[rows, dim]`, flat.
    pub values: Vec<f32>,
}

/// Answers of a classification.
#[derive(Debug, Clone)]
pub struct ClassDetails {
    /// The classes in their order.
    pub classes: Vec<ClassResult>,
    /// Wrong answers by class, the most frequent first; empty with several labels an image.
    pub confusions: Vec<Confusion>,
    /// Bins of equal width over the confidence of the first answer.
    pub calibration: Vec<CalibrationBin>,
    /// One for each image that was read.
    pub predictions: Vec<Prediction>,
    /// Of the images, in the order of `predictions`.
    pub image_embeds: DetailEmbeds,
    /// Of the classes.
    pub class_embeds: DetailEmbeds,
}

/// The result of one class.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClassResult {
    /// Its name.
    pub name: String,
    /// Images of the class that were read.
    pub images: usize,
    /// Those of them that have it as their first answer.
    pub hits: usize,
    /// Images that have it as their first answer, rightly or not.
    pub predicted: usize,
    /// Average precision over all images, from 0 to 1, with several labels an image.
    pub average_precision: Option<f64>,
}

/// Images of one class that were taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confusion {
    /// The number of their class.
    pub label: usize,
    /// The number of the class that was answered.
    pub predicted: usize,
    /// Number of images.
    pub count: usize,
}

/// The answers to one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Its number in the data.
    pub image: usize,
    /// The numbers of its classes.
    pub labels: Vec<usize>,
    /// The best classes with their probabilities, the best first: up to 5.
    pub answers: Vec<(usize, f64)>,
}

/// Answers of retrieval, in both directions.
#[derive(Debug, Clone)]
pub struct RetrievalDetails {
    /// The image of each row of `image_embeds`, by its number in the data; the first of equal files.
    pub images: Vec<usize>,
    /// The caption of each row of `text_embeds`, by its number in the data.
    pub captions: Vec<usize>,
    /// Of each caption, the row of its image.
    pub image_of_caption: Vec<usize>,
    /// Of each caption, the best images, the best first: up to 10.
    pub images_found: Vec<Vec<Found>>,
    /// Of each image, the best captions, the best first: up to 10.
    pub captions_found: Vec<Vec<Found>>,
    /// Of the images.
    pub image_embeds: DetailEmbeds,
    /// Of the captions.
    pub text_embeds: DetailEmbeds,
}

/// An answer to a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Its row among the embeddings of its side.
    pub row: usize,
    /// Its cosine similarity with the query.
    pub score: f32,
    /// Whether it is a right answer.
    pub is_right: bool,
}
