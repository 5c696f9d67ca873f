//! What computes the answers.

use serde_json::Value;

/// What a server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The name of the model.
    pub model: String,
    /// Values of an embedding.
    pub dim: usize,
    /// The index, if there is one.
    pub index: Option<IndexInfo>,
    /// Version of the program.
    pub version: String,
}

/// What is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexInfo {
    /// Number of embeddings.
    pub rows: usize,
    /// Whether the rows are images that can be shown.
    pub has_pictures: bool,
}

/// What to search for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// What is like this text.
    Text(String),
    /// What is like this image, an encoded file.
    Image(Vec<u8>),
}

/// The labels of each image, the most similar first, in the form in which they are answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Classified(pub Vec<Value>);

/// A picture to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Its media type.
    pub media_type: &'static str,
    /// The encoded file.
    pub bytes: Vec<u8>,
}

/// Why there is no answer. Messages say what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineError {
    /// The request has content that cannot be used, such as a damaged image.
    Unusable(String),
    /// What is asked for does not exist.
    Absent(String),
    /// It is not the request's fault.
    Failed(String),
}

/// Computes embeddings, labels and hits. All methods but [`Engine::picture`] are called by one thread, one at a time.
pub trait Engine: Send + Sync + 'static {
    /// What is served. It does not change.
    fn served(&self) -> Served;

    /// The normalised embedding of each text.
    ///
    /// # Errors
    /// [`EngineError::Failed`].
    fn embed_texts(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, EngineError>;

    /// The normalised embedding of each image, an encoded file.
    ///
    /// # Errors
    /// [`EngineError::Unusable`] if one cannot be used, with its number from 1; [`EngineError::Failed`].
    fn embed_images(&self, images: &[Vec<u8>]) -> Result<Vec<Vec<f32>>, EngineError>;

    /// The `top` most similar labels of each image. Each of `templates` has `{c}` for the label; without one, labels
    /// are texts as they are.
    ///
    /// # Errors
    /// As for [`Engine::embed_images`]; [`EngineError::Unusable`] if labels or templates cannot be used.
    fn classify(
        &self,
        images: &[Vec<u8>],
        labels: &[String],
        templates: &[String],
        top: usize,
    ) -> Result<Classified, EngineError>;

    /// The `top` nearest rows of the index, the nearest first, in the form in which they are answered.
    ///
    /// # Errors
    /// As for [`Engine::embed_images`].
    fn search(&self, query: &Query, top: usize) -> Result<Vec<Value>, EngineError>;

    /// A small picture of a row of the index. Several threads may call it.
    ///
    /// # Errors
    /// [`EngineError::Absent`] if the index has no such row, or the row has no picture that can be shown.
    fn picture(&self, row: usize) -> Result<Picture, EngineError>;
}
