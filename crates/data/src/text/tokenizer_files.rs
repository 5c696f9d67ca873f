//! The files of a tokenizer directory, and the errors about them.

use std::path::Path;

use serde_json::Value;

use crate::error::DataError;
use crate::foreign_file::{json_problem, recognise, without_bom};

/// Names of the files that a tokenizer directory may have. This crate reads all but the last, which only transformers
/// reads: an export copies all of them, a download leaves out the last.
pub const TOKENIZER_FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
];

/// What to do when a directory has no usable `tokenizer.json`.
pub(crate) const CONVERT: &str =
    "convert it once with `AutoTokenizer.from_pretrained(dir).save_pretrained(dir)` of transformers";

/// The error that `path` is not a usable tokenizer file.
pub(crate) fn malformed(path: &Path, reason: &str) -> DataError {
    DataError::Tokenizer {
        path: path.to_owned(),
        reason: format!("not usable: {reason}; expected a file written by the tokenizers library; {CONVERT}"),
    }
}

/// The error that the file `path` is something else, if its `bytes` show it.
pub(crate) fn refuse_foreign(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    recognise(bytes).map_or(Ok(()), |reason| Err(DataError::Tokenizer { path: path.to_owned(), reason }))
}

/// The JSON value in a file, or an empty object if the file does not exist.
pub(crate) fn read_json(path: &Path) -> Result<Value, DataError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Object(serde_json::Map::new())),
        Err(error) => return Err(DataError::Read { path: path.to_owned(), source: error }),
    };
    serde_json::from_slice(without_bom(&bytes))
        .map_err(|error| DataError::Malformed { path: path.to_owned(), reason: json_problem(&bytes, &error) })
}
