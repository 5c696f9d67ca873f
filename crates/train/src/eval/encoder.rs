//! Embeddings of many images or texts by a model that does not change meanwhile.

use std::sync::Arc;

use dualenc_data::{Encoded, ImageProcessor, Skipped, TokenBatch, TokenTable, Tokenizer};
use dualenc_model::{Dropout, DualEncoder, TokenSequences, parameters};

use crate::config::Precision;
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::zero_shot::normalize_rows;
use crate::features::image_index::{ImageList, Views};
use crate::features::images::ImageFeatures;
use crate::features::locked_towers::LockedTowers;
use crate::stop_flag::StopFlag;

/// Embeddings, flat.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Width of a row.
    pub dim: usize,
    /// Un-normalised projections `[rows, dim]`: the reference's `get_*_features`.
    pub features: Vec<f32>,
}

impl Embeddings {
    /// The rows divided by their L2 norms.
    pub fn normalized(&self) -> Vec<f32> {
        let mut embeds = self.features.clone();
        normalize_rows(&mut embeds, self.dim);
        embeds
    }
}

/// A model in evaluation, with what its inputs need.
pub struct Encoder<'a> {
    /// Without gradients.
    pub model: &'a DualEncoder,
    /// The text tower's.
    pub tokenizer: &'a Arc<Tokenizer>,
    /// Its locked towers, with what is kept of them.
    pub locked: &'a LockedTowers,
    /// Its device.
    pub compute: &'a Compute,
    /// Threads that read images and texts.
    pub workers: usize,
    /// Ends work on images early.
    pub stop: &'a StopFlag,
    /// Texts or images a pass through the projections and the text tower.
    pub batch_size: usize,
}

impl Encoder<'_> {
    /// Features of the image tower: those that are kept, or where it trains, of the tower as it is now.
    fn image_features(&self, processor: &Arc<ImageProcessor>) -> ImageFeatures {
        self.locked.images.clone().unwrap_or_else(|| {
            let tower = self.model.image_tower.clone();
            let compute = Compute { locked_precision: Precision::F32, ..self.compute.clone() };
            ImageFeatures::new(tower, Arc::clone(processor), compute, self.workers).until(self.stop)
        })
    }

    /// The images that can be used, their embeddings row by row, and those that cannot.
    ///
    /// # Errors
    /// As [`ImageFeatures::fill`].
    pub fn images(
        &self,
        images: Arc<dyn ImageList>,
        processor: &Arc<ImageProcessor>,
        on_progress: impl FnMut(usize),
    ) -> Result<(Vec<usize>, Embeddings, Vec<Skipped>), TrainError> {
        let features = self.image_features(processor);
        let set = features.set(images, Views::One);
        let (_, bad) = features.fill(&set, on_progress)?;
        let usable = set.usable();
        let mut values = Vec::with_capacity(usable.len() * self.model.embed_dim());
        for batch in usable.chunks(self.batch_size.max(1)) {
            let projected = self.model.project_image(features.select(&set, batch, 0)?);
            values.extend(parameters::host(projected)?.values);
        }
        Ok((usable, Embeddings { dim: self.model.embed_dim(), features: values }, bad))
    }

    /// The embeddings of `texts`, row by row.
    ///
    /// # Errors
    /// When a text cannot be tokenised.
    pub fn texts<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        mut on_progress: impl FnMut(usize),
    ) -> Result<Embeddings, TrainError> {
        let table = TokenTable::build(self.tokenizer, texts, self.workers)?;
        let dim = self.model.embed_dim();
        // Texts of like length go together; each row is written where its text stands.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| table.get(text).0.len());
        let mut values = vec![0.0; texts.len() * dim];
        let mut done = 0;
        for batch in order.chunks(self.batch_size.max(1)) {
            let mut tokens = TokenBatch::default();
            for &text in batch {
                let (ids, types) = table.get(text);
                tokens.push(Encoded { ids: ids.to_vec(), type_ids: types.to_vec(), cut: false });
            }
            let features = match &self.locked.texts {
                Some(texts) => self.model.project_text(texts.of_tokens(&tokens)?),
                None => {
                    let tokens = TokenSequences::new(tokens.ids, tokens.type_ids);
                    self.model.text_features(&tokens, &Dropout::off())?
                }
            };
            let rows = parameters::host(features)?.values;
            for (text, row) in batch.iter().zip(rows.chunks_exact(dim)) {
                values[text * dim..][..dim].copy_from_slice(row);
            }
            done += batch.len();
            on_progress(done);
        }
        Ok(Embeddings { dim, features: values })
    }
}
