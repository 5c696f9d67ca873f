//! What the files beside `tokenizer.json` say of a tokenizer: its class, special tokens, and how the class changes what
//! the file holds.

use std::path::Path;

use serde_json::Value;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Replace, Sequence, Strip};

use crate::error::DataError;
use crate::text::tokenizer::read_json;

/// `tokenizer_config.json`, `special_tokens_map.json` and the model's `config.json`, each empty if not there.
pub(crate) struct Settings {
    tokenizer: Value,
    special: Value,
    model: Value,
}

/// The text of a token, which is a string or an object with `content`.
pub(crate) fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

impl Settings {
    pub(crate) fn read(dir: &Path) -> Result<Self, DataError> {
        let object = |name: &str| {
            let path = dir.join(name);
            match read_json(&path)? {
                object @ Value::Object(_) => Ok(object),
                other => Err(DataError::Malformed { reason: format!("expected a JSON object, found `{other}`"), path }),
            }
        };
        Ok(Self {
            tokenizer: object("tokenizer_config.json")?,
            special: object("special_tokens_map.json")?,
            model: object("config.json")?,
        })
    }

    /// A value of `tokenizer_config.json`; `null` counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.tokenizer.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    /// The tokenizer class without the suffix `Fast`.
    pub(crate) fn class(&self) -> Option<&str> {
        let class = self.get("tokenizer_class").or_else(|| self.model.get("tokenizer_class"))?.as_str()?;
        Some(class.strip_suffix("Fast").unwrap_or(class))
    }

    /// The text tower's type.
    pub(crate) fn model_type(&self) -> Option<&str> {
        let tower = self.model.get("text_config").unwrap_or(&self.model);
        tower.get("model_type")?.as_str()
    }

    /// The token that a file gives for `key`, such as `pad_token`, as it stands there.
    pub(crate) fn special_token(&self, key: &str) -> Option<Value> {
        self.get(key).or_else(|| self.special.get(key).filter(|value| !value.is_null())).cloned()
    }

    /// The padding token that a file gives, or the class takes for granted where another of its tokens could pass.
    pub(crate) fn pad_token(&self) -> Option<String> {
        let given = self.special_token("pad_token").and_then(|token| content(&token).map(str::to_owned));
        given.or_else(|| match self.class()? {
            "CLIPTokenizer" => Some("<|endoftext|>".to_owned()),
            "SiglipTokenizer" => Some("</s>".to_owned()),
            _ => None,
        })
    }

    /// `pad_token_id` of the model's config.
    pub(crate) fn pad_token_id(&self) -> Option<u32> {
        self.model.get("pad_token_id")?.as_u64()?.try_into().ok()
    }

    /// All that may change ids, for a fingerprint.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        format!("{} {:?} {:?}", self.tokenizer, self.class(), self.model_type()).into_bytes()
    }

    /// SigLIP's classes clean their texts whatever `tokenizer.json` says (transformers 5.23): where the file does not,
    /// this makes it.
    pub(crate) fn apply(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<(), String> {
        let cleans =
            serde_json::to_string(&tokenizer.get_normalizer()).is_ok_and(|json| json.contains("\"Lowercase\""));
        if !cleans && let Some(mut steps) = self.cleaning()? {
            steps.extend(tokenizer.get_normalizer().cloned());
            tokenizer.with_normalizer(Some(Sequence::new(steps)));
        }
        Ok(())
    }

    /// The normalisers that SigLIP's classes run first.
    fn cleaning(&self) -> Result<Option<Vec<NormalizerWrapper>>, String> {
        let siglip2 = self.class() == Some("Siglip2Tokenizer")
            || matches!(self.model_type(), Some("siglip2" | "siglip2_text_model"));
        if siglip2 {
            return Ok(Some(vec![Lowercase.into()]));
        }
        if self.class() != Some("SiglipTokenizer") || !self.flag("do_lower_case", true) {
            return Ok(None);
        }
        // `canonicalize_text` of `tokenization_siglip.py`; the first class is Python's `string.punctuation`.
        let replace = |pattern: &str, by: &str| {
            let pattern = ReplacePattern::Regex(pattern.to_owned());
            Replace::new(pattern, by).map(NormalizerWrapper::from).map_err(|error| error.to_string())
        };
        Ok(Some(vec![
            Lowercase.into(),
            replace(r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"##, "")?,
            replace(r"\s+", " ")?,
            Strip::new(true, true).into(),
        ]))
    }
}
