//! The pooling of a sentence-transformers directory, which says how its text tower was trained.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::ModelError;
use crate::pooling::Pooling;

/// Where sentence-transformers keeps the pooling if `modules.json` names no other place.
const USUAL_PLACE: &str = "1_Pooling";

/// Kinds of pooling in the config, each by the suffixes it has had: `pooling_mode_mean_tokens` is true, or `pooling_mode` is
/// `mean`.
const KINDS: [(&str, &str); 6] = [
    ("cls", "cls_token"),
    ("mean", "mean_tokens"),
    ("max", "max_tokens"),
    ("mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("weightedmean", "weightedmean_tokens"),
    ("lasttoken", "lasttoken"),
];

/// How the sentence-transformers model in `dir` pools; `None` where there is none.
///
/// # Errors
/// When a file of it is malformed, or it pools in a way that no text tower here does.
pub(crate) fn sentence_pooling(dir: &Path) -> Result<Option<Pooling>, ModelError> {
    let modules = read(&dir.join("modules.json"))?;
    let module = modules.as_ref().and_then(Value::as_array).and_then(|modules| {
        let is_pooling = |module: &&Value| module["type"].as_str().is_some_and(|kind| kind.ends_with(".Pooling"));
        modules.iter().find(is_pooling)?["path"].as_str()
    });
    let path = dir.join(module.unwrap_or(USUAL_PLACE)).join("config.json");
    let Some(config) = read(&path)? else { return Ok(None) };
    match kinds_of(&config).as_slice() {
        ["cls"] => Ok(Some(Pooling::Cls)),
        ["mean"] => Ok(Some(Pooling::Mean)),
        other => Err(ModelError::Config {
            path,
            problem: format!(
                "the pooling is `{}`; supported: cls, mean. Set `text_pool = \"cls\"` or \"mean\" to pool otherwise",
                other.join(" + ")
            ),
        }),
    }
}

/// The kinds of pooling that `config` turns on.
fn kinds_of(config: &Value) -> Vec<&str> {
    match &config["pooling_mode"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => {
            let is_on = |(_, suffix): &&(&str, &str)| config[format!("pooling_mode_{suffix}")] == Value::Bool(true);
            KINDS.iter().filter(is_on).map(|(kind, _)| *kind).collect()
        }
    }
}

/// A JSON file; `None` where there is none.
fn read(path: &PathBuf) -> Result<Option<Value>, ModelError> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| ModelError::Config { path: path.clone(), problem: format!("not JSON: {error}") })
}
