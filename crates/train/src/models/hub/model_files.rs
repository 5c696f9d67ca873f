//! Names of the files of a tower, and what they say about its other files.

use std::path::Path;

use dualenc_data::TOKENIZER_FILES;
use dualenc_model::{ModelError, shard_names};
use serde_json::Value;

use crate::config::tower_reference::is_plain_name;
use crate::models::hub::error::HubError;

/// The file that makes a directory a Hugging Face model.
pub(crate) const CONFIG: &str = "config.json";

/// The list of the parts of a sentence-transformers model.
pub(crate) const MODULES: &str = "modules.json";

/// The settings of a sentence-transformers model, its prompts among them.
pub(crate) const SENTENCE_CONFIG: &str = "config_sentence_transformers.json";

/// open_clip's config and weights, beside a `config.json` that is timm's or unknown.
pub(crate) const OPEN_CLIP: [&str; 2] = ["open_clip_config.json", "open_clip_model.safetensors"];

/// All weights in one file.
pub(crate) const WEIGHTS: &str = "model.safetensors";

/// The index of weights that are split into several files.
pub(crate) const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// The directory of a sentence-transformers pooling, unless `modules.json` names another one.
const POOLING_DIR: &str = "1_Pooling";

/// A vocabulary that only transformers reads. The reader of tokenizers refuses it, so it is not downloaded.
const SENTENCEPIECE: &str = "sentencepiece.bpe.model";

/// The files of the image processor.
const IMAGE_PROCESSOR_FILES: [&str; 2] = ["preprocessor_config.json", "processor_config.json"];

/// Files that a tower may lack: the image processor, the tokenizer and the parts of sentence-transformers.
pub(crate) fn optional_files() -> impl Iterator<Item = &'static str> {
    let tokenizer = TOKENIZER_FILES.into_iter().filter(|file| *file != SENTENCEPIECE);
    IMAGE_PROCESSOR_FILES.into_iter().chain(tokenizer).chain([MODULES, SENTENCE_CONFIG])
}

/// The files that an index of split weights lists, each once.
///
/// # Errors
/// [`HubError::Cache`] when the index cannot be read, [`HubError::Index`] when it is malformed.
pub(crate) fn shards(index: &Path) -> Result<Vec<String>, HubError> {
    let error = |reason: String| HubError::Index { path: index.to_owned(), reason };
    let shards = shard_names(index).map_err(|cause| match cause {
        ModelError::Read { path, source } => HubError::Cache { path, source },
        ModelError::Config { problem, .. } => error(problem),
        other => error(other.to_string()),
    })?;
    if let Some(shard) = shards.iter().find(|shard| !is_plain_name(shard)) {
        return Err(error(format!("it lists {shard:?}, which is not a plain file name")));
    }
    Ok(shards)
}

/// Whether a `config.json` names a model of transformers.
pub(crate) fn names_model_type(config: &Path) -> bool {
    let bytes = std::fs::read(config).unwrap_or_default();
    serde_json::from_slice::<Value>(&bytes).is_ok_and(|config| config["model_type"].is_string())
}

/// The files of the `Dense` layers that a `modules.json` lists.
pub(crate) fn dense_files(modules: &Path) -> Vec<String> {
    let modules = std::fs::read(modules).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let modules: Vec<Value> = modules.unwrap_or_default();
    let is_dense = |module: &&Value| module["type"].as_str().is_some_and(|kind| kind.ends_with(".Dense"));
    let dirs = modules.iter().filter(is_dense).filter_map(|module| module["path"].as_str());
    dirs.filter(|dir| is_plain_name(dir))
        .flat_map(|dir| [CONFIG, WEIGHTS].map(|file| format!("{dir}/{file}")))
        .collect()
}

/// The directory of the pooling that a `modules.json` names, or the usual one.
pub(crate) fn pooling_dir(modules: &Path) -> String {
    let modules = std::fs::read(modules).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let modules: Vec<Value> = modules.unwrap_or_default();
    let is_pooling = |module: &&Value| module["type"].as_str().is_some_and(|kind| kind.ends_with(".Pooling"));
    let dir = modules.iter().find(is_pooling).and_then(|module| module["path"].as_str());
    dir.filter(|dir| is_plain_name(dir)).unwrap_or(POOLING_DIR).to_owned()
}
