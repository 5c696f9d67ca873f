//! From captions to token ids. It knows no model and draws no batches.
//!
//! - `tokenizer`: [`tokenizer::Tokenizer`], a Hugging Face tokenizer with a fixed length limit
//! - `tokenizer_files`: reads the JSON files of a tokenizer directory
//! - `tokenizer_settings`: what those files say beside the vocabulary: class, special tokens, normalisation
//! - `tokenizer_class`: the classes of transformers that build a tokenizer anew
//! - `legacy_vocab`: builds a tokenizer from `vocab.txt`, or from `vocab.json` and `merges.txt`
//! - `token_table`: the token sequences of many texts in one allocation
//! - `token_batch`: the token sequences of one batch, and padding
//! - `lazy_tokens`: the token sequences of captions, filled in as they are asked for
//! - `caption_tokens`: tokens by caption, from a table or computed on the fly
//! - `same_tokens`: texts that a tokenizer does not distinguish
//! - `word_dropout`: random word dropout for training captions

pub(crate) mod caption_tokens;
mod lazy_tokens;
mod legacy_vocab;
pub(crate) mod same_tokens;
#[cfg(test)]
mod tests;
pub(crate) mod token_batch;
pub(crate) mod token_table;
pub(crate) mod tokenizer;
mod tokenizer_class;
pub(crate) mod tokenizer_files;
pub(crate) mod tokenizer_settings;
mod word_dropout;
