//! The tokens that transformers 5.23 adds to a vocabulary: those of `added_tokens_decoder`, the named special tokens,
//! and the extra ones, from `tokenizer_config.json` and the files that preceded it (`_from_pretrained` of
//! `tokenization_utils_base.py`, `__init__` of `tokenization_utils_tokenizers.py`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tokenizers::{AddedToken, Tokenizer};

use crate::text::tokenizer_class::{Class, NAMED};
use crate::text::tokenizer_settings::{Settings, content};

/// The key that early configs have instead of `extra_special_tokens`.
const ADDITIONAL: &str = "additional_special_tokens";

/// The key of special tokens without a role.
const EXTRA: &str = "extra_special_tokens";

/// The special tokens of a tokenizer.
pub(crate) struct SpecialTokens {
    named: Vec<(String, Value)>,
    /// In the order in which they are added.
    added: Vec<AddedToken>,
}

impl SpecialTokens {
    /// Those of `class`; of a tokenizer that is taken as it is without one. `listed`: the `added_tokens` of its
    /// `tokenizer.json`. `pad`: the padding token in there.
    pub(crate) fn of(
        settings: &Settings,
        class: Option<Class>,
        listed: &BTreeMap<u32, AddedToken>,
        pad: Option<&str>,
    ) -> Result<Self, String> {
        let mut config = settings.merged_special_tokens();
        if config.contains_key(ADDITIONAL) && !config.get(EXTRA).is_some_and(is_truthy) {
            let additional = config.remove(ADDITIONAL).unwrap_or(Value::Null);
            config.insert(EXTRA.to_owned(), additional);
        }
        let decoder = decoder(settings, &config, listed)?;
        let named = named(&mut config, class, pad);
        let extra = extra(&mut config, class);

        let is_named = |name: &str| named.iter().any(|(_, token)| content(token) == Some(name));
        let mut added: Vec<AddedToken> =
            decoder.values().map(|token| parsed(token, is_named(content(token).unwrap_or_default()))).collect();
        // Without a class, the tokens of `tokenizer.json` are there already.
        let known = |name: &str| class.is_none() && listed.values().any(|token| token.content == name);
        for (key, token) in named.iter().map(|(key, token)| (key.as_str(), token)).chain(extra.iter().map(|t| ("", t)))
        {
            let Some(name) = content(token) else { continue };
            if known(name) || added.iter().any(|token| token.content == name) {
                continue;
            }
            let mut token = parsed(token, token.is_string() || is_named(name));
            token.lstrip |= key == "mask_token" && class.is_some_and(Class::mask_takes_space);
            added.push(token);
        }
        if class == Some(Class::Qwen2) {
            // `Qwen2Tokenizer.__init__` ends so.
            let all = named.iter().map(|(_, token)| token).chain(&extra).filter_map(content);
            added.extend(all.map(|name| AddedToken::from(name, true)));
        }
        Ok(Self { named, added })
    }

    /// The text of the token in this role.
    pub(crate) fn named(&self, key: &str) -> Option<&str> {
        self.named.iter().find(|(name, _)| name == key).and_then(|(_, token)| content(token))
    }

    /// All, in the order in which they are added.
    pub(crate) fn added(&self) -> &[AddedToken] {
        &self.added
    }
}

/// The `added_tokens` of a tokenizer, by id.
pub(crate) fn listed(tokenizer: &Tokenizer) -> BTreeMap<u32, AddedToken> {
    tokenizer.get_added_tokens_decoder().into_iter().collect()
}

/// A comparable form of a token.
pub(crate) fn form(token: &AddedToken) -> (&str, [bool; 5]) {
    (&token.content, [token.single_word, token.lstrip, token.rstrip, token.normalized, token.special])
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        other => !other.is_null(),
    }
}

/// `added_tokens_decoder` by id; without it, that of the files that preceded it.
fn decoder(
    settings: &Settings,
    config: &Map<String, Value>,
    listed: &BTreeMap<u32, AddedToken>,
) -> Result<BTreeMap<u64, Value>, String> {
    if let Some(given) = settings.get("added_tokens_decoder") {
        let entries = given.as_object().ok_or_else(|| {
            format!(
                "`added_tokens_decoder` of `tokenizer_config.json` is `{given}`, expected an object from ids to tokens"
            )
        })?;
        let entry = |(id, token): (&String, &Value)| match (id.parse(), content(token)) {
            (Ok(id), Some(_)) if token.is_object() => Ok((id, token.clone())),
            _ => Err(format!(
                "`added_tokens_decoder` of `tokenizer_config.json` has `{id}`: `{token}`, expected an id and an \
                 object with `content`"
            )),
        };
        return entries.iter().map(entry).collect();
    }
    let special: Vec<&str> = NAMED.iter().filter_map(|key| config.get(*key)).filter_map(content).collect();
    let extra: Vec<&str> =
        config.get(EXTRA).and_then(Value::as_array).into_iter().flatten().filter_map(content).collect();
    let mut decoder = BTreeMap::new();
    for (name, id) in settings.added_tokens() {
        let Some(id) = id.as_u64() else {
            return Err(format!("`added_tokens.json` has the id `{id}` for `{name}`, expected a whole number"));
        };
        let is_special = special.contains(&name.as_str()) || extra.contains(&name.as_str());
        decoder.insert(id, json!({"content": name, "normalized": !is_special, "special": is_special}));
    }
    for (id, token) in listed {
        let (name, [single_word, lstrip, rstrip, normalized, special]) = form(token);
        let token = json!({"content": name, "single_word": single_word, "lstrip": lstrip, "rstrip": rstrip,
            "normalized": normalized, "special": special});
        decoder.insert(u64::from(*id), token);
    }
    Ok(decoder)
}

/// The tokens with a role: the usual ones, then those of the model, such as `image_token`.
fn named(config: &mut Map<String, Value>, class: Option<Class>, pad: Option<&str>) -> Vec<(String, Value)> {
    let mut usual: Map<String, Value> = Map::new();
    for (key, token) in class.map_or(Vec::new(), Class::special_tokens) {
        usual.insert(key.to_owned(), token);
    }
    for key in NAMED {
        if let Some(token) = config.get(key) {
            usual.insert(key.to_owned(), token.clone());
        }
    }
    if let Some(pad) = pad {
        usual.entry("pad_token").or_insert_with(|| json!(pad));
    }
    let of_model = config
        .iter()
        .filter(|(key, token)| key.ends_with("_token") && !NAMED.contains(&key.as_str()) && content(token).is_some());
    let of_model: Vec<(String, Value)> = of_model.map(|(key, token)| (key.clone(), token.clone())).collect();
    let from_extra = match config.get(EXTRA) {
        Some(Value::Object(tokens)) => tokens.clone(),
        _ => Map::new(),
    };
    if !from_extra.is_empty() {
        config.remove(EXTRA);
    }
    let usual = NAMED.iter().filter_map(|key| Some(((*key).to_owned(), usual.remove(*key)?)));
    let all = usual.chain(of_model).chain(from_extra);
    all.filter(|(_, token)| content(token).is_some()).collect()
}

/// The tokens without a role.
fn extra(config: &mut Map<String, Value>, class: Option<Class>) -> Vec<Value> {
    let list = |value: Option<Value>| match value {
        Some(Value::Array(tokens)) => Some(tokens),
        _ => None,
    };
    if config.contains_key(EXTRA) {
        return list(config.remove(EXTRA)).unwrap_or(Vec::new());
    }
    let additional = list(config.remove(ADDITIONAL));
    match class {
        Some(Class::T5) => {
            let mut tokens = additional.unwrap_or(Vec::new());
            let has_some = tokens.iter().filter_map(content).any(|token| token.contains("<extra_id_"));
            let count = config.get("extra_ids").and_then(Value::as_u64).unwrap_or(100);
            if !has_some {
                tokens.extend((0..count).map(|n| json!(format!("<extra_id_{n}>"))));
            }
            tokens
        }
        Some(Class::Camembert) => {
            let unused = || ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"].map(|token| json!(token)).to_vec();
            additional.unwrap_or_else(unused)
        }
        _ => additional.unwrap_or(Vec::new()),
    }
}

/// A token as `AddedToken` of the tokenizers library has it: normalised unless special, if nothing else is said.
fn parsed(token: &Value, is_special: bool) -> AddedToken {
    let flag = |key: &str| token.get(key).and_then(Value::as_bool);
    let special = is_special || flag("special").unwrap_or(false);
    AddedToken {
        content: content(token).unwrap_or_default().to_owned(),
        single_word: flag("single_word").unwrap_or(false),
        lstrip: flag("lstrip").unwrap_or(false),
        rstrip: flag("rstrip").unwrap_or(false),
        normalized: flag("normalized").unwrap_or(!special),
        special,
    }
}
