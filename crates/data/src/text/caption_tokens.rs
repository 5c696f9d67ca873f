//! The tokens of a data set's captions: from a table when they fit in memory, else computed on the fly.

use std::sync::Arc;

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::random::{WORD_STREAM, mix};
use crate::text::token_table::TokenTable;
use crate::text::tokenizer::{Encoded, Tokenizer};
use crate::text::word_dropout::drop_words;

/// Largest number of captions that are tokenised up front: at 16 tokens each, the table takes 256 MiB.
const MAX_TABLE_CAPTIONS: usize = 4 << 20;

/// Where a loader gets the tokens of captions.
#[derive(Clone, Debug)]
pub enum Tokens {
    /// A table that was tokenised up front.
    Table(Arc<TokenTable>),
    /// A tokenizer to use as batches are made, and the probability of word dropout, from 0 (none) to less than 1.
    Tokenizer(Arc<Tokenizer>, f64),
}

impl Tokens {
    /// Tokenises all captions of `dataset` now on `workers` threads, unless there are more than 4 million, or templates or
    /// word dropout (`word_dropout` is the probability of each word) change them in each epoch.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] for the first caption that cannot be tokenised.
    pub fn prepare(
        tokenizer: Arc<Tokenizer>,
        dataset: &Dataset,
        word_dropout: f64,
        workers: usize,
    ) -> Result<Self, DataError> {
        if word_dropout > 0.0 || dataset.has_templates() || dataset.num_captions() > MAX_TABLE_CAPTIONS {
            return Ok(Self::Tokenizer(tokenizer, word_dropout));
        }
        let texts: Vec<&str> = dataset.captions().map(|caption| caption.text).collect();
        Ok(Self::Table(Arc::new(TokenTable::build(&tokenizer, &texts, workers)?)))
    }

    /// The tokens of caption `index` in `epoch`: a pure function of (seed, epoch, index).
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
                let key = mix(seed, &[WORD_STREAM, epoch, index as u64]);
                tokenizer.encode(&drop_words(&dataset.text(index, seed, epoch), *word_dropout, key))
            }
        }
    }
}
