//! The hidden states of captions after the locked layers of a text tower, looked up by a caption's tokens.
//!
//! Rows of a store have one width, and captions have many lengths, so there is a store for each number of tokens. Long
//! captions share one for eight lengths, filled up with zeros: every store holds two files open.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use dualenc_data::TokenBatch;
use dualenc_kernels::upload;
use dualenc_model::TextTower;

use crate::config::CacheDtype;
use crate::device::Compute;
use crate::error::TrainError;
use crate::features::cache_counts::CacheCounts;
use crate::features::texts::TextFeatures;

/// Largest length of a caption, in tokens, that has a store of its own.
const EXACT_TOKENS: usize = 32;

/// Lengths that share a store beyond that.
const TOKENS_PER_STORE: usize = 8;

/// Hidden states of a text tower that ends with its locked layers.
#[derive(Clone)]
pub(crate) struct TextStates {
    /// Without a store.
    tower: TextFeatures,
    /// Values of a token.
    width: usize,
    compute: Compute,
    dir: PathBuf,
    dtype: CacheDtype,
    fingerprint: Arc<str>,
    /// By the number of tokens of their rows.
    stores: Arc<Mutex<BTreeMap<usize, TextFeatures>>>,
}

/// The number of tokens that a row for a caption of `tokens` tokens has.
pub(crate) fn row_tokens(tokens: usize) -> usize {
    if tokens <= EXACT_TOKENS { tokens } else { tokens.next_multiple_of(TOKENS_PER_STORE) }
}

impl TextStates {
    /// The states of `tower`, which must be outside of the gradient graph, in the cache of `dir`. `fingerprint`: of the
    /// tower's parameters.
    pub fn new(tower: TextTower, compute: &Compute, (dir, dtype): (&Path, CacheDtype), fingerprint: &str) -> Self {
        Self {
            width: tower.config().encoder.width,
            tower: TextFeatures::new(tower, compute.clone()),
            compute: compute.clone(),
            dir: dir.to_owned(),
            dtype,
            fingerprint: fingerprint.into(),
            stores: Arc::default(),
        }
    }

    /// The states of captions, token after token: shape `[tokens, width]`. States that are not cached are computed and
    /// added to the cache.
    ///
    /// # Errors
    /// As for [`TextFeatures::of_tokens`]; [`TrainError::Read`] or [`TrainError::Write`] when a store cannot be opened.
    pub fn of_tokens(&self, tokens: &TokenBatch) -> Result<Tensor<2>, TrainError> {
        let mut starts = Vec::with_capacity(tokens.ids.len());
        let mut rows = 0;
        for ids in &tokens.ids {
            starts.push(rows * self.width);
            rows += ids.len();
        }
        let mut states = vec![0.0; rows * self.width];
        for (row_tokens, captions) in by_row(tokens) {
            let stored = self.store(row_tokens)?.values_of(&some(tokens, &captions))?;
            for (caption, row) in captions.into_iter().zip(stored.chunks_exact(row_tokens * self.width)) {
                let values = tokens.ids[caption].len() * self.width;
                states[starts[caption]..][..values].copy_from_slice(&row[..values]);
            }
        }
        Ok(upload(TensorData::new(states, [rows, self.width]), &self.compute.device))
    }

    /// Computes the states of captions that are not cached.
    ///
    /// # Errors
    /// As for [`TextStates::of_tokens`].
    pub fn fill(&self, tokens: &TokenBatch) -> Result<CacheCounts, TrainError> {
        let mut counts = CacheCounts::default();
        for (row_tokens, captions) in by_row(tokens) {
            counts += self.store(row_tokens)?.fill(&some(tokens, &captions))?;
        }
        Ok(counts)
    }

    /// Size of the files of values that are open, in bytes, and their directory.
    pub fn size(&self) -> (u64, &Path) {
        let stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        (stores.values().filter_map(TextFeatures::size).map(|(bytes, _)| bytes).sum(), &self.dir)
    }

    /// How many rows of this many tokens the file of them in `dir` has, which is named like that of this cache.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when the cache cannot be opened.
    pub fn rows_in(&self, dir: &Path, row_tokens: usize) -> Result<u64, TrainError> {
        let store = self.store(row_tokens)?;
        let name = store.size().and_then(|(_, path)| path.file_name().map(|name| dir.join(name)));
        let bytes = name.and_then(|path| fs::metadata(path).ok()).map_or(0, |file| file.len());
        Ok(store.row_bytes().map_or(0, |[values, _]| bytes / values.max(1) as u64))
    }

    /// The store of rows of this many tokens.
    fn store(&self, row_tokens: usize) -> Result<TextFeatures, TrainError> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&row_tokens) {
            return Ok(store.clone());
        }
        let states = self.tower.of_states(row_tokens);
        let store = states.with_cache_dir(&self.dir, self.dtype, &self.fingerprint)?;
        stores.insert(row_tokens, store.clone());
        Ok(store)
    }
}

/// The captions of a batch, by the number of tokens of their rows.
fn by_row(tokens: &TokenBatch) -> BTreeMap<usize, Vec<usize>> {
    let mut captions = BTreeMap::<usize, Vec<usize>>::new();
    for (caption, ids) in tokens.ids.iter().enumerate() {
        captions.entry(row_tokens(ids.len())).or_default().push(caption);
    }
    captions
}

/// Some captions of a batch.
fn some(tokens: &TokenBatch, captions: &[usize]) -> TokenBatch {
    let pick = |of: &[Vec<u32>]| captions.iter().filter_map(|&caption| of.get(caption).cloned()).collect();
    TokenBatch { ids: pick(&tokens.ids), type_ids: pick(&tokens.type_ids) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit_their_captions() {
        assert_eq!([1, 2, 31, 32, 33, 40, 41, 512].map(row_tokens), [1, 2, 31, 32, 40, 40, 48, 512]);
        let stores: BTreeMap<usize, ()> = (1..=512).map(|tokens| (row_tokens(tokens), ())).collect();
        // Two open files each, of the 1,024 that most systems allow.
        assert!(stores.len() <= 100, "{}", stores.len());
    }

    #[cfg(feature = "flex")]
    #[test]
    fn long_captions_share_stores() {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/train/bert");
        let compute = Compute::select("cpu", None).unwrap();
        let locked = (dualenc_model::TowerLock::Locked, dualenc_model::TowerOptions::default());
        let (tower, _) = dualenc_model::text_tower_from(&goldens, locked.0, locked.1, &compute.device).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let open = || TextStates::new(tower.ending_after(1), &compute, (dir.path(), CacheDtype::F32), "weights");
        let lengths = [40, 5, 33, 39, 5, 40];
        let ids = |(caption, &length): (u32, &usize)| (0..length as u32).map(|at| (caption * 7 + at) % 30).collect();
        let ids: Vec<Vec<u32>> = (0..).zip(&lengths).map(ids).collect();
        let tokens = TokenBatch { type_ids: ids.iter().map(|ids| vec![0; ids.len()]).collect(), ids };
        let states = open();
        let values =
            |states: &TextStates| dualenc_model::parameters::host(states.of_tokens(&tokens).unwrap()).unwrap().values;
        let found = values(&states);
        let pooled = |caption: usize| {
            let one = some(&tokens, &[caption]);
            let sequences = dualenc_model::TokenSequences::new(one.ids, one.type_ids);
            let output = tower.ending_after(1).forward(&sequences, &dualenc_model::Dropout::off()).unwrap();
            dualenc_model::parameters::host(output.hidden).unwrap().values
        };
        let expected: Vec<f32> = (0..lengths.len()).flat_map(pooled).collect();
        assert_eq!(found, expected);
        assert_eq!([5, 40].map(|row_tokens| states.rows_in(dir.path(), row_tokens).unwrap()), [2, 4]);
        let again = open();
        assert_eq!(again.fill(&tokens).unwrap(), CacheCounts { computed: 0, kept: 6 });
        assert_eq!(values(&again), expected);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
        let other = TextStates::new(tower.ending_after(2), &compute, (dir.path(), CacheDtype::F32), "weights");
        assert_eq!(other.fill(&tokens).unwrap().kept, 0);
    }
}
