//! The tokens of a data set's captions: from a table where they do not change, else computed anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::random::{SLOT_TEXT_STREAM, WORD_STREAM, mix};
use crate::text::lazy_tokens::LazyTokens;
use crate::text::same_tokens::SameTokens;
use crate::text::token_table::TokenTable;
use crate::text::tokenizer::{Encoded, Tokenizer};
use crate::text::word_dropout::drop_words;

/// Largest number of captions that are tokenised up front: half a second at 30 microseconds each.
const MAX_UP_FRONT: usize = 1 << 14;

/// Where a loader gets the tokens of captions.
#[derive(Clone, Debug)]
pub enum Tokens {
    /// A table that was tokenised up front.
    Table(Arc<TokenTable>),
    /// A table that loader threads fill as they come across captions.
    Growing(Arc<GrowingTokens>),
    /// A tokenizer to use as batches are made, of texts that are drawn anew in each epoch.
    Drawn(Arc<DrawnTokens>),
    /// No tokens: the captions have features.
    Absent,
}

/// A tokenizer, and the tokens that it returned so far.
#[derive(Debug)]
pub struct GrowingTokens {
    tokenizer: Arc<Tokenizer>,
    table: LazyTokens,
    /// Number of captions, which the table may not have room for.
    num_captions: usize,
}

/// A tokenizer for texts that are drawn, and how many of them were longer than its limit so far.
#[derive(Debug)]
pub struct DrawnTokens {
    tokenizer: Arc<Tokenizer>,
    /// The probability of word dropout, from 0 (none) to less than 1.
    word_dropout: f64,
    seen: AtomicUsize,
    cut: AtomicUsize,
}

/// How many captions are longer than the limit on tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutCaptions {
    /// Captions that were tokenised so far; texts that were drawn for them, if these change in each epoch.
    pub seen: usize,
    /// Those of them that were cut.
    pub cut: usize,
    /// All captions; `None` if their texts are drawn anew in each epoch.
    pub all: Option<usize>,
}

impl Tokens {
    /// Tokenises the captions of `dataset` now on `workers` threads if there are at most 16,384. A larger table fills
    /// while captions are loaded, up to 128 MiB. There is no table if templates or word dropout (`word_dropout` is the
    /// probability of each word) change the captions in each epoch.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] for the first caption that cannot be tokenised.
    pub fn prepare(
        tokenizer: Arc<Tokenizer>,
        dataset: &Dataset,
        word_dropout: f64,
        workers: usize,
    ) -> Result<Self, DataError> {
        if dataset.text_feature_width().is_some() {
            return Ok(Self::Absent);
        }
        if word_dropout > 0.0 || dataset.has_templates() {
            let (seen, cut) = (AtomicUsize::new(0), AtomicUsize::new(0));
            return Ok(Self::Drawn(Arc::new(DrawnTokens { tokenizer, word_dropout, seen, cut })));
        }
        if dataset.num_captions() > MAX_UP_FRONT {
            return Ok(Self::growing(tokenizer, dataset));
        }
        let texts: Vec<&str> = dataset.captions().map(|caption| caption.text).collect();
        Ok(Self::Table(Arc::new(TokenTable::build(&tokenizer, &texts, workers)?)))
    }

    /// A table that fills while captions are loaded.
    #[must_use]
    pub fn growing(tokenizer: Arc<Tokenizer>, dataset: &Dataset) -> Self {
        let num_captions = dataset.num_captions();
        Self::Growing(Arc::new(GrowingTokens { tokenizer, table: LazyTokens::new(num_captions), num_captions }))
    }

    /// How many captions were cut so far; `None` if there are no tokens.
    #[must_use]
    pub fn cut_captions(&self) -> Option<CutCaptions> {
        match self {
            Self::Table(table) => Some(CutCaptions { seen: table.len(), cut: table.num_cut(), all: Some(table.len()) }),
            Self::Growing(growing) => {
                let (seen, cut) = growing.table.counts();
                Some(CutCaptions { seen, cut, all: Some(growing.num_captions) })
            }
            Self::Drawn(drawn) => {
                // `cut` first: it is never more than `seen`.
                let cut = drawn.cut.load(Ordering::Acquire);
                Some(CutCaptions { seen: drawn.seen.load(Ordering::Acquire), cut, all: None })
            }
            Self::Absent => None,
        }
    }

    /// Captions of `dataset` with the tokens of another one; `None` if there are none, or not all are tokenised.
    #[must_use]
    pub fn same_tokens(&self, dataset: &Dataset) -> Option<SameTokens> {
        let Self::Table(table) = self else { return None };
        let captions = dataset.captions().enumerate();
        SameTokens::among(captions.map(|(number, caption)| (number, caption.text, table.get(number).0)))
    }

    /// As [`Tokens::encode`], for the caption in slot `slot` of a sample with several. A caption that repeats in a
    /// later slot has another prompt and drops other words.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if it cannot be tokenised.
    pub fn encode_slot(
        &self,
        dataset: &Dataset,
        index: usize,
        seed: u64,
        epoch: u64,
        slot: usize,
    ) -> Result<Encoded, DataError> {
        let seed = match slot {
            0 => seed,
            later => mix(seed, &[SLOT_TEXT_STREAM, later as u64 - 1]),
        };
        self.encode(dataset, index, seed, epoch)
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
            Self::Growing(growing) => {
                growing.table.get(index, || growing.tokenizer.encode(dataset.caption(index).text))
            }
            Self::Absent => Ok(Encoded::default()),
            Self::Drawn(drawn) => {
                let key = mix(seed, &[WORD_STREAM, epoch, index as u64]);
                let text = dataset.text(index, seed, epoch);
                let encoded = drawn.tokenizer.encode(&drop_words(&text, drawn.word_dropout, key))?;
                drawn.seen.fetch_add(1, Ordering::Release);
                drawn.cut.fetch_add(usize::from(encoded.cut), Ordering::Release);
                Ok(encoded)
            }
        }
    }
}
