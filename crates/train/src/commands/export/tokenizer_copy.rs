//! Copies the files of a tokenizer, and names its class and its limit.

use std::fs;
use std::path::Path;

use dualenc_data::TOKENIZER_FILES;
use serde_json::{Map, Value, json};

use crate::commands::export::json_files::{read_object, write_json};
use crate::commands::export::reference_limits::TOKENIZER_CLASSES;
use crate::error::TrainError;
use crate::models::load::LoadedModel;
use crate::run_dir::atomic_file::write_whole;

/// Copies the tokenizer of `loaded` to `dir`. `tokenizer_config.json` then names the class, that of the family where
/// the files name none, and the number of tokens to which the model cuts texts: transformers cuts to it with
/// `truncation=True`, and dualenc when it reads the directory. Both override the `truncation` of `tokenizer.json`,
/// which stays as it is. A tower with padded texts keeps its number, to which transformers pads.
///
/// # Errors
/// [`TrainError::Read`] or [`TrainError::Write`]; [`TrainError::Usage`] when `tokenizer_config.json` is malformed.
pub(crate) fn copy_tokenizer(loaded: &LoadedModel, dir: &Path) -> Result<(), TrainError> {
    for name in TOKENIZER_FILES {
        let source = loaded.text_dir.join(name);
        if source.is_file() {
            let bytes = fs::read(&source).map_err(TrainError::read(&source))?;
            write_whole(&dir.join(name), |file| file.write_all(&bytes))?;
        }
    }
    let path = dir.join("tokenizer_config.json");
    let before = if path.is_file() { read_object(&path)? } else { Map::new() };
    let mut config = before.clone();
    if !config.get("tokenizer_class").is_some_and(Value::is_string) {
        config.insert("tokenizer_class".to_owned(), json!(tokenizer_class(&loaded.text_config)));
    }
    if loaded.model.text_tower.config().pad_to.is_none() {
        config.insert("model_max_length".to_owned(), json!(loaded.tokenizer.max_tokens()));
    }
    if config == before { Ok(()) } else { write_json(&path, &Value::Object(config)) }
}

/// The tokenizer classes of text towers without a pooler (`TOKENIZER_MAPPING_NAMES` of transformers 5.23).
const MORE_CLASSES: [(&str, &str); 4] = [
    ("distilbert", "BertTokenizer"),
    ("electra", "BertTokenizer"),
    ("modernbert", "PreTrainedTokenizerFast"),
    ("deberta-v2", "DebertaV2Tokenizer"),
];

/// The class with which transformers loads a tokenizer if its own files name none. `tokenizer_config.json` has to name
/// it, because a VisionTextDualEncoder implies no class.
pub(crate) fn tokenizer_class(text_config: &Value) -> &str {
    let by_family = || {
        let family = text_config["model_type"].as_str();
        TOKENIZER_CLASSES
            .iter()
            .chain(&MORE_CLASSES)
            .find(|(model_type, _)| Some(*model_type) == family)
            .map(|(_, class)| *class)
    };
    text_config["tokenizer_class"].as_str().or_else(by_family).unwrap_or("PreTrainedTokenizerFast")
}
