//! The prompt that is put before every text: what the config says, by itself or by a name that the text tower's
//! directory knows, or what an exported model recorded.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::config::ModelSection;
use crate::error::TrainError;
use crate::models::hub::model_files::{MODULES, SENTENCE_CONFIG, pooling_dir};

/// The key of `config.json` in which an exported model records its prompt. Transformers ignores it.
pub(crate) const RECORDED: &str = "text_prompt";

/// What `config_sentence_transformers.json` says of prompts.
#[derive(Debug, Default, Deserialize)]
struct SentencePrompts {
    #[serde(default)]
    prompts: BTreeMap<String, Option<String>>,
    default_prompt_name: Option<String>,
}

/// The prompt of the run that `model` configures, with its text tower in `dir`: what `model` asks for, or else what the
/// exported model that the run starts from was trained with.
///
/// # Errors
/// As [`asked_prompt`] and [`recorded_prompt`].
pub(crate) fn prompt_of(model: &ModelSection, dir: &Path) -> Result<Option<String>, TrainError> {
    match asked_prompt(model, dir)? {
        None if model.init.is_some() => recorded_prompt(dir),
        prompt => Ok(prompt),
    }
}

/// The prompt that `model` asks for, with names from the text tower's `dir`; `None` if it asks for none.
///
/// # Errors
/// [`TrainError::Usage`] when `dir` knows no prompt of that name; [`TrainError::Read`] when its file cannot be read.
pub(crate) fn asked_prompt(model: &ModelSection, dir: &Path) -> Result<Option<String>, TrainError> {
    let Some(name) = &model.text_prompt_name else { return Ok(model.text_prompt.clone()) };
    let path = dir.join(SENTENCE_CONFIG);
    let SentencePrompts { prompts, .. } = sentence_prompts(dir)?.unwrap_or_default();
    match prompts.get(name).cloned().flatten() {
        Some(prompt) => Ok(Some(prompt)),
        None => {
            let known: Vec<String> = prompts.keys().map(|name| format!("`{name}`")).collect();
            let known = if known.is_empty() { "no prompt".to_owned() } else { known.join(", ") };
            Err(TrainError::Usage(format!(
                "`model.text_prompt_name` is `{name}`, but `{}` has {known}; name one of these, or set \
                 `model.text_prompt` to the prompt itself",
                path.display()
            )))
        }
    }
}

/// The prompt that an exported model in `dir` was trained with.
///
/// # Errors
/// [`TrainError::Usage`] when its `config.json` is malformed, or records one that is no string; [`TrainError::Read`]
/// when it cannot be read.
pub(crate) fn recorded_prompt(dir: &Path) -> Result<Option<String>, TrainError> {
    let path = dir.join("config.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        // A directory of open_clip has none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TrainError::read(&path)(error)),
    };
    let config: Value = serde_json::from_slice(&bytes)
        .map_err(|error| TrainError::Usage(format!("`{}` is malformed: {error}", path.display())))?;
    match &config[RECORDED] {
        Value::Null => Ok(None),
        Value::String(prompt) => Ok(Some(prompt.clone())),
        other => {
            Err(TrainError::Usage(format!("`{}` has the `{RECORDED}` `{other}`; expected a string", path.display())))
        }
    }
}

/// What sentence-transformers would put before texts by default, if anything, as a note; for a tower without a prompt.
///
/// # Errors
/// As [`asked_prompt`].
pub(crate) fn unused_default_prompt(dir: &Path) -> Result<Option<String>, TrainError> {
    let Some(found) = sentence_prompts(dir)? else { return Ok(None) };
    let name = found.default_prompt_name.as_ref();
    let prompt = name.and_then(|name| Some((name, found.prompts.get(name)?.as_ref()?)));
    Ok(prompt.filter(|(_, prompt)| !prompt.is_empty()).map(|(name, prompt)| {
        format!(
            "sentence-transformers puts the prompt {prompt:?} before texts by default, dualenc only with \
             `model.text_prompt_name = \"{name}\"`"
        )
    }))
}

/// Whether the sentence-transformers model in `dir` pools without the tokens of its prompt (`include_prompt`), which
/// dualenc never does.
pub(crate) fn pools_without_prompt(dir: &Path) -> bool {
    let path = dir.join(pooling_dir(&dir.join(MODULES))).join("config.json");
    let config: Value = fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    config["include_prompt"] == Value::Bool(false)
}

/// What `dir` says of prompts; `None` if it is not of sentence-transformers.
fn sentence_prompts(dir: &Path) -> Result<Option<SentencePrompts>, TrainError> {
    let path = dir.join(SENTENCE_CONFIG);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TrainError::read(&path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| TrainError::Usage(format!("`{}` is malformed: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(keys: &str) -> ModelSection {
        toml::from_str(keys).unwrap()
    }

    fn dir(config: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(SENTENCE_CONFIG), config).unwrap();
        dir
    }

    #[test]
    fn named_prompts_come_from_the_directory() {
        let found = dir(r#"{"prompts": {"query": "query: ", "document": null}, "default_prompt_name": "query"}"#);
        let asked = |keys: &str| asked_prompt(&section(keys), found.path());
        assert_eq!(asked("").unwrap(), None);
        assert_eq!(asked(r#"text_prompt = "a: ""#).unwrap(), Some("a: ".to_owned()));
        assert_eq!(asked(r#"text_prompt_name = "query""#).unwrap(), Some("query: ".to_owned()));
        for name in ["passage", "document"] {
            let message = asked(&format!("text_prompt_name = \"{name}\"")).unwrap_err().to_string();
            assert!(message.contains("has `document`, `query`; name one of these"), "{message}");
        }
        let empty = tempfile::tempdir().unwrap();
        let message = asked_prompt(&section(r#"text_prompt_name = "query""#), empty.path()).unwrap_err().to_string();
        assert!(message.contains("has no prompt"), "{message}");
    }

    #[test]
    fn default_prompt_is_only_noted() {
        let found = dir(r#"{"prompts": {"query": "query: "}, "default_prompt_name": "query"}"#);
        let note = unused_default_prompt(found.path()).unwrap().unwrap();
        assert!(note.contains(r#"the prompt "query: ""#) && note.contains(r#"text_prompt_name = "query""#), "{note}");
        for config in [
            r#"{"prompts": {"query": "query: "}, "default_prompt_name": null}"#,
            r#"{"prompts": {"query": ""}, "default_prompt_name": "query"}"#,
            "{}",
        ] {
            assert_eq!(unused_default_prompt(dir(config).path()).unwrap(), None, "{config}");
        }
        assert!(unused_default_prompt(dir("[").path()).unwrap_err().to_string().contains("is malformed"));
    }

    #[test]
    fn pooling_without_prompt_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!pools_without_prompt(dir.path()));
        fs::create_dir(dir.path().join("1_Pooling")).unwrap();
        for (config, expected) in
            [("{}", false), (r#"{"include_prompt": true}"#, false), (r#"{"include_prompt": false}"#, true)]
        {
            fs::write(dir.path().join("1_Pooling/config.json"), config).unwrap();
            assert_eq!(pools_without_prompt(dir.path()), expected, "{config}");
        }
    }

    #[test]
    fn recorded_prompt_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(recorded_prompt(dir.path()).unwrap(), None);
        fs::write(dir.path().join("config.json"), r#"{"text_prompt": "query: "}"#).unwrap();
        assert_eq!(recorded_prompt(dir.path()).unwrap(), Some("query: ".to_owned()));
        fs::write(dir.path().join("config.json"), r#"{"text_prompt": 1}"#).unwrap();
        assert!(recorded_prompt(dir.path()).unwrap_err().to_string().contains("expected a string"));
    }
}
