//! Captions to token ids, from a Hugging Face `tokenizer.json`. Padding and truncation built into the file are
//! overridden: nothing is padded here, and texts are cut to `max_tokens`, special tokens kept.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, TruncationDirection, TruncationParams};

use crate::error::DataError;

/// What to do when a directory has no `tokenizer.json`.
const CONVERT: &str = "convert it once with `AutoTokenizer.from_pretrained(dir).save_pretrained(dir)` of transformers";

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
    fingerprint: [u8; 32],
}

impl Tokenizer {
    /// Reads `tokenizer.json` in `dir`, or builds BERT's WordPiece from a lone `vocab.txt`.
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
        let config = read_json(&dir.join("tokenizer_config.json"))?;
        let path = dir.join("tokenizer.json");
        let (mut inner, path, bytes) = if path.is_file() {
            let bytes = std::fs::read(&path).map_err(DataError::read(&path))?;
            // Checked first: the tokenizers crate panics on some files that are not JSON.
            serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
                .map_err(|error| malformed(&path, &format!("not JSON: {error}")))?;
            let inner = quietly(|| tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| error.to_string()))
                .map_err(|reason| malformed(&path, &reason))?;
            (inner, path, bytes)
        } else {
            let path = dir.join("vocab.txt");
            let bytes = std::fs::read(&path).map_err(|_| DataError::Tokenizer {
                path: dir.to_owned(),
                reason: format!("found neither `tokenizer.json` nor a BERT `vocab.txt`; {CONVERT}"),
            })?;
            (bert_from_vocab(&path, &bytes, &config)?, path, bytes)
        };

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
        let direction = match config.get("truncation_side").and_then(Value::as_str) {
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
        let pad_id = match pad_token(dir, &config)?.and_then(|token| vocab.get(&token).copied()).or(file_pad_id) {
            Some(id) => id,
            None => match ["[PAD]", "<pad>"].iter().find_map(|token| vocab.get(*token)) {
                Some(&id) => id,
                None => {
                    let model = read_json(&dir.join("config.json"))?;
                    let id = model.get("pad_token_id").and_then(Value::as_u64);
                    id.and_then(|id| u32::try_from(id).ok()).unwrap_or(0)
                }
            },
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
        hasher.update(&(max_tokens as u64).to_le_bytes()).update(&pad_id.to_le_bytes());
        hasher.update(config.to_string().as_bytes());
        let fingerprint = *hasher.finalize().as_bytes();
        Ok(Self { inner, path, pad_id, vocab_size, max_tokens, fingerprint })
    }

    /// Tokenises one text, with special tokens, un-padded.
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
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            cut: !encoding.get_overflowing().is_empty(),
        })
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

    /// A hash of the vocabulary file, its settings and the limit.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

/// Runs foreign code that may panic on malformed files, and makes an error of the panic.
fn quietly<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|panic| Err(format!("it panicked: {}", crate::ordered_map::panic_message(panic.as_ref()))))
}

fn malformed(path: &Path, reason: &str) -> DataError {
    DataError::Tokenizer {
        path: path.to_owned(),
        reason: format!("is not usable: {reason}; expected a file written by the tokenizers library; {CONVERT}"),
    }
}

/// The object in a JSON file, or an empty one if the file is not there.
fn read_json(path: &Path) -> Result<Value, DataError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Object(serde_json::Map::new())),
        Err(error) => return Err(DataError::Read { path: path.to_owned(), source: error }),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| DataError::Malformed { path: path.to_owned(), reason: format!("not JSON: {error}") })
}

/// `pad_token` is a string or an added token with `content`.
fn pad_token(dir: &Path, config: &Value) -> Result<Option<String>, DataError> {
    let name = |value: &Value| {
        let token = value.get("pad_token")?;
        token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
    };
    if let Some(token) = name(config) {
        return Ok(Some(token));
    }
    Ok(name(&read_json(&dir.join("special_tokens_map.json"))?))
}

/// BERT's own tokenizer (`BertTokenizer` of transformers) from its vocabulary, one token a line.
fn bert_from_vocab(path: &Path, bytes: &[u8], config: &Value) -> Result<tokenizers::Tokenizer, DataError> {
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or("BertTokenizer");
    if !matches!(class, "BertTokenizer" | "BertTokenizerFast" | "DistilBertTokenizer" | "DistilBertTokenizerFast") {
        let reason = format!("there is no `tokenizer.json`, and `{class}` cannot be built from `vocab.txt`; {CONVERT}");
        return Err(DataError::Tokenizer { path: path.to_owned(), reason });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| malformed(path, &error.to_string()))?;
    let vocab: HashMap<String, u32> =
        text.lines().zip(0..).map(|(token, id)| (token.trim_end().to_owned(), id)).collect();
    let id = |token: &str| {
        vocab
            .get(token)
            .copied()
            .ok_or_else(|| malformed(path, &format!("it has no `{token}`, as a BERT vocabulary has")))
    };
    let (cls, sep, _) = (id("[CLS]")?, id("[SEP]")?, id("[UNK]")?);
    let special = ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"].into_iter().filter(|token| vocab.contains_key(*token));
    let special: Vec<_> = special.map(|token| AddedToken::from(token, true)).collect();
    let flag = |key: &str, default| config.get(key).and_then(Value::as_bool).unwrap_or(default);
    let lowercase = flag("do_lower_case", true);
    let strip_accents = config.get("strip_accents").and_then(Value::as_bool);
    let chinese = flag("tokenize_chinese_chars", true);

    let model = WordPiece::builder()
        .vocab(vocab.into_iter().collect::<ahash::AHashMap<_, _>>())
        .unk_token("[UNK]".to_owned())
        .build();
    let mut tokenizer = tokenizers::Tokenizer::new(model.map_err(|error| malformed(path, &error.to_string()))?);
    tokenizer
        .with_normalizer(Some(BertNormalizer::new(true, chinese, strip_accents, lowercase)))
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(BertProcessing::new(("[SEP]".to_owned(), sep), ("[CLS]".to_owned(), cls))));
    tokenizer.add_special_tokens(&special);
    Ok(tokenizer)
}
