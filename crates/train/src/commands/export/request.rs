//! What to export, and for whom.

use std::path::Path;

/// Who loads the exported model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExportFormat {
    /// transformers, as a VisionTextDualEncoder.
    #[default]
    Transformers,
    /// sentence-transformers, as a SentenceTransformer.
    SentenceTransformers,
    /// A program that applies the heads to features: the heads alone, without towers.
    Heads,
}

/// What to export, and where from the model comes.
#[derive(Debug, Clone, Copy)]
pub struct ExportRequest<'a> {
    /// The directory to write, which must be empty or not exist yet.
    pub dir: &'a Path,
    /// Who loads it.
    pub format: ExportFormat,
    /// The run, checkpoint or model that was loaded. The card has the figures of its run.
    pub origin: Option<&'a Path>,
    /// The weight of the trained model, if the weights are mixed with those of its start (WiSE-FT).
    pub alpha: Option<f64>,
}

impl<'a> ExportRequest<'a> {
    /// A request for a VisionTextDualEncoder in `dir`, with a card that names no run.
    #[must_use]
    pub fn new(dir: &'a Path) -> Self {
        Self { dir, format: ExportFormat::default(), origin: None, alpha: None }
    }
}
