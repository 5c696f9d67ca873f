//! Tokenizers from the files that preceded `tokenizer.json`: BERT's `vocab.txt`, and `vocab.json` with `merges.txt` of
//! CLIP, RoBERTa and GPT-2. Each becomes the `tokenizer.json` that its class in transformers 5.23 would write.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::DataError;
use crate::files::is_file;
use crate::foreign_file::without_bom;
use crate::text::tokenizer_files::{CONVERT, malformed, read_json, refuse_foreign};
use crate::text::tokenizer_settings::{Settings, content};

/// A `tokenizer.json` in memory, and the file to name in errors.
pub(crate) struct BuiltTokenizer {
    pub(crate) json: Vec<u8>,
    pub(crate) path: PathBuf,
}

/// Files of SentencePiece and tiktoken, which only transformers can convert.
const UNSUPPORTED_FILES: [&str; 6] = [
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spm.model",
    "tokenizer.model",
    "tiktoken.model",
];

/// Builds the tokenizer of a directory without `tokenizer.json`.
pub(crate) fn build(dir: &Path, settings: &Settings) -> Result<BuiltTokenizer, DataError> {
    let (vocab_txt, vocab_json, merges) = (dir.join("vocab.txt"), dir.join("vocab.json"), dir.join("merges.txt"));
    if is_file(&vocab_json)? && is_file(&merges)? {
        return byte_level(dir, vocab_json, &merges, settings);
    }
    if is_file(&vocab_txt)? {
        return bert(vocab_txt, settings);
    }
    let found = UNSUPPORTED_FILES.iter().find(|name| dir.join(name).is_file());
    let reason = match found {
        Some(name) => format!("found `{name}` but no `tokenizer.json`; {CONVERT}"),
        None => format!(
            "found neither `tokenizer.json`, nor a BERT `vocab.txt`, nor `vocab.json` with `merges.txt`; {CONVERT}"
        ),
    };
    Err(DataError::Tokenizer { path: dir.to_owned(), reason })
}

fn unsupported(path: PathBuf, class: &str, file: &str) -> DataError {
    let reason = format!("there is no `tokenizer.json`, and `{class}` cannot be built from `{file}`; {CONVERT}");
    DataError::Tokenizer { path, reason }
}

/// `BertTokenizer` from its vocabulary, one token per line.
fn bert(path: PathBuf, settings: &Settings) -> Result<BuiltTokenizer, DataError> {
    let class = settings.class().unwrap_or("BertTokenizer");
    if !matches!(class, "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer") {
        return Err(unsupported(path, class, "vocab.txt"));
    }
    let source = std::fs::read(&path).map_err(DataError::read(&path))?;
    refuse_foreign(&path, &source)?;
    let text = std::str::from_utf8(without_bom(&source)).map_err(|error| malformed(&path, &error.to_string()))?;
    let vocab: Map<String, Value> =
        text.lines().zip(0..).map(|(token, id)| (token.trim_end().to_owned(), json!(id))).collect();
    let id = |token: &str| {
        vocab.get(token).ok_or_else(|| malformed(&path, &format!("it lacks the token `{token}` of a BERT vocabulary")))
    };
    let (cls, sep, _) = (id("[CLS]")?.clone(), id("[SEP]")?.clone(), id("[UNK]")?);
    let special = ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"].into_iter().filter(|token| vocab.contains_key(*token));
    let added = special.map(|token| added_token(&json!(token), &vocab[token])).collect();
    let json = Sections {
        added,
        padding: None,
        normalizer: json!({
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": settings.flag("tokenize_chinese_chars", true),
            "strip_accents": settings.get("strip_accents").and_then(Value::as_bool),
            "lowercase": settings.flag("do_lower_case", true),
        }),
        pre_tokenizer: json!({"type": "BertPreTokenizer"}),
        post_processor: json!({"type": "BertProcessing", "sep": ["[SEP]", sep], "cls": ["[CLS]", cls]}),
        model: json!({
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        }),
    };
    Ok(BuiltTokenizer { json: json.to_bytes(), path })
}

/// The byte-level BPE tokenizers that were published as `vocab.json` and `merges.txt`.
#[derive(Clone, Copy)]
enum Style {
    Clip,
    Roberta,
    Gpt2,
}

impl Style {
    fn of(settings: &Settings, dir: &Path, vocab: &Map<String, Value>) -> Result<Self, DataError> {
        if let Some(class) = settings.class() {
            return match class {
                "CLIPTokenizer" => Ok(Self::Clip),
                "RobertaTokenizer" => Ok(Self::Roberta),
                "GPT2Tokenizer" => Ok(Self::Gpt2),
                other => Err(unsupported(dir.to_owned(), other, "vocab.json")),
            };
        }
        match settings.model_type() {
            Some("clip" | "clip_text_model") => Ok(Self::Clip),
            Some("roberta") => Ok(Self::Roberta),
            Some("gpt2") => Ok(Self::Gpt2),
            Some(other) => Err(unsupported(dir.to_owned(), &format!("the tokenizer of {other}"), "vocab.json")),
            // No file names the class: the special tokens decide.
            None if vocab.contains_key("<|startoftext|>") => Ok(Self::Clip),
            None if vocab.contains_key("<s>") && vocab.contains_key("</s>") => Ok(Self::Roberta),
            None => Err(unsupported(dir.to_owned(), "a tokenizer of unknown class", "vocab.json")),
        }
    }

    /// Default special tokens of the class, in the order in which transformers adds them.
    const fn special(self) -> &'static [(&'static str, &'static str)] {
        const END: &str = "<|endoftext|>";
        match self {
            Self::Clip => {
                &[("bos_token", "<|startoftext|>"), ("eos_token", END), ("unk_token", END), ("pad_token", END)]
            }
            Self::Roberta => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "<unk>"),
                ("sep_token", "</s>"),
                ("pad_token", "<pad>"),
                ("cls_token", "<s>"),
                ("mask_token", "<mask>"),
            ],
            Self::Gpt2 => &[("bos_token", END), ("eos_token", END), ("unk_token", END)],
        }
    }

    /// The special tokens by key, each as `[text, id]`, and their entries in `added_tokens`. Tokens that the vocabulary
    /// lacks get the ids after its last.
    fn special_tokens(self, settings: &Settings, vocab: &Map<String, Value>) -> (Map<String, Value>, Vec<Value>) {
        let mut next_id = vocab.values().filter_map(Value::as_u64).max().map_or(0, |id| id.saturating_add(1));
        let (mut special, mut added) = (Map::new(), Vec::<Value>::new());
        for (key, default) in self.special() {
            let token = settings.special_token(key).unwrap_or_else(|| json!(default));
            let name = content(&token).unwrap_or(default);
            let known = added.iter().find(|token| token["content"] == name).map(|token| token["id"].clone());
            let id = known.unwrap_or_else(|| {
                let id = vocab.get(name).cloned().unwrap_or_else(|| {
                    let id = next_id;
                    next_id = next_id.saturating_add(1);
                    json!(id)
                });
                added.push(added_token(&token, &id));
                id
            });
            special.insert((*key).to_owned(), json!([name, id]));
        }
        (special, added)
    }
}

fn byte_level(dir: &Path, path: PathBuf, merges_path: &Path, settings: &Settings) -> Result<BuiltTokenizer, DataError> {
    let Value::Object(vocab) = read_json(&path)? else {
        return Err(malformed(&path, "expected an object from tokens to ids"));
    };
    let merges = std::fs::read(merges_path).map_err(DataError::read(merges_path))?;
    refuse_foreign(merges_path, &merges)?;
    let merges = std::str::from_utf8(&merges).map_err(|error| malformed(merges_path, &error.to_string()))?;
    let pairs: Option<Vec<(&str, &str)>> = merges
        .lines()
        .filter(|line| !line.starts_with("#version") && !line.is_empty())
        .map(|line| line.split_once(' ').filter(|(_, right)| !right.contains(' ')))
        .collect();
    let pairs = pairs.ok_or_else(|| malformed(merges_path, "a line is not two tokens separated by a space"))?;
    refuse_added_tokens(dir, &vocab, settings)?;

    let style = Style::of(settings, dir, &vocab)?;
    let (special, added) = style.special_tokens(settings, &vocab);
    let add_prefix_space = settings.flag("add_prefix_space", false);
    let bytes = |add_prefix_space: bool| {
        let (trim_offsets, use_regex) = (true, true);
        json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets,
            "use_regex": use_regex})
    };
    let start_and_end = |start: &str, end: &str| {
        json!({"type": "RobertaProcessing", "sep": special[end], "cls": special[start], "trim_offsets": false,
            "add_prefix_space": false})
    };
    let mut model = json!({"type": "BPE", "vocab": vocab, "merges": pairs});
    let (normalizer, pre_tokenizer, post_processor) = match style {
        Style::Clip => {
            model["unk_token"] = special["unk_token"][0].clone();
            model["end_of_word_suffix"] = json!("</w>");
            let normalizers = json!([
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ]);
            // Words, numbers digit by digit, runs of the rest (`tokenization_clip.py`).
            const PATTERN: &str =
                r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
            let split = json!({"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Removed", "invert": true});
            (
                json!({"type": "Sequence", "normalizers": normalizers}),
                json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]}),
                start_and_end("bos_token", "eos_token"),
            )
        }
        Style::Roberta => (Value::Null, bytes(add_prefix_space), start_and_end("cls_token", "sep_token")),
        Style::Gpt2 => (Value::Null, bytes(add_prefix_space), bos_eos_template(settings, &special)),
    };
    let padding = special.get("pad_token").map(|pad| {
        json!({"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null, "pad_token": pad[0],
            "pad_id": pad[1], "pad_type_id": 0})
    });
    let json = Sections { added, padding, normalizer, pre_tokenizer, post_processor, model };
    Ok(BuiltTokenizer { json: json.to_bytes(), path })
}

/// The post-processor of classes that add special tokens by the settings `add_bos_token` and `add_eos_token`
/// (`update_post_processor` of `tokenization_utils_tokenizers.py`).
fn bos_eos_template(settings: &Settings, special: &Map<String, Value>) -> Value {
    let token = |switch: &str, key: &str| settings.flag(switch, false).then(|| special[key].clone());
    let (start, end) = (token("add_bos_token", "bos_token"), token("add_eos_token", "eos_token"));
    let piece = |token: &Value| json!({"SpecialToken": {"id": token[0], "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let single: Vec<Value> =
        start.iter().map(piece).chain(std::iter::once(text)).chain(end.iter().map(piece)).collect();
    let entry = |token: &Value| {
        let name = token[0].as_str().unwrap_or_default().to_owned();
        (name, json!({"id": token[0], "ids": [token[1]], "tokens": [token[0]]}))
    };
    let tokens: Map<String, Value> = start.iter().chain(end.iter()).map(entry).collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens})
}

/// Refuses vocabularies with added tokens: they follow rules of their own, which only transformers implements.
fn refuse_added_tokens(dir: &Path, vocab: &Map<String, Value>, settings: &Settings) -> Result<(), DataError> {
    let file = read_json(&dir.join("added_tokens.json"))?;
    let listed = file.as_object().into_iter().flat_map(|tokens| tokens.keys().map(String::as_str));
    let decoder = settings.get("added_tokens_decoder").and_then(Value::as_object);
    let decoded = decoder.into_iter().flat_map(|tokens| tokens.values().filter_map(content));
    match listed.chain(decoded).find(|token| !vocab.contains_key(*token)) {
        None => Ok(()),
        Some(token) => {
            let reason = format!("`{token}` was added to its vocabulary, and there is no `tokenizer.json`; {CONVERT}");
            Err(DataError::Tokenizer { path: dir.to_owned(), reason })
        }
    }
}

/// The sections of a `tokenizer.json`.
struct Sections {
    added: Vec<Value>,
    padding: Option<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    model: Value,
}

impl Sections {
    fn to_bytes(&self) -> Vec<u8> {
        let file = json!({
            "version": "1.0",
            "truncation": null,
            "padding": self.padding,
            "added_tokens": self.added,
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": self.post_processor,
            "decoder": null,
            "model": self.model,
        });
        file.to_string().into_bytes()
    }
}

/// The entry of a special token in `added_tokens`; `token` is its text, or an object with `content` and flags.
fn added_token(token: &Value, id: &Value) -> Value {
    let flag = |key: &str| token.get(key).and_then(Value::as_bool).unwrap_or(false);
    json!({
        "id": id,
        "content": content(token),
        "single_word": flag("single_word"),
        "lstrip": flag("lstrip"),
        "rstrip": flag("rstrip"),
        "normalized": flag("normalized"),
        "special": true,
    })
}
