//! Features of a locked text tower, looked up by a caption's tokens, or computed and stored.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use dualenc_data::{ContentHash, Dataset, TokenBatch};
use dualenc_kernels::upload;
use dualenc_model::{Dropout, TextTower, TokenSequences, Tower, parameters};

use crate::config::CacheDtype;
use crate::device::{Compute, cast};
use crate::error::TrainError;
use crate::features::absent::caption_rows;
use crate::features::cache_counts::CacheCounts;
use crate::features::finite::check_outputs;
use crate::features::key::tower_key;
use crate::features::parallel_forward::forward_chunks;
use crate::features::store::FeatureStore;
use crate::features::store::index::{RECORD_BYTES, Row};

/// Tokens of one pass through the tower: about as many as in 16 images of 65 tokens.
const CHUNK_TOKENS: usize = 1024;

/// The same on a GPU, where a small pass takes about as long as a large one.
const DEVICE_CHUNK_TOKENS: usize = 16_384;

/// End of the form of a tower with stored hidden states.
const STATES: &str = " states of all tokens";

/// Token ids that an error message names.
const NAMED_TOKENS: usize = 16;

/// Pooled outputs of a locked text tower, or its hidden states.
#[derive(Clone)]
pub struct TextFeatures {
    tower: Arc<TextTower>,
    compute: Compute,
    /// Values of a feature.
    width: usize,
    /// Whether a feature is the hidden states of all tokens, with zeros up to `width`.
    is_states: bool,
    /// `None`: each feature is computed whenever it is needed.
    store: Option<Arc<FeatureStore>>,
}

impl TextFeatures {
    /// Features of `tower`, which must be outside of the gradient graph. None are stored; those of an absent tower stay
    /// in the files of the data.
    pub fn new(tower: TextTower, compute: Compute) -> Self {
        let width = tower.pooled_width();
        let tower = if compute.rounds_factors() { tower.packed() } else { cast(tower, compute.locked_precision) };
        Self { tower: Arc::new(tower), compute, width, is_states: false, store: None }
    }

    /// The hidden states of captions of up to `tokens` tokens, in the place of pooled outputs. Nothing is stored.
    pub(crate) fn of_states(&self, tokens: usize) -> Self {
        let width = tokens * self.tower.config().encoder.width;
        Self { width, is_states: true, store: None, ..self.clone() }
    }

    /// Stores features in memory: each is computed once.
    #[must_use]
    pub(crate) fn in_memory(self) -> Self {
        let store = Arc::new(FeatureStore::in_memory(self.width));
        Self { store: Some(store), ..self }
    }

    /// Stores features in `dir`, where later runs find them. `fingerprint`: of the tower's parameters.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when the cache cannot be opened.
    pub fn with_cache_dir(self, dir: &Path, dtype: CacheDtype, fingerprint: &str) -> Result<Self, TrainError> {
        let tower = self.tower.as_ref();
        if tower.is_absent() {
            return Ok(self);
        }
        let form = tower.form() + if self.is_states { STATES } else { "" };
        let key = tower_key(fingerprint, &form, self.compute.locked_arithmetic());
        let store = Arc::new(FeatureStore::open(dir, &key.finalize(), self.width, dtype)?);
        Ok(Self { store: Some(store), ..self })
    }

    /// Size of the file of values in bytes, and its path; `None` without a cache on disk.
    pub fn size(&self) -> Option<(u64, &Path)> {
        self.store.as_ref()?.size()
    }

    /// Bytes of a feature on disk: in the file of values, and its record; `None` without a cache on disk.
    pub(crate) fn row_bytes(&self) -> Option<[usize; 2]> {
        self.store.as_ref().map(|store| [store.row_bytes(), RECORD_BYTES])
    }

    /// Pooled outputs for captions of `dataset`, shape `[captions, width]`: of `tokens`, or the rows that the data set
    /// has in their place.
    ///
    /// # Errors
    /// As for [`TextFeatures::of_tokens`]; [`TrainError::Data`] when a file of features cannot be read.
    pub fn of_captions(
        &self,
        dataset: &Dataset,
        captions: &[usize],
        tokens: &TokenBatch,
    ) -> Result<Tensor<2>, TrainError> {
        if !self.tower.is_absent() {
            return self.of_tokens(tokens);
        }
        let width = self.width;
        let values = caption_rows(dataset, captions, width)?;
        let shape = [values.len() / width.max(1), width];
        Ok(upload(TensorData::new(values, shape), &self.compute.device))
    }

    /// Pooled outputs, shape `[captions, width]`. Features that are not in the store are computed and added to it.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the tower rejects the tokens; [`TrainError::Write`] when the store cannot be written;
    /// [`TrainError::NotFiniteOutput`] when the tower computes NaN or an infinity.
    pub fn of_tokens(&self, tokens: &TokenBatch) -> Result<Tensor<2>, TrainError> {
        let values = self.values_of(tokens)?;
        let shape = [values.len() / self.width.max(1), self.width];
        Ok(upload(TensorData::new(values, shape), &self.compute.device))
    }

    /// As [`TextFeatures::of_tokens`], flat.
    ///
    /// # Errors
    /// As for [`TextFeatures::of_tokens`].
    pub(crate) fn values_of(&self, tokens: &TokenBatch) -> Result<Vec<f32>, TrainError> {
        let Some(store) = &self.store else { return self.forward(tokens, (0..tokens.ids.len()).collect()) };
        let (rows, _) = self.rows(store, tokens)?;
        let mut values = vec![0.0; rows.len() * self.width];
        if !store.read(&rows, &mut values).is_empty() {
            // Another process truncated the file: lost rows are computed and written again.
            let (rows, _) = self.rows(store, tokens)?;
            if !store.read(&rows, &mut values).is_empty() {
                return Err(store.lost_while_read());
            }
        }
        Ok(values)
    }

    /// Computes the features of captions that are not in the store.
    ///
    /// # Errors
    /// As for [`TextFeatures::of_tokens`].
    pub fn fill(&self, tokens: &TokenBatch) -> Result<CacheCounts, TrainError> {
        let Some(store) = &self.store else { return Ok(CacheCounts::default()) };
        let (rows, computed) = self.rows(store, tokens)?;
        Ok(CacheCounts { computed, kept: rows.len() - computed })
    }

    /// The row of each caption, and how many features were computed. Equal captions are computed once.
    fn rows(&self, store: &FeatureStore, tokens: &TokenBatch) -> Result<(Vec<Row>, usize), TrainError> {
        let (ids, types) = (tokens.ids.len(), tokens.type_ids.len());
        if ids != types {
            return Err(TrainError::Internal(format!("{ids} captions with the token types of {types}")));
        }
        let contents: Vec<ContentHash> =
            tokens.ids.iter().zip(&tokens.type_ids).map(|(ids, types)| content_hash(ids, types)).collect();
        let mut known = HashMap::new();
        let mut missing = Vec::new();
        for (caption, content) in contents.iter().enumerate() {
            known.entry(*content).or_insert_with(|| {
                let row = store.find(content);
                missing.extend(row.is_none().then_some(caption));
                row
            });
        }
        let computed = missing.len();
        if computed > 0 {
            let new: Vec<ContentHash> = missing.iter().map(|&caption| contents[caption]).collect();
            let inserted = store.insert(&new, &self.forward(tokens, missing)?)?;
            known.extend(new.into_iter().zip(inserted.into_iter().map(Some)));
        }
        let rows: Option<Vec<Row>> = contents.iter().map(|content| known.get(content).copied().flatten()).collect();
        let rows = rows.ok_or_else(|| TrainError::Internal("a caption has no row in the feature cache".to_owned()))?;
        Ok((rows, computed))
    }

    /// Features of some captions of `tokens`: shape `[captions, width]`, flat.
    fn forward(&self, tokens: &TokenBatch, captions: Vec<usize>) -> Result<Vec<f32>, TrainError> {
        let width = self.width;
        let length = |caption: &usize| tokens.ids[*caption].len();
        // A chunk holds captions of one length: next to a longer one, the sums of attention would round differently.
        let mut order: Vec<usize> = (0..captions.len()).collect();
        order.sort_by_key(|&place| std::cmp::Reverse(length(&captions[place])));
        let mut chunks = Vec::new();
        for run in order.chunk_by(|&a, &b| length(&captions[a]) == length(&captions[b])) {
            let (even, tokens) = if self.compute.on_host {
                (run.len().div_ceil(self.compute.threads.max(1)), CHUNK_TOKENS)
            } else {
                (run.len(), DEVICE_CHUNK_TOKENS)
            };
            let size = even.clamp(1, (tokens / length(&captions[run[0]]).max(1)).max(1));
            for part in run.chunks(size) {
                let start = chunks.last().map_or(0, |chunk: &std::ops::Range<usize>| chunk.end);
                chunks.push(start..start + part.len());
            }
        }
        let sorted = forward_chunks(&chunks, width, &self.compute, |chunk| {
            let sequence = |&place: &usize| {
                let caption = captions[place];
                (tokens.ids[caption].clone(), tokens.type_ids[caption].clone())
            };
            let places = &order[chunk];
            // A matrix product with one row takes another kernel, which rounds differently.
            let copies = if places.len() == 1 { 2 } else { 1 };
            let sequences: TokenSequences = places.iter().cycle().take(places.len() * copies).map(sequence).collect();
            let output = self.tower.forward(&sequences, &Dropout::off())?;
            let of_chunk = if self.is_states { output.hidden } else { output.pooled };
            let mut features = parameters::host(of_chunk)?.values;
            let of_caption = features.len() / sequences.ids.len();
            features.truncate(places.len() * of_caption);
            if of_caption < width && self.is_states {
                let zeros = vec![0.0; width - of_caption];
                features = features.chunks_exact(of_caption).flat_map(|states| [states, &zeros].concat()).collect();
            }
            Ok(features)
        })?;
        let mut values = vec![0.0; sorted.len()];
        for (row, &place) in order.iter().enumerate() {
            values[place * width..][..width].copy_from_slice(&sorted[row * width..][..width]);
        }
        let input = |place: usize| {
            let ids = &tokens.ids[captions[place]];
            let named = &ids[..ids.len().min(NAMED_TOKENS)];
            format!("a text of {} tokens, which starts with the ids {named:?}", ids.len())
        };
        check_outputs(Tower::Text, self.compute.locked_precision, &values, width, input)?;
        Ok(values)
    }
}

/// The hash of a caption's tokens.
pub(crate) fn content_hash(ids: &[u32], types: &[u32]) -> ContentHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(ids.len() as u64).to_le_bytes());
    for token in ids.iter().chain(types) {
        hasher.update(&token.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}
