//! The pooling of a sentence-transformers directory, which its text tower was trained with.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::error::ModelError;
use crate::foreign_file::parse_json;
use crate::pooling::Pooling;

/// The directory of the pooling module, if `modules.json` does not name one.
const DEFAULT_DIR: &str = "1_Pooling";

/// The modes of pooling, and the suffix of the flag that older configs select each by: `pooling_mode` is `mean`, or
/// `pooling_mode_mean_tokens` is true.
const MODES: [(&str, &str); 6] = [
    ("cls", "cls_token"),
    ("mean", "mean_tokens"),
    ("max", "max_tokens"),
    ("mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("weightedmean", "weightedmean_tokens"),
    ("lasttoken", "lasttoken"),
];

/// The pooling of the sentence-transformers model in `dir`; `None` if there is none.
///
/// # Errors
/// [`ModelError::Read`] if a file cannot be read; [`ModelError::Config`] if one is malformed, or the pooling is not
/// supported.
pub(crate) fn sentence_pooling(dir: &Path) -> Result<Option<Pooling>, ModelError> {
    let modules = read_json(&dir.join("modules.json"))?;
    let module = modules.as_ref().and_then(Value::as_array).and_then(|modules| {
        let is_pooling = |module: &&Value| module["type"].as_str().is_some_and(|kind| kind.ends_with(".Pooling"));
        modules.iter().find(is_pooling)?["path"].as_str()
    });
    let path = dir.join(module.unwrap_or(DEFAULT_DIR)).join("config.json");
    let Some(config) = read_json(&path)? else { return Ok(None) };
    match modes_of(&config).as_slice() {
        ["cls"] => Ok(Some(Pooling::Cls)),
        ["mean"] => Ok(Some(Pooling::Mean)),
        ["lasttoken"] => Ok(Some(Pooling::Last)),
        other => Err(ModelError::Config {
            path,
            problem: format!(
                "the pooling is `{}`; supported: cls, mean, lasttoken. Set `text_pool` to \"cls\", \"mean\" or \
                 \"last\" to override it",
                other.join(" + ")
            ),
        }),
    }
}

/// Kinds of modules that lose nothing when they are left out: the transformer and its pooling are read, and dual
/// encoders normalise their embeddings.
const READ_MODULES: [&str; 4] = ["Transformer", "Pooling", "Normalize", "CLIPModel"];

/// The modules of the sentence-transformers model in `dir` that a tower leaves out, each with what that means.
///
/// # Errors
/// As [`sentence_pooling`].
pub(crate) fn left_out_modules(dir: &Path) -> Result<Vec<String>, ModelError> {
    let modules = read_json(&dir.join("modules.json"))?;
    let mut notes = Vec::new();
    for module in modules.as_ref().and_then(Value::as_array).into_iter().flatten() {
        let kind = module["type"].as_str().unwrap_or_default();
        let kind = kind.rsplit('.').next().unwrap_or(kind);
        if READ_MODULES.contains(&kind) {
            continue;
        }
        let path = module["path"].as_str().unwrap_or_default();
        let config = read_json(&dir.join(path).join("config.json"))?.unwrap_or_default();
        let size = match (config["in_features"].as_u64(), config["out_features"].as_u64()) {
            (Some(input), Some(output)) => format!(" from {input} to {output} values"),
            _ => String::new(),
        };
        notes.push(format!(
            "`{path}` of sentence-transformers, a `{kind}` layer{size}, is left out: the tower ends with its pooling, \
             and its outputs are not those of `SentenceTransformer.encode`; training learns a projection in its place"
        ));
    }
    Ok(notes)
}

/// The modes of pooling that `config` enables.
fn modes_of(config: &Value) -> Vec<&str> {
    match &config["pooling_mode"] {
        Value::String(mode) => vec![mode],
        Value::Array(modes) => modes.iter().filter_map(Value::as_str).collect(),
        _ => {
            let is_enabled =
                |(_, suffix): &&(&str, &str)| config[format!("pooling_mode_{suffix}")] == Value::Bool(true);
            MODES.iter().filter(is_enabled).map(|(mode, _)| *mode).collect()
        }
    }
}

/// Reads a JSON file; `None` if it does not exist.
fn read_json(path: &Path) -> Result<Option<Value>, ModelError> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
    parse_json(path, &bytes).map(Some)
}
