//! What a directory holds that lacks weights or a config, and the way from there to a directory that can be loaded.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::foreign_file::CONVERT_PICKLE;
use crate::weights::file_names::{INDEX, SINGLE};

/// Extensions of PyTorch's own files.
const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// Pickles that are not weights: trainers of transformers write them beside the weights.
const NO_WEIGHTS: [&str; 3] = ["training_args.bin", "optimizer.pt", "scheduler.pt"];

/// Config and weights of open_clip.
const OPEN_CLIP: [&str; 2] = ["open_clip_config.json", "open_clip_model.safetensors"];

/// How deep a tower is looked for: `snapshots/COMMIT` in the cache of the hub.
const MAX_DEPTH: usize = 2;

/// Directories that are looked into.
const MAX_DIRS: usize = 200;

/// Names that a message lists.
const MAX_LISTED: usize = 5;

/// What `dir` holds instead of weights or of a config, and what to do, starting with `; `. Empty if nothing is known.
pub fn directory_hint(dir: &Path) -> String {
    let names = file_names(dir);
    let found = adapter(dir, &names)
        .or_else(|| tower_below(dir))
        .or_else(|| variant(&names))
        .or_else(|| shards_without_index(&names))
        .or_else(|| pickle(&names))
        .or_else(|| other_format(&names))
        .or_else(|| other_safetensors(&names));
    found.map_or(String::new(), |found| format!("; {found}"))
}

/// The names of the files in `dir`, sorted.
fn file_names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn extension(name: &str) -> &str {
    Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or("")
}

fn adapter(dir: &Path, names: &[String]) -> Option<String> {
    names.iter().find(|name| *name == "adapter_config.json")?;
    let config: Option<Value> =
        fs::read(dir.join("adapter_config.json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let base = config.as_ref().and_then(|config| config["base_model_name_or_path"].as_str());
    let of = base.map_or(String::new(), |base| format!(" of `{base}`"));
    Some(format!(
        "it holds a PEFT adapter{of} (`adapter_config.json`), which is no model by itself; merge it into its base \
         model first: `PeftModel.from_pretrained(BASE, DIR).merge_and_unload().save_pretrained(OUT)`"
    ))
}

/// The tower or the towers in the sub-folders of `dir`.
fn tower_below(dir: &Path) -> Option<String> {
    let mut towers = Vec::new();
    collect_towers(dir, MAX_DEPTH, &mut 0, &mut towers);
    towers.sort();
    let shown = |path: &PathBuf| format!("`{}`", path.display());
    match towers.as_slice() {
        [] => None,
        [tower] => {
            let pooling = dir.join("1_Pooling/config.json").is_file() && !tower.join("1_Pooling").exists();
            let pooling = if pooling { ", and set `text_pool` to what `1_Pooling/config.json` says" } else { "" };
            Some(format!("the model is in its sub-folder: give {}{pooling}", shown(tower)))
        }
        first => {
            let more = first.len().saturating_sub(MAX_LISTED);
            let first: Vec<String> = first.iter().take(MAX_LISTED).map(shown).collect();
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            Some(format!("models are in its sub-folders: give one of {}{more}", first.join(", ")))
        }
    }
}

fn collect_towers(dir: &Path, depth: usize, looked_into: &mut usize, towers: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    for folder in folders {
        *looked_into += 1;
        if *looked_into > MAX_DIRS {
            return;
        }
        if is_tower(&folder) {
            towers.push(folder);
        } else if depth > 1 {
            collect_towers(&folder, depth - 1, looked_into, towers);
        }
    }
}

/// Whether `dir` looks like a model of transformers or open_clip, with weights that are read.
fn is_tower(dir: &Path) -> bool {
    let config: Option<Value> =
        fs::read(dir.join("config.json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let has_type = config.is_some_and(|config| config["model_type"].is_string());
    let is_file = |name: &str| dir.join(name).is_file();
    (has_type && (is_file(SINGLE) || is_file(INDEX))) || OPEN_CLIP.into_iter().all(is_file)
}

/// `model.fp16.safetensors`, which transformers loads with `variant="fp16"`.
fn variant(names: &[String]) -> Option<String> {
    let is_variant = |name: &&String| {
        let middle = name.strip_prefix("model.").and_then(|rest| {
            rest.strip_suffix(".safetensors").or_else(|| Some(rest.strip_suffix(".json")?.split_once("index.")?.1))
        });
        middle.is_some_and(|middle| !middle.is_empty() && !middle.contains(['.', '-']))
    };
    let found = names.iter().find(is_variant)?;
    let (to, shards) = match extension(found) {
        "json" => (INDEX, ", whose shards may stay as they are"),
        _ => (SINGLE, ""),
    };
    Some(format!("`{found}` is a variant of the weights: rename it to `{to}`{shards}"))
}

fn shards_without_index(names: &[String]) -> Option<String> {
    let shard = names.iter().find(|name| name.ends_with(".safetensors") && name.contains("-of-"))?;
    Some(format!("`{shard}` is one of several shards, whose index `{INDEX}` is missing: fetch that too"))
}

fn pickle(names: &[String]) -> Option<String> {
    let is_pickle = |name: &&String| PICKLES.contains(&extension(name)) && !NO_WEIGHTS.contains(&name.as_str());
    let found = names.iter().find(is_pickle)?;
    Some(format!("`{found}` is a pickle, {CONVERT_PICKLE}"))
}

/// Weights of other libraries.
fn other_format(names: &[String]) -> Option<String> {
    let convert = |flag: &str| {
        format!(
            "convert it once with transformers 4, which still reads it: `AutoModel.from_pretrained(DIR, {flag}=True)\
             .save_pretrained(DIR)`"
        )
    };
    names.iter().find_map(|name| {
        let (what, advice) = match extension(name) {
            "msgpack" => ("weights of Flax", convert("from_flax")),
            "h5" => ("weights of TensorFlow", convert("from_tf")),
            "gguf" => ("weights of llama.cpp", "get the safetensors weights they were made from".to_owned()),
            "onnx" => ("an ONNX graph", "get the safetensors weights it was made from".to_owned()),
            "npz" => ("weights of JAX or NumPy", "get the same model as transformers publishes it".to_owned()),
            _ => return None,
        };
        Some(format!("`{name}` has {what}, which are not read: {advice}"))
    })
}

/// Weights under another name, such as `diffusion_pytorch_model.safetensors`.
fn other_safetensors(names: &[String]) -> Option<String> {
    let others: Vec<&String> = names.iter().filter(|name| name.ends_with(".safetensors") && *name != SINGLE).collect();
    match others.as_slice() {
        [] => None,
        [name] => Some(format!("if `{name}` has the weights of this model, rename it to `{SINGLE}`")),
        [name, ..] => Some(format!(
            "it has {} other safetensors files, such as `{name}`: name the weights `{SINGLE}`",
            others.len()
        )),
    }
}
