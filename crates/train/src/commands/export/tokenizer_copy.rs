//! Copies the files of a tokenizer, and names its class.

use std::fs;
use std::path::Path;

use dualenc_data::TOKENIZER_FILES;
use serde_json::{Map, Value, json};

use crate::commands::export::json_files::{read_object, write_json};
use crate::commands::export::reference_limits::TOKENIZER_CLASSES;
use crate::error::TrainError;
use crate::run_dir::atomic_file::write_whole;

/// Copies the tokenizer in `source_dir` to `dir`. If its files name no class, the class of the family in `text_config`
/// is added.
///
/// # Errors
/// [`TrainError::Read`] or [`TrainError::Write`]; [`TrainError::Usage`] when `tokenizer_config.json` is malformed.
pub(crate) fn copy_tokenizer(source_dir: &Path, text_config: &Value, dir: &Path) -> Result<(), TrainError> {
    for name in TOKENIZER_FILES {
        let source = source_dir.join(name);
        if source.is_file() {
            let bytes = fs::read(&source).map_err(TrainError::read(&source))?;
            write_whole(&dir.join(name), |file| file.write_all(&bytes))?;
        }
    }
    let path = dir.join("tokenizer_config.json");
    let mut config = if path.is_file() { read_object(&path)? } else { Map::new() };
    if !config.get("tokenizer_class").is_some_and(Value::is_string) {
        config.insert("tokenizer_class".to_owned(), json!(tokenizer_class(text_config)));
        write_json(&path, &Value::Object(config))?;
    }
    Ok(())
}

/// The tokenizer classes of text towers without a pooler (`TOKENIZER_MAPPING_NAMES` of transformers 5.23).
const MORE_CLASSES: [(&str, &str); 4] = [
    ("distilbert", "BertTokenizer"),
    ("electra", "BertTokenizer"),
    ("modernbert", "PreTrainedTokenizerFast"),
    ("deberta-v2", "DebertaV2Tokenizer"),
];

/// The class with which transformers loads a tokenizer whose own files name none. `tokenizer_config.json` has to name
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
