//! The pooling of a sentence-transformers directory, which its text tower was trained with, and the layers after it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::ModelError;
use crate::foreign_file::parse_json;
use crate::pooling::Pooling;
use crate::text::dense::{DenseActivation, DenseConfig};
use crate::weights::weight_files::WeightFiles;

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

/// The activation of a `Dense` layer that names none (`Dense.__init__` of sentence-transformers 6.2).
const DEFAULT_ACTIVATION: &str = "torch.nn.modules.activation.Tanh";

/// Largest width of a `Dense` layer, so that a damaged config cannot ask for memory without bound.
const MAX_WIDTH: u64 = 1 << 24;

/// The pooling of the sentence-transformers model in `dir`; `None` if there is none.
///
/// # Errors
/// [`ModelError::Read`] if a file cannot be read; [`ModelError::Config`] if one is malformed, or the pooling is not
/// supported.
pub fn sentence_pooling(dir: &Path) -> Result<Option<Pooling>, ModelError> {
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

/// A `Dense` layer after the pooling.
pub(crate) struct DenseModule {
    pub dir: PathBuf,
    pub config: DenseConfig,
}

impl DenseModule {
    /// Its weights. Values are read when they are needed.
    ///
    /// # Errors
    /// [`ModelError::Config`] if it has none in safetensors; [`ModelError::Read`] or [`ModelError::Weights`].
    pub fn weights(&self) -> Result<WeightFiles, ModelError> {
        let path = self.dir.join("model.safetensors");
        if path.is_file() {
            return WeightFiles::open_file(&path);
        }
        Err(ModelError::Config {
            path: self.dir.join("config.json"),
            problem:
                "there is no `model.safetensors` beside it, and other weights cannot be read; save the model again \
                      with a current sentence-transformers, or set `text_pool` to \"mean\" or \"cls\" to leave the \
                      layer out"
                    .to_owned(),
        })
    }
}

/// The `Dense` layers of the sentence-transformers model in `dir` that follow its pooling directly.
///
/// # Errors
/// [`ModelError::Read`] if a file cannot be read; [`ModelError::Config`] if one is malformed or not supported.
pub(crate) fn dense_modules(dir: &Path) -> Result<Vec<DenseModule>, ModelError> {
    let modules = modules_of(dir)?;
    let after_pooling = modules.iter().skip_while(|(kind, _)| kind != "Pooling").skip(1);
    // Dropout does nothing to a trained model.
    let dense = after_pooling.take_while(|(kind, _)| kind == "Dense" || kind == "Dropout");
    let dense = dense.filter(|(kind, _)| kind == "Dense");
    dense.map(|(_, path)| dense_module(dir.join(path))).collect()
}

fn dense_module(dir: PathBuf) -> Result<DenseModule, ModelError> {
    let path = dir.join("config.json");
    let problem = |problem: String| ModelError::Config { path: path.clone(), problem };
    let advice = "set `text_pool` to \"mean\" or \"cls\" to leave the layer out";
    let config = read_json(&path)?.ok_or_else(|| {
        problem(format!("`modules.json` lists this `Dense` layer, but its config is missing; add it, or {advice}"))
    })?;
    let width = |key: &str| {
        let width = config[key].as_u64().filter(|width| (1..=MAX_WIDTH).contains(width));
        let width = width.and_then(|width| usize::try_from(width).ok());
        width.ok_or_else(|| problem(format!("`{key}` is {}; expected the width of a layer", config[key])))
    };
    let class = config["activation_function"].as_str().unwrap_or(DEFAULT_ACTIVATION);
    let activation = DenseActivation::of_class(class)
        .ok_or_else(|| problem(format!("`activation_function` is `{class}`, which is not supported; {advice}")))?;
    let name = |key: &str| config[key].as_str().unwrap_or("sentence_embedding");
    if [name("module_input_name"), name("module_output_name")] != ["sentence_embedding"; 2] {
        return Err(problem(format!(
            "it does not map `sentence_embedding` to itself, which is not supported; {advice}"
        )));
    }
    if config["use_residual"].as_bool() == Some(true) {
        return Err(problem(format!("`use_residual` is true, which is not supported; {advice}")));
    }
    let bias = config["bias"].as_bool().unwrap_or(true);
    let config = DenseConfig { input: width("in_features")?, output: width("out_features")?, bias, activation };
    Ok(DenseModule { dir, config })
}

/// The kind and the directory of each module in `dir`; none without `modules.json`.
fn modules_of(dir: &Path) -> Result<Vec<(String, String)>, ModelError> {
    let modules = read_json(&dir.join("modules.json"))?;
    let modules = modules.as_ref().and_then(Value::as_array).into_iter().flatten();
    let module = |module: &Value| {
        let kind = module["type"].as_str().unwrap_or_default();
        let kind = kind.rsplit('.').next().unwrap_or(kind).to_owned();
        (kind, module["path"].as_str().unwrap_or_default().to_owned())
    };
    Ok(modules.map(module).collect())
}

/// The modules of the sentence-transformers model in `dir` that a tower leaves out, each with what that means.
/// `reads_dense`: the tower has the `Dense` layers that follow the pooling.
///
/// # Errors
/// As [`sentence_pooling`].
pub(crate) fn left_out_modules(dir: &Path, reads_dense: bool) -> Result<Vec<String>, ModelError> {
    let mut notes = Vec::new();
    let mut follows_pooling = false;
    for (kind, path) in modules_of(dir)? {
        follows_pooling = kind == "Pooling" || follows_pooling && (kind == "Dense" || kind == "Dropout");
        let is_read_dense = reads_dense && follows_pooling && kind != "Pooling";
        if READ_MODULES.contains(&kind.as_str()) || is_read_dense {
            continue;
        }
        let config = read_json(&dir.join(&path).join("config.json"))?.unwrap_or_default();
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
