//! Captions to token ids, with a Hugging Face `tokenizer.json` or the vocabulary files that preceded it. Padding and
//! truncation settings in the file are overridden: texts are cut to a fixed limit with their special tokens intact, and
//! padded only on request.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::{ModelWrapper, TruncationDirection, TruncationParams};

use crate::error::DataError;
use crate::files::is_file;
use crate::foreign_file::{json_problem, without_bom};
use crate::panics::catch_quietly;
use crate::text::legacy_vocab;
use crate::text::tokenizer_class::rules;
use crate::text::tokenizer_files::{malformed, refuse_foreign};
use crate::text::tokenizer_settings::Settings;

/// The tokens of one text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Token type ids, one per token id.
    pub type_ids: Vec<u32>,
    /// Whether the text was cut to the limit.
    pub cut: bool,
}

/// A tokenizer with a fixed limit of tokens per text.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    pad_id: u32,
    vocab_size: usize,
    /// The same without special tokens that are put into no text.
    text_vocab_size: usize,
    max_tokens: usize,
    pad_to: Option<usize>,
    /// Put before every text; empty for none.
    prompt: String,
    /// Without the prompt.
    fingerprint: [u8; 32],
    warning: Option<String>,
    is_absent: bool,
}

/// The error for a text where there is no text tower.
const NO_TEXT_TOWER: &str = "the model has no text tower: it was trained on features from files. Compute the features \
                             of these texts with the same encoder, and pass their file to `dualenc embed --texts FILE`";

impl Tokenizer {
    /// The tokenizer of a text tower that is absent: it refuses every text.
    #[must_use]
    pub fn absent() -> Self {
        let inner = tokenizers::Tokenizer::new(tokenizers::models::bpe::BPE::default());
        Self {
            inner,
            path: PathBuf::new(),
            pad_id: 0,
            vocab_size: 0,
            text_vocab_size: 0,
            max_tokens: 0,
            pad_to: None,
            prompt: String::new(),
            fingerprint: [0; 32],
            warning: None,
            is_absent: true,
        }
    }

    /// Reads `tokenizer.json` in `dir`. Without that file, builds the tokenizer from `vocab.txt` (BERT), or from
    /// `vocab.json` and `merges.txt` (CLIP, RoBERTa, GPT-2).
    ///
    /// Texts are cut to `max_tokens`, special tokens included. As in transformers 5.23, most classes (`tokenizer_class`
    /// in `tokenizer_config.json`, or the one of the `model_type`) take only the vocabulary from `tokenizer.json`: how
    /// they clean and split texts, and their special tokens, are in `tokenizer_config.json`. SigLIP's classes
    /// lower-case and clean texts even where the file does not.
    ///
    /// The padding id is the first of these that exists: `pad_token` in `tokenizer_config.json` or
    /// `special_tokens_map.json`, the padding section of `tokenizer.json`, `[PAD]` or `<pad>` in the vocabulary,
    /// `pad_token_id` in `config.json`, 0. (Padding is masked, so any id in the vocabulary works.)
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if no file is found, one is malformed, or `max_tokens` leaves no room beside the
    /// special tokens; [`DataError::Malformed`] for invalid JSON beside `tokenizer.json`; [`DataError::Read`].
    pub fn from_dir(dir: impl AsRef<Path>, max_tokens: usize) -> Result<Self, DataError> {
        let dir = dir.as_ref();
        let settings = Settings::read(dir)?;
        let (path, json) = read_or_build(dir, &settings)?;
        let mut inner =
            guarded(|| tokenizers::Tokenizer::from_bytes(&json)).map_err(|reason| malformed(&path, &reason))?;
        let file_pad_id = inner.get_padding().map(|padding| padding.pad_id);
        let file_direction = inner.get_truncation().map(|truncation| truncation.direction);
        // Without the tokens that the settings add: a text tower may have no embedding for them.
        let known_pads: HashMap<String, u32> = inner.get_vocab(true);
        let applied = guarded(|| rules::apply(&mut inner, &settings, unk_id(&json)))
            .and_then(|applied| guarded(|| settings.apply(&mut inner)).map(|()| applied))
            .map_err(|reason| malformed(&path, &reason))?;
        limit(&mut inner, &path, (&settings, file_direction), max_tokens)?;

        let vocab = inner.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        if vocab_size == 0 {
            return Err(malformed(&path, "its vocabulary is empty"));
        }
        let text_vocab_size = text_vocab_size(&inner, &vocab).map_err(|reason| malformed(&path, &reason))?;
        let configured = settings.pad_token().and_then(|token| known_pads.get(&token).copied()).or(file_pad_id);
        let usual = || ["[PAD]", "<pad>"].iter().find_map(|token| known_pads.get(*token).copied());
        let pad_id = configured.or_else(usual).or_else(|| settings.pad_token_id()).unwrap_or(0);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(json.len() as u64).to_le_bytes()).update(&json);
        hasher.update(&(max_tokens as u64).to_le_bytes()).update(&pad_id.to_le_bytes());
        hasher.update(settings.canonical().as_bytes());
        if !applied.changes.is_empty() {
            hasher.update(b"changes").update(applied.changes.as_bytes());
        }
        if let Some(TruncationDirection::Left) = file_direction {
            hasher.update(b"left");
        }
        let fingerprint = *hasher.finalize().as_bytes();
        Ok(Self {
            inner,
            path,
            pad_id,
            vocab_size,
            text_vocab_size,
            max_tokens,
            pad_to: None,
            prompt: String::new(),
            fingerprint,
            warning: applied.warning,
            is_absent: false,
        })
    }

    /// Pads every text to `len` tokens with the padding id, for text towers that attend to padding (SigLIP). Texts are
    /// cut to the smaller of `len` and [`Self::max_tokens`].
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if `len` leaves no room beside the special tokens.
    pub fn with_padding_to(mut self, len: usize) -> Result<Self, DataError> {
        if len < self.max_tokens {
            let error = |reason: String| self.error(format!("cannot cut to the {len} tokens to pad to: {reason}"));
            // The tokenizers crate subtracts the special tokens unchecked, which wraps in optimised builds.
            let num_special = guarded(|| self.inner.encode_fast("", true)).map_err(error)?.len();
            if len <= num_special {
                return Err(error(format!("{num_special} are special tokens; expected at least {}", num_special + 1)));
            }
            let mut truncation = self.inner.get_truncation().cloned().unwrap_or_default();
            truncation.max_length = len;
            guarded(|| self.inner.with_truncation(Some(truncation)).map(drop))
                .map_err(|reason| self.error(format!("cannot cut to the {len} tokens to pad to: {reason}")))?;
            self.max_tokens = len;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.fingerprint).update(&(len as u64).to_le_bytes());
        self.fingerprint = *hasher.finalize().as_bytes();
        self.pad_to = Some(len);
        Ok(self)
    }

    /// Puts `prompt` before every text, as the prompts of sentence-transformers: both are tokenised as one text, and
    /// cut together. An empty one is none.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if the prompt cannot be tokenised, or leaves no room for text.
    pub fn with_prompt(mut self, prompt: &str) -> Result<Self, DataError> {
        self.prompt = prompt.to_owned();
        if prompt.is_empty() {
            return Ok(self);
        }
        let encoded = guarded(|| self.inner.encode_fast(prompt, true))
            .map_err(|reason| self.error(format!("cannot tokenise the prompt `{prompt}`: {reason}")))?;
        if !encoded.get_overflowing().is_empty() || encoded.len() >= self.max_tokens {
            return Err(self.error(format!(
                "the prompt `{prompt}` leaves no room for text within {} tokens; shorten it, or raise \
                 `data.max_tokens`",
                self.max_tokens
            )));
        }
        Ok(self)
    }

    /// Tokenises one text, with its prompt and special tokens. It is padded only after [`Self::with_padding_to`], with
    /// token type 0.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] if the tokenizer refuses the text, for example an unknown word without an
    /// unknown-token; [`DataError::Loader`] if there is no text tower.
    pub fn encode(&self, text: &str) -> Result<Encoded, DataError> {
        if self.is_absent {
            return Err(DataError::Loader { reason: NO_TEXT_TOWER.to_owned() });
        }
        let prompted = match self.prompt.as_str() {
            "" => Cow::Borrowed(text),
            prompt => Cow::Owned(format!("{prompt}{text}")),
        };
        let encoding = guarded(|| self.inner.encode_fast(prompted.as_ref(), true)).map_err(|reason| {
            self.error(format!("cannot tokenise `{}`: {reason}", text.chars().take(80).collect::<String>()))
        })?;
        let (mut ids, mut type_ids) = (encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec());
        if let Some(len) = self.pad_to {
            ids.resize(len, self.pad_id);
            type_ids.resize(len, 0);
        }
        Ok(Encoded { ids, type_ids, cut: !encoding.get_overflowing().is_empty() })
    }

    /// Where its token ids may differ from those of transformers, as a sentence that starts with the file.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        self.warning.as_ref().map(|warning| format!("`{}`: {warning}", self.path.display()))
    }

    /// What is put before every text; empty for nothing.
    #[must_use]
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// The padding id.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// The greatest token id plus one, added tokens included: the number of embedding rows a text tower needs.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The greatest token id plus one, without special tokens that only a text with their very name has: Gemma's
    /// tokenizer has one for images, for which its text models have no embedding.
    #[must_use]
    pub fn text_vocab_size(&self) -> usize {
        self.text_vocab_size
    }

    /// Largest number of tokens per text, special tokens included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Model, vocabulary size, special tokens and padding in words, for display.
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
        // Any word will do: special tokens come before and after it.
        let around = guarded(|| self.inner.encode_fast("a", true)).map_or(String::new(), |encoding| {
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
        let prompt = match self.prompt.as_str() {
            "" => String::new(),
            prompt => format!(", prompt {prompt:?}"),
        };
        format!("{model}, {} ids, {around}, pad {pad}{}, {length}{prompt}", self.vocab_size, self.pad_id)
    }

    /// A hash of everything that affects token ids: the vocabulary, the settings beside it, the limit, the padding and
    /// the prompt.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        if self.prompt.is_empty() {
            return self.fingerprint;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.fingerprint).update(b"prompt").update(self.prompt.as_bytes());
        *hasher.finalize().as_bytes()
    }

    fn error(&self, reason: String) -> DataError {
        DataError::Tokenizer { path: self.path.clone(), reason }
    }
}

/// The `tokenizer.json` of `dir`, or one built from its vocabulary files; with the path to name in errors.
fn read_or_build(dir: &Path, settings: &Settings) -> Result<(PathBuf, Vec<u8>), DataError> {
    let path = dir.join("tokenizer.json");
    if !is_file(&path)? {
        let built = legacy_vocab::build(dir, settings)?;
        return Ok((built.path, built.json));
    }
    let json = std::fs::read(&path).map_err(DataError::read(&path))?;
    refuse_foreign(&path, &json)?;
    let json = without_bom(&json).to_vec();
    // Checked here because the tokenizers crate panics on some files that are not JSON.
    match serde_json::from_slice::<serde::de::IgnoredAny>(&json) {
        Ok(_) => Ok((path, json)),
        Err(error) if error.is_eof() => Err(DataError::Tokenizer { reason: json_problem(&json, &error), path }),
        Err(error) => Err(malformed(&path, &json_problem(&json, &error))),
    }
}

/// The id of the unknown token of a Unigram model in `tokenizer.json`, which the tokenizers crate keeps to itself.
fn unk_id(json: &[u8]) -> Option<usize> {
    #[derive(serde::Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(serde::Deserialize)]
    struct Model {
        unk_id: Option<usize>,
    }
    serde_json::from_slice::<File>(json).ok()?.model.unk_id
}

/// Makes `inner` cut texts to `max_tokens`, on the side that the settings say.
fn limit(
    inner: &mut tokenizers::Tokenizer,
    path: &Path,
    (settings, file_direction): (&Settings, Option<TruncationDirection>),
    max_tokens: usize,
) -> Result<(), DataError> {
    guarded(|| inner.with_truncation(None).map(drop)).map_err(|reason| malformed(path, &reason))?;
    let empty = guarded(|| inner.encode_fast("", true)).map_err(|reason| malformed(path, &reason))?;
    let num_special = empty.len();
    if max_tokens <= num_special {
        let reason = format!(
            "`max_tokens` = {max_tokens} leaves no room for text beside its {num_special} special tokens; \
             expected at least {}",
            num_special + 1
        );
        return Err(DataError::Tokenizer { path: path.to_owned(), reason });
    }
    let direction = match settings.get("truncation_side").and_then(Value::as_str) {
        Some("left") => TruncationDirection::Left,
        Some(_) => TruncationDirection::Right,
        // `TokenizersBackend.__init__`: the file decides where the config does not.
        None => file_direction.unwrap_or(TruncationDirection::Right),
    };
    let truncation = TruncationParams { max_length: max_tokens, direction, ..TruncationParams::default() };
    guarded(|| inner.with_truncation(Some(truncation)).map(drop)).map_err(|reason| malformed(path, &reason))
}

/// The greatest id of the `vocab` plus one, without special tokens that are put into no text.
fn text_vocab_size(inner: &tokenizers::Tokenizer, vocab: &HashMap<String, u32>) -> Result<usize, String> {
    let special = inner.get_added_tokens_decoder();
    let is_special = |id: &u32| special.get(id).is_some_and(|token| token.special);
    let around = guarded(|| inner.encode_fast("", true))?;
    let words = vocab.values().filter(|id| !is_special(id)).copied();
    Ok(words.chain(around.get_ids().iter().copied()).max().map_or(0, |id| id as usize + 1))
}

/// Calls into the tokenizers crate, which may panic on malformed files; a panic becomes an error.
fn guarded<T, E: Display>(f: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_quietly(f) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("it panicked: {}", panic.message)),
    }
}
