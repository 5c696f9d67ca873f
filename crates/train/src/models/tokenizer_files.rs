//! The files that a tokenizer may consist of.

/// Files of a tokenizer that this program reads, in both of the forms that transformers writes: one `tokenizer.json`,
/// or the vocabulary files of the older "slow" tokenizers.
pub(crate) const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
];
