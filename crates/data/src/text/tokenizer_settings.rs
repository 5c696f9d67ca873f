//! The settings in the files beside `tokenizer.json`: class, special tokens, and the text cleaning that a class adds to
//! what `tokenizer.json` says.

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NormalizerWrapper, Replace, Sequence, Strip};

use crate::error::DataError;
use crate::text::tokenizer_files::read_json;

/// `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and the model's `config.json`, each empty
/// if the file does not exist.
pub(crate) struct Settings {
    tokenizer: Value,
    special: Value,
    model: Value,
    /// `added_tokens.json`.
    added: Value,
}

/// The number of tokens, special tokens included, that `tokenizer_config.json` in `dir` cuts texts to
/// (`model_max_length`). `None` if it says none, or a number so large that it stands for none.
///
/// # Errors
/// [`DataError::Malformed`] for invalid JSON in or beside `tokenizer_config.json`; [`DataError::Read`].
pub fn recorded_max_tokens(dir: &Path) -> Result<Option<usize>, DataError> {
    let settings = Settings::read(dir)?;
    let limit = settings.get("model_max_length").and_then(Value::as_u64).filter(|limit| *limit > 0);
    Ok(limit.and_then(|limit| usize::try_from(limit).ok()))
}

/// The text of a token: a string, or an object with `content`.
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
            added: object("added_tokens.json")?,
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

    /// The `model_type` of the text tower.
    pub(crate) fn model_type(&self) -> Option<&str> {
        let tower = self.model.get("text_config").unwrap_or(&self.model);
        tower.get("model_type")?.as_str()
    }

    /// The `model_type` of the whole model, which decides the class of a tokenizer.
    pub(crate) fn whole_model_type(&self) -> Option<&str> {
        self.model.get("model_type")?.as_str()
    }

    /// The tokens of `added_tokens.json`, with their ids.
    pub(crate) fn added_tokens(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.added.as_object().into_iter().flatten()
    }

    /// `tokenizer_config.json` with the tokens of `special_tokens_map.json`, which count only where it has no
    /// `added_tokens_decoder` (`_from_pretrained` of `tokenization_utils_base.py`).
    pub(crate) fn merged_special_tokens(&self) -> Map<String, Value> {
        const EXTRA: &str = "extra_special_tokens";
        let mut merged = self.tokenizer.as_object().cloned().unwrap_or_else(Map::new);
        if merged.contains_key("added_tokens_decoder") {
            return merged;
        }
        for (key, value) in self.special.as_object().into_iter().flatten() {
            let mut value = value.clone();
            if key == EXTRA
                && let (Some(Value::Array(before)), Value::Array(tokens)) = (merged.get(EXTRA), &value)
            {
                let new = tokens.iter().filter(|token| !before.contains(token));
                value = before.iter().chain(new).cloned().collect();
            }
            if key != EXTRA
                && let Value::Object(token) = &mut value
            {
                token.insert("special".to_owned(), true.into());
            }
            merged.insert(key.clone(), value);
        }
        merged
    }

    /// The token that a file has under `key`, such as `pad_token`, as written there.
    pub(crate) fn special_token(&self, key: &str) -> Option<Value> {
        self.get(key).or_else(|| self.special.get(key).filter(|value| !value.is_null())).cloned()
    }

    /// The padding token of the files, else the default of the class if its vocabulary alone would suggest another.
    pub(crate) fn pad_token(&self) -> Option<String> {
        let given = self.special_token("pad_token").and_then(|token| content(&token).map(str::to_owned));
        given.or_else(|| match self.class()? {
            "CLIPTokenizer" => Some("<|endoftext|>".to_owned()),
            "SiglipTokenizer" => Some("</s>".to_owned()),
            _ => None,
        })
    }

    /// `pad_token_id` in the model's config.
    pub(crate) fn pad_token_id(&self) -> Option<u32> {
        self.model.get("pad_token_id")?.as_u64()?.try_into().ok()
    }

    /// Everything here that may change token ids, as a string. It is part of the key of features on disk: a change of
    /// its form makes every feature cache be filled anew.
    pub(crate) fn canonical(&self) -> String {
        let name = |name: Option<&str>| name.map_or("None".to_owned(), |name| format!("Some(\"{name}\")"));
        format!("{} {} {}", self.tokenizer, name(self.class()), name(self.model_type()))
    }

    /// Adds the text cleaning of SigLIP's classes where `tokenizer.json` lacks it; transformers 5.23 always applies it.
    pub(crate) fn apply(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<(), String> {
        let cleans =
            serde_json::to_string(&tokenizer.get_normalizer()).is_ok_and(|json| json.contains("\"Lowercase\""));
        if !cleans && let Some(mut steps) = self.cleaning()? {
            steps.extend(tokenizer.get_normalizer().cloned());
            tokenizer.with_normalizer(Some(Sequence::new(steps)));
        }
        Ok(())
    }

    /// The normalisers that SigLIP's classes apply first.
    fn cleaning(&self) -> Result<Option<Vec<NormalizerWrapper>>, String> {
        let is_siglip2 = self.class() == Some("Siglip2Tokenizer")
            || matches!(self.model_type(), Some("siglip2" | "siglip2_text_model"));
        if is_siglip2 {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn canonical_form_is_pinned() {
        let mut settings = Settings {
            tokenizer: json!({"tokenizer_class": "SiglipTokenizerFast"}),
            special: json!({}),
            model: json!({"text_config": {"model_type": "siglip_text_model"}}),
            added: json!({}),
        };
        assert_eq!(
            settings.canonical(),
            r#"{"tokenizer_class":"SiglipTokenizerFast"} Some("SiglipTokenizer") Some("siglip_text_model")"#
        );
        (settings.tokenizer, settings.model) = (json!({}), json!({}));
        assert_eq!(settings.canonical(), "{} None None");
    }
}
