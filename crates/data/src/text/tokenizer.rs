//! Captions to token ids, from a Hugging Face `tokenizer.json` or the vocabulary files before it. Padding and truncation
//! built into the file are overridden: texts are cut to `max_tokens`, special tokens kept, and padded only if asked to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::{ModelWrapper, TruncationDirection, TruncationParams};

use crate::error::DataError;
use crate::text::legacy_vocab as vocabulary_files;
use crate::text::tokenizer_settings::Settings;

/// What to do when a directory has no usable `tokenizer.json`.
pub(crate) const CONVERT: &str =
    "convert it once with `AutoTokenizer.from_pretrained(dir).save_pretrained(dir)` of transformers";

/// The tokens of one text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Token type ids, of the same length.
    pub type_ids: Vec<u32>,
    /// Whether the text was longer than the limit.
    pub cut: bool,
}

/// A tokenizer with a fixed limit of tokens a text.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    pad_id: u32,
    vocab_size: usize,
    max_tokens: usize,
    pad_to: Option<usize>,
    fingerprint: [u8; 32],
}

impl Tokenizer {
    /// Reads `tokenizer.json` in `dir`, or builds it from `vocab.txt` (BERT) or from `vocab.json` and `merges.txt` (CLIP,
    /// RoBERTa, GPT-2).
    ///
    /// SigLIP's classes (`tokenizer_class` in `tokenizer_config.json`) clean texts even where the file does not.
    ///
    /// The padding id is that of `pad_token` in `tokenizer_config.json` or `special_tokens_map.json`, else that of the
    /// file's padding section, else that of `[PAD]` or `<pad>`, else `pad_token_id` of `config.json`, else 0 (padding is
    /// masked, so the value then only has to exist).
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] when there is no such file, it is malformed, or `max_tokens` leaves no room beside the
    /// special tokens.
    pub fn from_dir(dir: impl AsRef<Path>, max_tokens: usize) -> Result<Self, DataError> {
        let dir = dir.as_ref();
        let settings = Settings::read(dir)?;
        let path = dir.join("tokenizer.json");
        let (path, json) = if path.is_file() {
            let bytes = std::fs::read(&path).map_err(DataError::read(&path))?;
            // Checked first: the tokenizers crate panics on some files that are not JSON.
            serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
                .map_err(|error| malformed(&path, &format!("not JSON: {error}")))?;
            (path, bytes)
        } else {
            let built = vocabulary_files::build(dir, &settings)?;
            (built.path, built.json)
        };
        let mut inner = quietly(|| {
            let mut inner = tokenizers::Tokenizer::from_bytes(&json).map_err(|error| error.to_string())?;
            settings.apply(&mut inner)?;
            Ok(inner)
        })
        .map_err(|reason| malformed(&path, &reason))?;

        let file_pad_id = inner.get_padding().map(|padding| padding.pad_id);
        inner.with_padding(None);
        let num_special = quietly(|| {
            inner.with_truncation(None).map_err(|error| error.to_string())?;
            inner.encode_fast("", true).map(|encoding| encoding.len()).map_err(|error| error.to_string())
        })
        .map_err(|reason| malformed(&path, &reason))?;
        if max_tokens <= num_special {
            let reason = format!(
                "`max_tokens` = {max_tokens} leaves no room for text beside its {num_special} special tokens; \
                 expected at least {}",
                num_special + 1
            );
            return Err(DataError::Tokenizer { path, reason });
        }
        let direction = match settings.get("truncation_side").and_then(Value::as_str) {
            Some("left") => TruncationDirection::Left,
            _ => TruncationDirection::Right,
        };
        let truncation = TruncationParams { max_length: max_tokens, direction, ..TruncationParams::default() };
        quietly(|| inner.with_truncation(Some(truncation)).map(|_| ()).map_err(|error| error.to_string()))
            .map_err(|reason| malformed(&path, &reason))?;

        let vocab = inner.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        if vocab_size == 0 {
            return Err(malformed(&path, "its vocabulary is empty"));
        }
        let named = settings.pad_token().and_then(|token| vocab.get(&token).copied()).or(file_pad_id);
        let usual = || ["[PAD]", "<pad>"].iter().find_map(|token| vocab.get(*token).copied());
        let pad_id = named.or_else(usual).or_else(|| settings.pad_token_id()).unwrap_or(0);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(json.len() as u64).to_le_bytes()).update(&json);
        hasher.update(&(max_tokens as u64).to_le_bytes()).update(&pad_id.to_le_bytes());
        hasher.update(&settings.to_bytes());
        let fingerprint = *hasher.finalize().as_bytes();
        Ok(Self { inner, path, pad_id, vocab_size, max_tokens, pad_to: None, fingerprint })
    }

    /// The same tokenizer with every text filled to `len` tokens with the padding id, for text towers that attend to
    /// padding (SigLIP). Texts are cut to the smaller of `len` and [`Self::max_tokens`].
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] when `len` leaves no room beside the special tokens.
    pub fn with_padding_to(mut self, len: usize) -> Result<Self, DataError> {
        if len < self.max_tokens {
            let mut truncation = self.inner.get_truncation().cloned().unwrap_or_default();
            truncation.max_length = len;
            quietly(|| self.inner.with_truncation(Some(truncation)).map(|_| ()).map_err(|error| error.to_string()))
                .map_err(|reason| DataError::Tokenizer {
                    path: self.path.clone(),
                    reason: format!("cannot cut to the {len} tokens to pad to: {reason}"),
                })?;
            self.max_tokens = len;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.fingerprint).update(&(len as u64).to_le_bytes());
        self.fingerprint = *hasher.finalize().as_bytes();
        self.pad_to = Some(len);
        Ok(self)
    }

    /// Tokenises one text, with special tokens; padded only by [`Self::with_padding_to`], with token type 0.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] when the tokenizer refuses the text (for instance an unknown word without an
    /// unknown-token).
    pub fn encode(&self, text: &str) -> Result<Encoded, DataError> {
        let encoding = quietly(|| self.inner.encode_fast(text, true).map_err(|error| error.to_string()));
        let encoding = encoding.map_err(|reason| DataError::Tokenizer {
            path: self.path.clone(),
            reason: format!("cannot tokenise `{}`: {reason}", text.chars().take(80).collect::<String>()),
        })?;
        let (mut ids, mut type_ids) = (encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec());
        if let Some(len) = self.pad_to {
            ids.resize(len, self.pad_id);
            type_ids.resize(len, 0);
        }
        Ok(Encoded { ids, type_ids, cut: !encoding.get_overflowing().is_empty() })
    }

    /// The id that fills short sequences.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// The greatest id plus one, added tokens included: the rows a text tower needs.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Largest number of tokens a text, special tokens included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Model, size, special tokens and padding in words, for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        let byte_level =
            serde_json::to_string(&self.inner.get_pre_tokenizer()).is_ok_and(|json| json.contains("\"ByteLevel\""));
        let model = match self.inner.get_model() {
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::Unigram(_) => "Unigram",
            ModelWrapper::WordLevel(_) => "words",
            ModelWrapper::BPE(_) if byte_level => "byte-level BPE",
            ModelWrapper::BPE(_) => "BPE",
        };
        // Any word: special tokens stand before and after it.
        let encoding = quietly(|| self.inner.encode_fast("a", true).map_err(|error| error.to_string()));
        let around = encoding.map_or(String::new(), |encoding| {
            let special = |(_, mask): &(&String, &u32)| **mask == 1;
            let tokens = || encoding.get_tokens().iter().zip(encoding.get_special_tokens_mask());
            let before = tokens().take_while(special).map(|(token, _)| format!("{token} "));
            let after = tokens().skip_while(special).filter(special).map(|(token, _)| format!(" {token}"));
            [before.collect(), "..".to_owned(), after.collect::<String>()].concat()
        });
        let pad = self.inner.id_to_token(self.pad_id).map_or(String::new(), |token| format!("{token}="));
        let length = match self.pad_to {
            Some(len) => format!("padded to {len} tokens"),
            None => format!("at most {} tokens", self.max_tokens),
        };
        format!("{model}, {} ids, {around}, pad {pad}{}, {length}", self.vocab_size, self.pad_id)
    }

    /// A hash of the vocabulary file, its settings and the limit.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

/// Runs foreign code that may panic on malformed files, and makes an error of the panic.
fn quietly<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        Err(format!("it panicked: {}", crate::loader::parallel_map::panic_message(panic.as_ref())))
    })
}

pub(crate) fn malformed(path: &Path, reason: &str) -> DataError {
    DataError::Tokenizer {
        path: path.to_owned(),
        reason: format!("is not usable: {reason}; expected a file written by the tokenizers library; {CONVERT}"),
    }
}

/// The object in a JSON file, or an empty one if the file is not there.
pub(crate) fn read_json(path: &Path) -> Result<Value, DataError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Object(serde_json::Map::new())),
        Err(error) => return Err(DataError::Read { path: path.to_owned(), source: error }),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| DataError::Malformed { path: path.to_owned(), reason: format!("not JSON: {error}") })
}
