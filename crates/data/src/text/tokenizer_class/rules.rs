//! What each class of transformers 5.23 builds around a vocabulary: normaliser, pre-tokenizer, special tokens, and the
//! options of the model. See the constructor of the class in its `tokenization_*.py`.

use serde_json::{Value, json};
use tokenizers::models::unigram::Unigram;
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer};

use crate::text::tokenizer_class::special_tokens::{SpecialTokens, form, listed};
use crate::text::tokenizer_class::{Choice, Class};
use crate::text::tokenizer_settings::Settings;

/// What [`apply`] did.
#[derive(Default)]
pub(crate) struct Applied {
    /// What now differs from `tokenizer.json`, for the key of features on disk; empty for nothing.
    pub(crate) changes: String,
    /// Where dualenc may differ from transformers, as a sentence.
    pub(crate) warning: Option<String>,
}

/// Makes `tokenizer`, as read from `tokenizer.json`, what `AutoTokenizer` makes of the file and the settings beside it.
/// `unk_id`: that of the model in the file.
pub(crate) fn apply(tokenizer: &mut Tokenizer, settings: &Settings, unk_id: Option<usize>) -> Result<Applied, String> {
    let byte_level = [json(&tokenizer.get_pre_tokenizer())?, json(&tokenizer.get_decoder())?]
        .iter()
        .any(|part| part.to_string().contains("\"ByteLevel\""));
    let mut applied = Applied::default();
    let mut class = match Choice::of(settings, byte_level) {
        Choice::Anew(class) => Some(class),
        Choice::AsItIs => None,
        Choice::Unknown(name) => {
            applied.warning = Some(format!(
                "its `tokenizer_class` is `{name}`, which dualenc does not know; `tokenizer.json` is used as it is, \
                 and token ids may differ from those of transformers"
            ));
            None
        }
    };
    let found = kind(tokenizer.get_model());
    if let Some(named) = class.filter(|class| class.kind() != found) {
        applied.warning = Some(format!(
            "its class, `{}`, needs a {} model, but that of `tokenizer.json` is {found}; the file is used as it is, \
             and token ids may differ from those of transformers. Set `tokenizer_class` in `tokenizer_config.json` to \
             `TokenizersBackend`",
            named.name(),
            named.kind(),
        ));
        class = None;
    }
    let pad = tokenizer.get_padding().map(|padding| padding.pad_token.clone());
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
    let listed = listed(tokenizer);
    let special = SpecialTokens::of(settings, class, &listed, pad.as_deref())?;
    let has = |token: &AddedToken| listed.values().any(|listed| form(listed) == form(token));
    match class {
        Some(class) => {
            let same_tokens = special.added().iter().all(has)
                && listed.values().all(|token| special.added().iter().any(|added| form(added) == form(token)));
            applied.changes = rebuild(tokenizer, class, settings, &special, (same_tokens, unk_id))?;
        }
        None => {
            let new: Vec<AddedToken> = special.added().iter().filter(|token| !has(token)).cloned().collect();
            if !new.is_empty() {
                tokenizer.add_tokens(&new);
                applied.changes = format!("tokens {:?}", new.iter().map(form).collect::<Vec<_>>());
            }
        }
    }
    if settings.flag("split_special_tokens", false) {
        tokenizer.set_encode_special_tokens(true);
    }
    Ok(applied)
}

fn rebuild(
    tokenizer: &mut Tokenizer,
    class: Class,
    settings: &Settings,
    special: &SpecialTokens,
    (same_tokens, unk_id): (bool, Option<usize>),
) -> Result<String, String> {
    let mut changes = Vec::new();
    let old = json(&tokenizer.get_normalizer())?;
    let normalizer: Option<NormalizerWrapper> = parse(class.normalizer(settings, &old))?;
    let new = json(&normalizer)?;
    if new != old {
        changes.push(format!("normalizer {new}"));
    }
    let pre_tokenizer: Option<PreTokenizerWrapper> = parse(class.pre_tokenizer(settings))?;
    let new = json(&pre_tokenizer)?;
    if new != json(&tokenizer.get_pre_tokenizer())? {
        changes.push(format!("pre-tokenizer {new}"));
    }
    let model = class.model(tokenizer.get_model(), settings, special, unk_id)?;
    changes.extend(model.as_ref().map(|(_, change)| change.clone()));
    if !same_tokens {
        changes.push(format!("tokens {:?}", special.added().iter().map(form).collect::<Vec<_>>()));
    }
    if !changes.is_empty() {
        // The library cannot take tokens out, and adds each with the normaliser that it has then.
        let model = model.map_or_else(|| tokenizer.get_model().clone(), |(model, _)| model);
        let mut anew = Tokenizer::new(model);
        anew.with_normalizer(normalizer).with_pre_tokenizer(pre_tokenizer);
        anew.with_post_processor(tokenizer.get_post_processor().cloned());
        anew.add_tokens(special.added());
        *tokenizer = anew;
    }
    let around = |tokenizer: &Tokenizer| {
        let encoding = tokenizer.encode_fast("", true).map_err(|error| error.to_string())?;
        Ok::<_, String>((encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec()))
    };
    if let Some((start, end)) = class.around(tokenizer, special) {
        let before = around(tokenizer)?;
        let old = tokenizer.get_post_processor().cloned();
        let template: Option<PostProcessorWrapper> = parse(template(start, end))?;
        tokenizer.with_post_processor(template);
        let after = around(tokenizer)?;
        if before == after {
            tokenizer.with_post_processor(old);
        } else {
            changes.push(format!("around {after:?}"));
        }
    }
    Ok(changes.join("; "))
}

type Token = (String, u32);

/// The post-processor that puts these tokens around a text.
fn template(start: Option<Token>, end: Option<Token>) -> Value {
    let piece = |token: &Token| json!({"SpecialToken": {"id": token.0, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let single: Vec<Value> =
        start.iter().map(piece).chain(std::iter::once(text)).chain(end.iter().map(piece)).collect();
    let entry = |(name, id): &Token| (name.clone(), json!({"id": name, "ids": [id], "tokens": [name]}));
    let tokens: serde_json::Map<String, Value> = start.iter().chain(&end).map(entry).collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens})
}

const fn kind(model: &ModelWrapper) -> &'static str {
    match model {
        ModelWrapper::WordPiece(_) => "WordPiece",
        ModelWrapper::BPE(_) => "BPE",
        ModelWrapper::Unigram(_) => "Unigram",
        ModelWrapper::WordLevel(_) => "WordLevel",
    }
}

fn json(part: &impl serde::Serialize) -> Result<Value, String> {
    serde_json::to_value(part).map_err(|error| error.to_string())
}

fn parse<T: serde::de::DeserializeOwned>(part: Value) -> Result<Option<T>, String> {
    serde_json::from_value(part).map_err(|error| error.to_string())
}

fn metaspace(prepend_scheme: &str, split: bool) -> Value {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend_scheme, "split": split})
}

fn sequence_of_words(prepend_scheme: &str) -> Value {
    json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace(prepend_scheme, true)]})
}

fn bytes(add_prefix_space: bool, use_regex: bool) -> Value {
    let trim_offsets = true;
    json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets,
        "use_regex": use_regex})
}

/// The first `Precompiled` step of a normaliser, which classes of SentencePiece keep.
fn precompiled(normalizer: &Value) -> Option<Value> {
    let steps = match normalizer["type"].as_str() {
        Some("Sequence") => normalizer["normalizers"].as_array()?.as_slice(),
        _ => std::slice::from_ref(normalizer),
    };
    steps.iter().find(|step| step["type"] == "Precompiled").cloned()
}

impl Class {
    /// The model that it needs.
    const fn kind(self) -> &'static str {
        match self {
            Self::Bert | Self::Mpnet => "WordPiece",
            Self::XlmRoberta | Self::Camembert | Self::Albert | Self::DebertaV2 | Self::T5 => "Unigram",
            Self::Roberta | Self::Gpt2 | Self::Clip | Self::Qwen2 | Self::Gemma | Self::Llama => "BPE",
        }
    }

    /// Its normaliser. `old`: that of `tokenizer.json`.
    fn normalizer(self, settings: &Settings, old: &Value) -> Value {
        let steps = |steps: Vec<Value>| json!({"type": "Sequence", "normalizers": steps});
        match self {
            Self::Bert | Self::Mpnet => json!({
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": settings.flag("tokenize_chinese_chars", true),
                "strip_accents": settings.get("strip_accents").and_then(Value::as_bool),
                "lowercase": settings.flag("do_lower_case", true),
            }),
            Self::Roberta | Self::Gpt2 | Self::Llama => Value::Null,
            Self::XlmRoberta | Self::Camembert | Self::T5 => precompiled(old).unwrap_or(Value::Null),
            Self::Albert => {
                let quotes = |text: &str| json!({"type": "Replace", "pattern": {"String": text}, "content": "\""});
                let accents = !settings.flag("keep_accents", false);
                let accents = accents.then(|| [json!({"type": "NFKD"}), json!({"type": "StripAccents"})]);
                let lower = settings.flag("do_lower_case", true).then(|| json!({"type": "Lowercase"}));
                let all = [quotes("``"), quotes("''")].into_iter().chain(accents.into_iter().flatten());
                steps(all.chain(lower).chain(precompiled(old)).collect())
            }
            Self::DebertaV2 => {
                let lower = settings.flag("do_lower_case", false).then(|| json!({"type": "Lowercase"}));
                let rest = [
                    json!({"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "}),
                    json!({"type": "NFC"}),
                    json!({"type": "Strip", "strip_left": false, "strip_right": true}),
                ];
                steps(lower.into_iter().chain(rest).collect())
            }
            Self::Clip => steps(vec![
                json!({"type": "NFC"}),
                json!({"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}),
                json!({"type": "Lowercase"}),
            ]),
            Self::Qwen2 => json!({"type": "NFC"}),
            Self::Gemma => json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
        }
    }

    fn pre_tokenizer(self, settings: &Settings) -> Value {
        let adds_space = |default: bool| settings.flag("add_prefix_space", default);
        let split = |pattern: &str, behavior: &str, invert: bool| {
            let pattern = json!({ "Regex": pattern });
            json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert})
        };
        let always = if adds_space(true) { "always" } else { "never" };
        match self {
            Self::Bert | Self::Mpnet => json!({"type": "BertPreTokenizer"}),
            Self::Roberta | Self::Gpt2 => bytes(adds_space(false), true),
            Self::XlmRoberta | Self::Camembert | Self::Albert => sequence_of_words(always),
            Self::T5 => sequence_of_words("always"),
            Self::DebertaV2 => {
                let punctuation = settings.flag("split_by_punct", false);
                let punctuation = punctuation.then(|| json!({"type": "Punctuation", "behavior": "Isolated"}));
                let scheme = if adds_space(true) { "always" } else { "first" };
                let all: Vec<Value> = punctuation.into_iter().chain([metaspace(scheme, true)]).collect();
                json!({"type": "Sequence", "pretokenizers": all})
            }
            Self::Clip => {
                const PATTERN: &str =
                    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
                json!({"type": "Sequence", "pretokenizers": [split(PATTERN, "Removed", true), bytes(false, true)]})
            }
            Self::Qwen2 => {
                const PATTERN: &str = concat!(
                    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
                    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
                );
                let bytes = bytes(adds_space(false), false);
                json!({"type": "Sequence", "pretokenizers": [split(PATTERN, "Isolated", false), bytes]})
            }
            Self::Gemma => json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                "invert": false}),
            Self::Llama => {
                let scheme = match (adds_space(true), settings.flag("legacy", false)) {
                    (false, _) => "never",
                    (true, true) => "always",
                    (true, false) => "first",
                };
                metaspace(scheme, false)
            }
        }
    }

    /// Its model, with what differs, if it differs from `old`.
    fn model(
        self,
        old: &ModelWrapper,
        settings: &Settings,
        special: &SpecialTokens,
        old_unk_id: Option<usize>,
    ) -> Result<Option<(ModelWrapper, String)>, String> {
        let unk = special.named("unk_token").map(str::to_owned);
        match old {
            ModelWrapper::WordPiece(old) => {
                let unk = unk.unwrap_or_else(|| "[UNK]".to_owned());
                if (&old.unk_token, old.continuing_subword_prefix.as_str(), old.max_input_chars_per_word)
                    == (&unk, "##", 100)
                {
                    return Ok(None);
                }
                let mut model = old.clone();
                model.unk_token.clone_from(&unk);
                "##".clone_into(&mut model.continuing_subword_prefix);
                model.max_input_chars_per_word = 100;
                Ok(Some((model.into(), format!("unknown {unk}, prefix ##, longest word 100"))))
            }
            ModelWrapper::BPE(old) => {
                let unk = unk.filter(|_| matches!(self, Self::Clip | Self::Gemma));
                let suffix = if self == Self::Clip { "</w>" } else { "" };
                let fuse = matches!(self, Self::Gemma | Self::Llama);
                let text = |option: &Option<String>| option.as_deref().unwrap_or("").to_owned();
                let old_options = (text(&old.continuing_subword_prefix), text(&old.end_of_word_suffix));
                let old_flags = (old.fuse_unk, old.byte_fallback, old.ignore_merges, old.dropout);
                let same = (old_options.0.as_str(), old_options.1.as_str()) == ("", suffix)
                    && old_flags == (fuse, fuse, false, None);
                if same && old.unk_token == unk {
                    return Ok(None);
                }
                let mut model = old.clone();
                model.continuing_subword_prefix = None;
                model.end_of_word_suffix = (!suffix.is_empty()).then(|| suffix.to_owned());
                (model.fuse_unk, model.byte_fallback, model.ignore_merges, model.dropout) = (fuse, fuse, false, None);
                model.unk_token.clone_from(&unk);
                Ok(Some((model.into(), format!("unknown {unk:?}, suffix {suffix}, fuses and falls back {fuse}"))))
            }
            ModelWrapper::Unigram(old) => {
                let index = |name: &str| old.iter().position(|(token, _)| token == name);
                let unk = unk.unwrap_or_else(|| "<unk>".to_owned());
                let id = match self {
                    Self::Albert => 1,
                    Self::T5 => 2,
                    Self::Camembert => index(&unk).unwrap_or(0),
                    Self::DebertaV2 => {
                        let scored = old.iter().position(|(token, score)| *token == unk && *score == 0.0);
                        let given = settings.get("unk_id").and_then(Value::as_u64);
                        scored.or(given.and_then(|id| usize::try_from(id).ok())).unwrap_or(1)
                    }
                    _ => 3,
                };
                if old_unk_id == Some(id) && !old.byte_fallback() {
                    return Ok(None);
                }
                let vocab = old.iter().cloned().collect();
                let model = Unigram::from(vocab, Some(id), false).map_err(|error| error.to_string())?;
                Ok(Some((model.into(), format!("unknown {id}"))))
            }
            ModelWrapper::WordLevel(_) => Ok(None),
        }
    }

    /// The tokens before and after a text, if the class decides that; otherwise `tokenizer.json` does.
    fn around(self, tokenizer: &Tokenizer, special: &SpecialTokens) -> Option<(Option<Token>, Option<Token>)> {
        let token = |key: &str| {
            let name = special.named(key)?;
            Some((name.to_owned(), tokenizer.token_to_id(name)?))
        };
        match self {
            Self::Bert | Self::Mpnet | Self::Roberta | Self::DebertaV2 => {
                Some((token("cls_token"), token("sep_token")))
            }
            Self::XlmRoberta | Self::Camembert | Self::Clip => Some((token("bos_token"), token("eos_token"))),
            Self::T5 => Some((None, token("eos_token"))),
            Self::Albert | Self::Gpt2 | Self::Qwen2 | Self::Gemma | Self::Llama => None,
        }
    }
}
