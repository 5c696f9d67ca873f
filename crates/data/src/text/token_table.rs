//! The token sequences of many texts, tokenised once and stored in one allocation.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::DataError;
use crate::text::tokenizer::Tokenizer;

/// Number of distinct texts that each thread remembers while it builds a table: 4 MiB. Frequent texts come early.
const MAX_KNOWN_TEXTS: usize = 1 << 16;

/// The token sequences of many texts, such as all captions of a data set.
#[derive(Clone, Debug, Default)]
pub struct TokenTable {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    /// The tokens of text `i` are `ids[ends[i - 1]..ends[i]]`.
    ends: Vec<usize>,
    /// Of each text, whether it was cut.
    cut: Vec<bool>,
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
                texts.chunks(share).map(|chunk| scope.spawn(|| Self::build_chunk(tokenizer, chunk))).collect();
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
            table.cut.extend(part.cut);
        }
        Ok(table)
    }

    fn build_chunk<T: AsRef<str>>(tokenizer: &Tokenizer, texts: &[T]) -> Result<Self, DataError> {
        let mut table = Self::default();
        // Keywords and class names repeat thousands of times. Per text: where its tokens are, and whether they were
        // cut.
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
            table.cut.push(cut);
        }
        Ok(table)
    }

    /// Token ids and token type ids of text `index`.
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

    /// Whether the table has no texts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Number of texts that were cut to the tokenizer's limit.
    #[must_use]
    pub fn num_cut(&self) -> usize {
        self.cut.iter().filter(|cut| **cut).count()
    }

    /// Whether text `index` was cut to the tokenizer's limit.
    ///
    /// # Panics
    /// If `index` is out of range.
    #[must_use]
    pub fn is_cut(&self, index: usize) -> bool {
        self.cut[index]
    }

    /// Length of the longest sequence in tokens.
    #[must_use]
    pub fn max_len(&self) -> usize {
        (0..self.len()).map(|index| self.get(index).0.len()).max().unwrap_or(0)
    }
}
