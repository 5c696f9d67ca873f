//! Pooled outputs of a locked text tower, each computed once: taken from the store where it has them, by their tokens.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use dualenc_data::{ContentHash, TokenBatch};
use dualenc_model::{Dropout, TextTower, TokenSequences, parameters};

use crate::config::CacheDtype;
use crate::device::{Compute, cast};
use crate::error::TrainError;
use crate::features::key::{Counts, form_of, tower_key};
use crate::features::parallel_forward::forward_chunks;
use crate::features::store::FeatureStore;
use crate::features::store_index::Row;

/// Tokens of one pass through the tower, about as many as 16 images of 65 tokens have.
const CHUNK_TOKENS: usize = 1024;

/// Outputs of a locked text tower.
#[derive(Clone)]
pub struct TextFeatures {
    tower: Arc<TextTower>,
    compute: Compute,
    /// `None`: each is computed as often as it is asked for.
    store: Option<Arc<FeatureStore>>,
}

impl TextFeatures {
    /// Features of `tower`, which must be outside of the gradient graph; nothing is kept.
    pub fn new(tower: TextTower, compute: Compute) -> Self {
        let tower = Arc::new(cast(tower, compute.locked_precision));
        Self { tower, compute, store: None }
    }

    /// The same, kept in `dir` from run to run under the `fingerprint` of the tower's parameters.
    ///
    /// # Errors
    /// When the cache cannot be read or written.
    pub fn kept_in(self, dir: &Path, dtype: CacheDtype, fingerprint: &str) -> Result<Self, TrainError> {
        let tower = self.tower.as_ref();
        let key =
            tower_key(fingerprint, &form_of(&format!("{:?} {:?}", tower.config(), tower.pooling()), &self.compute));
        let store = Arc::new(FeatureStore::open(dir, &key.finalize(), tower.pooled_width(), dtype)?);
        Ok(Self { store: Some(store), ..self })
    }

    /// Bytes of the store's values and where they are, if it has files.
    pub fn size(&self) -> Option<(u64, &Path)> {
        self.store.as_ref()?.size()
    }

    /// Pooled outputs `[captions, width]`; those that were not kept are computed, and kept if any are.
    ///
    /// # Errors
    /// When the tower refuses the tokens, or the store cannot be written.
    pub fn of_tokens(&self, tokens: &TokenBatch) -> Result<Tensor<2>, TrainError> {
        let width = self.tower.pooled_width();
        let all = || (0..tokens.ids.len()).collect::<Vec<usize>>();
        let values = match &self.store {
            None => self.forward(tokens, all())?,
            Some(store) => {
                let (rows, _) = self.rows(store, tokens)?;
                let mut values = vec![0.0; rows.len() * width];
                if !store.read(&rows, &mut values).is_empty() {
                    // Cut by someone: what was lost is computed and written again.
                    let (rows, _) = self.rows(store, tokens)?;
                    if !store.read(&rows, &mut values).is_empty() {
                        return Err(TrainError::Usage(
                            "the feature cache was cut while it was read; run again".to_owned(),
                        ));
                    }
                }
                values
            }
        };
        let shape = [values.len() / width.max(1), width];
        Ok(Tensor::from_data(TensorData::new(values, shape), &self.compute.device))
    }

    /// Makes sure that every caption has its feature in the store.
    ///
    /// # Errors
    /// As [`TextFeatures::of_tokens`].
    pub fn fill(&self, tokens: &TokenBatch) -> Result<Counts, TrainError> {
        let Some(store) = &self.store else { return Ok(Counts::default()) };
        let (rows, computed) = self.rows(store, tokens)?;
        Ok(Counts { computed, kept: rows.len() - computed })
    }

    /// The row of each caption, and how many were computed for it: equal captions are computed once.
    fn rows(&self, store: &FeatureStore, tokens: &TokenBatch) -> Result<(Vec<Row>, usize), TrainError> {
        let contents: Vec<ContentHash> =
            tokens.ids.iter().zip(&tokens.type_ids).map(|(ids, types)| content(ids, types)).collect();
        let find = || contents.iter().map(|content| store.find(content)).collect::<Vec<Option<Row>>>();
        let found = find();
        let mut asked = HashSet::new();
        let lacking: Vec<usize> = (0..contents.len())
            .filter(|&caption| found[caption].is_none() && asked.insert(contents[caption]))
            .collect();
        if lacking.is_empty() {
            return Ok((found.into_iter().flatten().collect(), 0));
        }
        let new: Vec<ContentHash> = lacking.iter().map(|&caption| contents[caption]).collect();
        store.insert(&new, &self.forward(tokens, lacking)?)?;
        Ok((find().into_iter().flatten().collect(), new.len()))
    }

    /// `[captions, width]`, flat, of some captions of `tokens`.
    fn forward(&self, tokens: &TokenBatch, captions: Vec<usize>) -> Result<Vec<f32>, TrainError> {
        let width = self.tower.pooled_width();
        let length = |caption: &usize| tokens.ids[*caption].len();
        // Only captions of one length go together: beside a longer one the sums of attention would round otherwise.
        let mut order: Vec<usize> = (0..captions.len()).collect();
        order.sort_by_key(|&place| std::cmp::Reverse(length(&captions[place])));
        let mut chunks = Vec::new();
        for run in order.chunk_by(|&a, &b| length(&captions[a]) == length(&captions[b])) {
            let even = run.len().div_ceil(self.compute.threads.max(1));
            let size = even.clamp(1, (CHUNK_TOKENS / length(&captions[run[0]]).max(1)).max(1));
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
            // A product with one row is another kernel, which rounds otherwise.
            let copies = if places.len() == 1 { 2 } else { 1 };
            let sequences: TokenSequences = places.iter().cycle().take(places.len() * copies).map(sequence).collect();
            let mut features = parameters::host(self.tower.forward(&sequences, &Dropout::off())?.pooled)?.values;
            features.truncate(places.len() * width);
            Ok(features)
        })?;
        let mut values = vec![0.0; sorted.len()];
        for (row, place) in sorted.chunks_exact(width.max(1)).zip(order) {
            values[place * width..][..width].copy_from_slice(row);
        }
        Ok(values)
    }
}

/// The hash of a caption's tokens.
fn content(ids: &[u32], types: &[u32]) -> ContentHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(ids.len() as u64).to_le_bytes());
    for token in ids.iter().chain(types) {
        hasher.update(&token.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}
