//! What the teacher embeds the pairs of a batch to.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::tensor::Tensor;
use dualenc_data::{Batch, Dataset, TokenBatch, Tokens};
use dualenc_model::{Dropout, DualEncoder, normalize, parameters};
use rayon::prelude::*;

use crate::config::{CacheDtype, RunConfig};
use crate::device::Compute;
use crate::error::TrainError;
use crate::features::image_index::{ImageSet, Views};
use crate::features::images::ImageFeatures;
use crate::features::texts::TextFeatures;
use crate::teacher::loaded::LoadedTeacher;

/// Captions that one thread looks up sooner than more threads start.
const CAPTIONS_PER_THREAD: usize = 64;

/// The teacher of a run, with the training data as it sees them: images without augmentation, and the texts of the
/// run's captions without word dropout.
pub(crate) struct Teacher {
    /// Without gradients.
    model: DualEncoder,
    pub images: ImageFeatures,
    pub texts: TextFeatures,
    /// The training images.
    set: ImageSet,
    dataset: Arc<Dataset>,
    tokens: Tokens,
    seed: u64,
    /// As [`LoadedTeacher::fingerprint`].
    pub fingerprint: String,
    computed: Mutex<Computed>,
}

/// Features that were computed so far, and the time that it took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Computed {
    pub images: usize,
    pub captions: usize,
    /// Of images and captions.
    pub seconds: [f64; 2],
}

impl Teacher {
    /// Opens the features of `loaded` for the pairs of `dataset`: on disk where the run caches features, else in
    /// memory. `workers`: threads that read images.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when the cache cannot be opened; [`TrainError::Data`] when a
    /// caption cannot be tokenized.
    pub fn open(
        loaded: LoadedTeacher,
        config: &RunConfig,
        dataset: &Arc<Dataset>,
        compute: &Compute,
        workers: usize,
        cache: Option<(PathBuf, CacheDtype)>,
    ) -> Result<Self, TrainError> {
        let cache = cache.as_ref().map(|(dir, dtype)| (dir.as_path(), *dtype));
        let (images, texts) = loaded.features(compute, workers, cache)?;
        let tokens = Tokens::prepare(Arc::clone(&loaded.tokenizer), dataset, 0.0, workers)?;
        let LoadedTeacher { model, fingerprint, .. } = loaded;
        let (set, dataset) = (images.set(dataset.clone(), Views::One), Arc::clone(dataset));
        let (seed, computed) = (config.run.seed, Mutex::default());
        Ok(Self { model, images, texts, set, dataset, tokens, seed, fingerprint, computed })
    }

    /// The L2-normalised embeddings of the images of a whole batch, `[pairs, dim]`, and of its captions, `[pairs *
    /// slots, dim]`. Features that are not stored yet are computed and stored.
    ///
    /// # Errors
    /// As for [`Teacher::prepare`]; [`TrainError::Data`] when a stored feature is damaged and its image cannot be read
    /// again.
    pub fn embeds(&self, batch: &Batch) -> Result<[Tensor<2>; 2], TrainError> {
        let tokens = self.prepare(batch)?;
        let images: Vec<usize> = batch.pairs.iter().map(|pair| pair.image).collect();
        let off = Dropout::off();
        let image = self.model.project_image(self.images.select(&self.set, &images, 0)?, &off);
        let text = self.model.project_text(self.texts.of_tokens(&tokens)?, &off);
        Ok([image, text].map(normalize))
    }

    /// Computes the features of a batch that are not stored yet. Returns the tokens of its captions.
    ///
    /// # Errors
    /// [`TrainError::Data`] when an image cannot be read or a caption tokenized; [`TrainError::Write`] when the store
    /// cannot be written; [`TrainError::NotFiniteOutput`] when a tower computes NaN or an infinity.
    pub fn prepare(&self, batch: &Batch) -> Result<TokenBatch, TrainError> {
        let started = Instant::now();
        let images: Vec<usize> = batch.pairs.iter().map(|pair| pair.image).collect();
        let of_images = self.images.fill_some(&self.set, &images)?;
        let after_images = started.elapsed().as_secs_f64();
        let tokens = self.tokens_of(batch)?;
        let of_captions = self.texts.fill(&tokens)?;
        let seconds = [after_images, started.elapsed().as_secs_f64() - after_images];
        // Every number is written whole.
        let mut all = self.computed.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = [of_images.computed, of_captions.computed];
        all.images += counts[0];
        all.captions += counts[1];
        for ((all, count), seconds) in all.seconds.iter_mut().zip(counts).zip(seconds) {
            *all += if count > 0 { seconds } else { 0.0 };
        }
        Ok(tokens)
    }

    /// Number of its parameters.
    pub fn parameters(&self) -> usize {
        parameters::count(&self.model)
    }

    /// Values of a feature of an image, and of a caption.
    pub fn row_values(&self) -> [usize; 2] {
        [self.model.image_tower.width(), self.model.text_tower.pooled_width()]
    }

    /// Features that this process computed in steps.
    pub fn computed(&self) -> Computed {
        *self.computed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tokens of the captions of a batch, by the teacher's tokenizer: those of the texts that the run's own sees,
    /// the prompts of class names included, before words are dropped.
    fn tokens_of(&self, batch: &Batch) -> Result<TokenBatch, TrainError> {
        let slots = batch.slots();
        let captions = batch.captions.par_iter().with_min_len(CAPTIONS_PER_THREAD).enumerate();
        let encoded = captions
            .map(|(at, &caption)| self.tokens.encode_slot(&self.dataset, caption, self.seed, batch.epoch, at % slots));
        let mut tokens = TokenBatch::default();
        encoded.collect::<Result<Vec<_>, _>>()?.into_iter().for_each(|encoded| tokens.push(encoded));
        Ok(tokens)
    }
}

impl LoadedTeacher {
    /// The features of its towers, in the directory and dtype of `cache`; `None`: in memory.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when the cache cannot be opened.
    pub fn features(
        &self,
        compute: &Compute,
        workers: usize,
        cache: Option<(&Path, CacheDtype)>,
    ) -> Result<(ImageFeatures, TextFeatures), TrainError> {
        let tower = self.model.image_tower.clone();
        let images = ImageFeatures::new(tower, Arc::clone(&self.processor), compute.clone(), workers);
        let texts = TextFeatures::new(self.model.text_tower.clone(), compute.clone());
        let Some((dir, dtype)) = cache else { return Ok((images, texts.in_memory())) };
        let [image, text] = self.fingerprints.of_towers();
        Ok((images.with_cache_dir(dir, dtype, image)?, texts.with_cache_dir(dir, dtype, text)?))
    }
}
