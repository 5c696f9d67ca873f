//! The classes of transformers 5.23 that build their tokenizer anew from the vocabulary in `tokenizer.json` and the
//! settings beside it, instead of taking the file as it is (`convert_to_native_format` of
//! `tokenization_utils_tokenizers.py`, and `tokenization_*.py` of each model).
//!
//! - this file: which of them a directory names
//! - `rules`: what each of them builds
//! - `special_tokens`: the tokens that a class adds to the vocabulary

pub(crate) mod rules;
mod special_tokens;

use serde_json::{Value, json};

use crate::text::tokenizer_settings::Settings;

/// The keys of special tokens with a role, in the order in which they are added.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A class that builds its tokenizer anew. Subclasses and aliases that build the same are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Bert,
    Mpnet,
    Roberta,
    Gpt2,
    XlmRoberta,
    Camembert,
    Albert,
    DebertaV2,
    Clip,
    T5,
    Qwen2,
    Gemma,
    Llama,
}

/// The class that `AutoTokenizer` chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice<'a> {
    /// A class that builds its tokenizer anew.
    Anew(Class),
    /// One that takes `tokenizer.json` as it is.
    AsItIs,
    /// A class of this name, which dualenc does not know.
    Unknown(&'a str),
}

/// Classes that take `tokenizer.json` as it is, without their suffix `Fast`; and those of SigLIP, with a cleaning of
/// their own (`Settings::apply`).
const AS_IT_IS: [&str; 6] = [
    "TokenizersBackend",
    "PreTrainedTokenizer",
    "PythonBackend",
    "MistralCommonBackend",
    "SiglipTokenizer",
    "Siglip2Tokenizer",
];

impl<'a> Choice<'a> {
    /// The choice of `AutoTokenizer.from_pretrained` (`tokenization_auto.py`). `byte_level`: whether `tokenizer.json`
    /// says so.
    pub(crate) fn of(settings: &'a Settings, byte_level: bool) -> Self {
        let registered = settings.whole_model_type().and_then(Self::registered);
        let Some(named) = settings.class() else { return registered.unwrap_or(Self::AsItIs) };
        let is_remote = settings.get("auto_map").is_some();
        // `MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS`, as far as dualenc reads their towers.
        let overrules = matches!(settings.whole_model_type(), Some("qwen2" | "siglip2" | "modernbert"));
        match registered {
            _ if !is_remote && !overrules && named == "LlamaTokenizer" && byte_level => Self::AsItIs,
            Some(Self::AsItIs) if !is_remote => Self::AsItIs,
            Some(chosen) if !is_remote && overrules => chosen,
            _ => Self::named(named),
        }
    }

    fn named(name: &'a str) -> Self {
        match Class::named(name) {
            Some(class) => Self::Anew(class),
            None if AS_IT_IS.contains(&name) => Self::AsItIs,
            None => Self::Unknown(name),
        }
    }

    /// `TOKENIZER_MAPPING_NAMES`, as far as dualenc reads these models.
    fn registered(model_type: &str) -> Option<Self> {
        let class = match model_type {
            "bert" | "distilbert" | "electra" | "chinese_clip" | "convbert" | "ernie" | "nomic_bert" => Class::Bert,
            "mpnet" => Class::Mpnet,
            "roberta" | "roberta-prelayernorm" | "data2vec-text" => Class::Roberta,
            "gpt2" => Class::Gpt2,
            "xlm-roberta" | "gte" | "xmod" => Class::XlmRoberta,
            "camembert" => Class::Camembert,
            "albert" => Class::Albert,
            "deberta-v2" => Class::DebertaV2,
            "clip" => Class::Clip,
            "t5" | "mt5" => Class::T5,
            "qwen2" | "qwen3" => Class::Qwen2,
            "gemma" | "gemma2" | "gemma3" | "gemma3_text" => Class::Gemma,
            "modernbert" | "mistral" | "umt5" | "xlm-roberta-xl" | "siglip2" => return Some(Self::AsItIs),
            _ => return None,
        };
        Some(Self::Anew(class))
    }
}

impl Class {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer" | "ConvBertTokenizer" => Self::Bert,
            "MPNetTokenizer" => Self::Mpnet,
            "RobertaTokenizer" | "BartTokenizer" => Self::Roberta,
            "GPT2Tokenizer" => Self::Gpt2,
            "XLMRobertaTokenizer" => Self::XlmRoberta,
            "CamembertTokenizer" => Self::Camembert,
            "AlbertTokenizer" => Self::Albert,
            "DebertaV2Tokenizer" => Self::DebertaV2,
            "CLIPTokenizer" => Self::Clip,
            "T5Tokenizer" => Self::T5,
            "Qwen2Tokenizer" => Self::Qwen2,
            "GemmaTokenizer" => Self::Gemma,
            "LlamaTokenizer" => Self::Llama,
            _ => return None,
        })
    }

    /// The name in transformers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bert => "BertTokenizer",
            Self::Mpnet => "MPNetTokenizer",
            Self::Roberta => "RobertaTokenizer",
            Self::Gpt2 => "GPT2Tokenizer",
            Self::XlmRoberta => "XLMRobertaTokenizer",
            Self::Camembert => "CamembertTokenizer",
            Self::Albert => "AlbertTokenizer",
            Self::DebertaV2 => "DebertaV2Tokenizer",
            Self::Clip => "CLIPTokenizer",
            Self::T5 => "T5Tokenizer",
            Self::Qwen2 => "Qwen2Tokenizer",
            Self::Gemma => "GemmaTokenizer",
            Self::Llama => "LlamaTokenizer",
        }
    }

    /// The special tokens in the parameters of its constructor, by key; `null` for a parameter that is `None`.
    pub(crate) fn special_tokens(self) -> Vec<(&'static str, Value)> {
        const END: &str = "<|endoftext|>";
        // In the order of `NAMED`; empty for a parameter that the class has not.
        let tokens: [&str; 7] = match self {
            Self::Bert => ["", "", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"],
            Self::Mpnet => ["<s>", "</s>", "[UNK]", "</s>", "<pad>", "<s>", "<mask>"],
            Self::Roberta | Self::XlmRoberta | Self::Camembert => {
                ["<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"]
            }
            Self::Albert => ["[CLS]", "[SEP]", "<unk>", "[SEP]", "<pad>", "[CLS]", "[MASK]"],
            Self::DebertaV2 => ["[CLS]", "[SEP]", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"],
            Self::Clip => ["<|startoftext|>", END, END, "", END, "", ""],
            Self::T5 => ["", "</s>", "<unk>", "", "<pad>", "", ""],
            Self::Qwen2 => ["", END, END, "", END, "", ""],
            Self::Gpt2 => [END, END, END, "", "", "", ""],
            Self::Gemma => ["<bos>", "<eos>", "<unk>", "", "<pad>", "", "<mask>"],
            Self::Llama => ["<s>", "</s>", "<unk>", "", "", "", ""],
        };
        let given = NAMED.into_iter().zip(tokens).filter(|(_, token)| !token.is_empty());
        let given = given.map(|(key, token)| (key, json!(token)));
        let none = match self {
            Self::Gpt2 => Some(("pad_token", Value::Null)),
            Self::Qwen2 => Some(("bos_token", Value::Null)),
            _ => None,
        };
        given.chain(none).collect()
    }

    /// Whether a mask token that is only a string takes the space before it.
    pub(crate) const fn mask_takes_space(self) -> bool {
        matches!(self, Self::Mpnet | Self::Camembert)
    }
}
