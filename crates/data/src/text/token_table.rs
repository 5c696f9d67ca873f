//! Token sequences of captions: all at once when they fit in memory, and padded to the longest of a batch.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::loader::epoch_order::mix;
use crate::text::tokenizer::{Encoded, Tokenizer};
use crate::text::word_dropout::{WORDS, drop_words};

/// Up to this many captions are tokenised once up front; at 16 tokens each the table then takes 256 MiB. Beyond, they
/// are tokenised as batches are made.
const MAX_TABLE_CAPTIONS: usize = 4 << 20;

/// So many distinct texts are remembered while a table is made, in 4 MiB a thread: what comes often comes early.
const MAX_KNOWN_TEXTS: usize = 1 << 16;

/// Un-padded token sequences of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenBatch {
    /// Token ids, one sequence a caption.
    pub ids: Vec<Vec<u32>>,
    /// Token type ids, of the same lengths.
    pub type_ids: Vec<Vec<u32>>,
}

/// Token sequences of equal length, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaddedTokens {
    /// `[batch, seq]`, flat.
    pub ids: Vec<u32>,
    /// `[batch, seq]`, flat; 0 where padded.
    pub type_ids: Vec<u32>,
    /// `[batch, seq]`, flat; `true` on real tokens.
    pub mask: Vec<bool>,
    /// Rows.
    pub batch: usize,
    /// Length of the longest sequence.
    pub seq: usize,
}

impl TokenBatch {
    /// Appends one sequence.
    pub fn push(&mut self, encoded: Encoded) {
        self.ids.push(encoded.ids);
        self.type_ids.push(encoded.type_ids);
    }

    /// Pads on the right to the longest sequence of the batch.
    #[must_use]
    pub fn padded(&self, pad_id: u32) -> PaddedTokens {
        let batch = self.ids.len();
        let seq = self.ids.iter().map(Vec::len).max().unwrap_or(0);
        let mut padded = PaddedTokens {
            ids: vec![pad_id; batch * seq],
            type_ids: vec![0; batch * seq],
            mask: vec![false; batch * seq],
            batch,
            seq,
        };
        for (row, (ids, type_ids)) in self.ids.iter().zip(&self.type_ids).enumerate() {
            let at = row * seq..row * seq + ids.len();
            padded.ids[at.clone()].copy_from_slice(ids);
            padded.type_ids[at.clone()].copy_from_slice(type_ids);
            padded.mask[at].fill(true);
        }
        padded
    }
}

/// The token sequences of all captions of a data set.
#[derive(Clone, Debug, Default)]
pub struct TokenTable {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    ends: Vec<usize>,
    num_cut: usize,
}

impl TokenTable {
    /// Tokenises `texts` on `workers` threads.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] for the first text that cannot be tokenised.
    pub fn build<T: AsRef<str> + Sync>(tokenizer: &Tokenizer, texts: &[T], workers: usize) -> Result<Self, DataError> {
        let share = texts.len().div_ceil(workers.max(1)).max(1);
        let parts: Vec<Result<Self, DataError>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                texts.chunks(share).map(|chunk| scope.spawn(|| Self::of_chunk(tokenizer, chunk))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let mut table = Self::default();
        for part in parts {
            let part = part?;
            let base = table.ids.len();
            table.ids.extend(part.ids);
            table.type_ids.extend(part.type_ids);
            table.ends.extend(part.ends.iter().map(|end| base + end));
            table.num_cut += part.num_cut;
        }
        Ok(table)
    }

    fn of_chunk<T: AsRef<str>>(tokenizer: &Tokenizer, texts: &[T]) -> Result<Self, DataError> {
        let mut table = Self::default();
        // Where the tokens of a text stand, and whether they were cut: keywords come thousands of times.
        let mut known: HashMap<&str, (Range<usize>, bool)> = HashMap::new();
        for text in texts {
            let start = table.ids.len();
            let cut = match known.get(text.as_ref()) {
                Some((at, cut)) => {
                    table.ids.extend_from_within(at.clone());
                    table.type_ids.extend_from_within(at.clone());
                    *cut
                }
                None => {
                    let encoded = tokenizer.encode(text.as_ref())?;
                    table.ids.extend(&encoded.ids);
                    table.type_ids.extend(&encoded.type_ids);
                    if known.len() < MAX_KNOWN_TEXTS {
                        known.insert(text.as_ref(), (start..table.ids.len(), encoded.cut));
                    }
                    encoded.cut
                }
            };
            table.ends.push(table.ids.len());
            table.num_cut += usize::from(cut);
        }
        Ok(table)
    }

    /// The sequence of text `index`.
    ///
    /// # Panics
    /// If `index` is out of range.
    #[must_use]
    pub fn get(&self, index: usize) -> (&[u32], &[u32]) {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        let at = start..self.ends[index];
        (&self.ids[at.clone()], &self.type_ids[at])
    }

    /// Number of texts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many texts were cut to the tokenizer's limit.
    #[must_use]
    pub fn num_cut(&self) -> usize {
        self.num_cut
    }

    /// Length of the longest sequence.
    #[must_use]
    pub fn max_len(&self) -> usize {
        (0..self.len()).map(|index| self.get(index).0.len()).max().unwrap_or(0)
    }
}

/// Where a loader takes its token sequences from.
#[derive(Clone, Debug)]
pub enum Tokens {
    /// Tokenised up front.
    Table(Arc<TokenTable>),
    /// Tokenised as batches are made, with this probability for each word of a caption to be left out, from 0 (none) to less
    /// than 1.
    Tokenizer(Arc<Tokenizer>, f64),
}

impl Tokens {
    /// Tokenises all captions of `dataset` now, unless there are millions of them or `word_dropout`, a probability, makes others of
    /// them in each epoch.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] for the first caption that cannot be tokenised.
    pub fn prepare(
        tokenizer: Arc<Tokenizer>,
        dataset: &Dataset,
        word_dropout: f64,
        workers: usize,
    ) -> Result<Self, DataError> {
        if word_dropout > 0.0 || dataset.captions.len() > MAX_TABLE_CAPTIONS {
            return Ok(Self::Tokenizer(tokenizer, word_dropout));
        }
        let texts: Vec<&str> = dataset.captions.iter().map(|caption| caption.text.as_str()).collect();
        Ok(Self::Table(Arc::new(TokenTable::build(&tokenizer, &texts, workers)?)))
    }

    /// The sequence of caption `index` in `epoch`: a pure function of (seed, epoch, index).
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if it cannot be tokenised.
    pub fn encode(&self, dataset: &Dataset, index: usize, seed: u64, epoch: u64) -> Result<Encoded, DataError> {
        match self {
            Self::Table(table) => {
                let (ids, type_ids) = table.get(index);
                Ok(Encoded { ids: ids.to_vec(), type_ids: type_ids.to_vec(), cut: false })
            }
            Self::Tokenizer(tokenizer, word_dropout) => {
                let key = mix(seed, &[WORDS, epoch, index as u64]);
                tokenizer.encode(&drop_words(&dataset.captions[index].text, *word_dropout, key))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_to_the_longest_of_the_batch() {
        let mut batch = TokenBatch::default();
        batch.push(Encoded { ids: vec![5], type_ids: vec![0], cut: false });
        batch.push(Encoded { ids: vec![6, 7, 8], type_ids: vec![0, 1, 1], cut: false });
        let padded = batch.padded(9);
        assert_eq!((padded.batch, padded.seq), (2, 3));
        assert_eq!(padded.ids, [5, 9, 9, 6, 7, 8]);
        assert_eq!(padded.type_ids, [0, 0, 0, 0, 1, 1]);
        assert_eq!(padded.mask, [true, false, false, true, true, true]);
        assert_eq!(TokenBatch::default().padded(0).seq, 0);
    }
}
