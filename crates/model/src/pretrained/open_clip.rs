//! open_clip's directories (`open_clip_config.json` and `open_clip_model.safetensors`): its plain CLIP models, a vision
//! transformer beside a causal text transformer, are transformers' CLIP under other names. The config and the tensors are
//! turned into CLIP's as they are read, so nothing else knows of them.
//!
//! Sources: `src/open_clip/model.py` (`CLIPVisionCfg`, `CLIPTextCfg`, `_build_vision_tower`, `_build_text_tower`) and
//! `transformer.py` of open_clip; `convert_clip_original_pytorch_to_hf.py` of transformers for the names.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::weights::weight_files::{HostTensor, WeightFiles};

/// Where open_clip keeps its config and its tensors.
const CONFIG: &str = "open_clip_config.json";
const WEIGHTS: &str = "open_clip_model.safetensors";

/// Keys whose meaning is carried over; any other one may change what the model computes.
const MODEL_KEYS: [&str; 4] = ["embed_dim", "vision_cfg", "text_cfg", "quick_gelu"];
const VISION_KEYS: [&str; 6] = ["image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"];
const TEXT_KEYS: [&str; 6] = ["context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"];

/// The way out where a model is not one of the plain ones.
const ADVICE: &str = "only plain CLIP models of open_clip are read (ViT and text transformer); for another, take a \
                      checkpoint that transformers reads as CLIP or SigLIP";

/// The path of an open_clip config in `dir` and the CLIP config that it amounts to; `None` where there is none.
///
/// # Errors
/// When the file is malformed, or describes another model than a plain CLIP.
pub(crate) fn config(dir: &Path) -> Result<Option<(PathBuf, Value)>, ModelError> {
    let path = dir.join(CONFIG);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
    let problem = |problem: String| ModelError::Config { path: path.clone(), problem };
    let file: Value = serde_json::from_str(&text).map_err(|error| problem(format!("not JSON: {error}")))?;
    let config = clip_config(&file["model_cfg"]).map_err(problem)?;
    Ok(Some((path, config)))
}

fn clip_config(model: &Value) -> Result<Value, String> {
    let model = section(model, "model_cfg", &MODEL_KEYS)?;
    let vision = section(&model["vision_cfg"], "vision_cfg", &VISION_KEYS)?;
    let text = section(&model["text_cfg"], "text_cfg", &TEXT_KEYS)?;
    let activation = match model["quick_gelu"].as_bool() {
        Some(true) => "quick_gelu",
        _ => "gelu",
    };
    let vision_width = number(&vision, "width", 768)?;
    let text_width = number(&text, "width", 512)?;
    Ok(json!({
        "model_type": "clip",
        "projection_dim": model["embed_dim"],
        "vision_config": {
            "hidden_size": vision_width,
            "num_hidden_layers": number(&vision, "layers", 12)?,
            "num_attention_heads": vision_width / number(&vision, "head_width", 64)?.max(1),
            "intermediate_size": mlp_width(&vision, vision_width)?,
            "image_size": number(&vision, "image_size", 224)?,
            "patch_size": number(&vision, "patch_size", 16)?,
            "hidden_act": activation,
        },
        "text_config": {
            "vocab_size": number(&text, "vocab_size", 49_408)?,
            "max_position_embeddings": number(&text, "context_length", 77)?,
            "hidden_size": text_width,
            "num_hidden_layers": number(&text, "layers", 12)?,
            "num_attention_heads": number(&text, "heads", 8)?,
            "intermediate_size": mlp_width(&text, text_width)?,
            "hidden_act": activation,
            // Pools at the greatest id, which this value of CLIP's config means.
            "eos_token_id": 2,
        },
    }))
}

/// The object at a key, if it has no other entries than `known` ones; `null` counts as absent.
fn section(value: &Value, name: &str, known: &[&str]) -> Result<Map<String, Value>, String> {
    let object = value.as_object().ok_or_else(|| format!("`{name}` is `{value}`, which is no object; {ADVICE}"))?;
    match object.iter().find(|(key, value)| !known.contains(&key.as_str()) && !value.is_null()) {
        Some((key, value)) => Err(format!("`{name}` sets `{key}` to `{value}`; {ADVICE}")),
        // Indexing a map panics on a key that is not there.
        None => Ok(known.iter().map(|key| ((*key).to_owned(), value[*key].clone())).collect()),
    }
}

fn number(section: &Map<String, Value>, key: &str, default: u64) -> Result<u64, String> {
    match &section[key] {
        Value::Null => Ok(default),
        value => value.as_u64().ok_or_else(|| format!("`{key}` is `{value}`, which is no whole number; {ADVICE}")),
    }
}

fn mlp_width(section: &Map<String, Value>, width: u64) -> Result<u64, String> {
    let ratio = match &section["mlp_ratio"] {
        Value::Null => 4.0,
        value => value.as_f64().ok_or_else(|| format!("`mlp_ratio` is `{value}`, which is no number; {ADVICE}"))?,
    };
    Ok((width as f64 * ratio) as u64)
}

/// The starts of names, open_clip's and CLIP's.
const STARTS: [(&str, &str); 10] = [
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.", "text_model.final_layer_norm."),
    ("transformer.resblocks.", "text_model.encoder.layers."),
];

/// The same within a block.
const PARTS: [(&str, &str); 5] = [
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.", ".self_attn."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
];

/// Projections, `[width, dim]` there and `[dim, width]` in CLIP.
const PROJECTIONS: [(&str, &str); 2] =
    [("visual.proj", "visual_projection.weight"), ("text_projection", "text_projection.weight")];

/// Queries, keys and values stand in one tensor there.
const PACKED: (&str, [&str; 3]) = (".in_proj_", [".q_proj.", ".k_proj.", ".v_proj."]);

/// The file of tensors beside open_clip's config; `None` where the config is another's, or there is no file of that name.
pub(crate) fn weights_path(dir: &Path, config_path: &Path) -> Option<PathBuf> {
    let path = dir.join(WEIGHTS);
    (config_path.ends_with(CONFIG) && path.is_file()).then_some(path)
}

/// open_clip's tensors under CLIP's names.
pub(crate) fn renamed(files: WeightFiles) -> WeightFiles {
    let mut clip = WeightFiles::default();
    for (name, tensor) in files.into_tensors() {
        if let Some((_, projection)) = PROJECTIONS.iter().find(|(theirs, _)| *theirs == name) {
            clip.extend(projection, Some(tensor.transposed()));
            continue;
        }
        let start = STARTS.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", name.strip_prefix(theirs)?)));
        let name = PARTS.iter().fold(start.unwrap_or(name), |name, (theirs, ours)| name.replace(theirs, ours));
        match name.split_once(PACKED.0) {
            Some((block, kind)) => {
                for (part, values) in PACKED.1.iter().zip(tensor.thirds()) {
                    clip.extend(&format!("{block}{part}{kind}"), Some(values));
                }
            }
            None => clip.extend(&name, Some(tensor)),
        }
    }
    clip
}

impl HostTensor {
    /// A matrix with rows and columns exchanged. One without values, a header's, stays so.
    fn transposed(&self) -> Self {
        let [rows, columns] = self.shape[..] else { return self.clone() };
        let values = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
        Self {
            shape: vec![columns, rows],
            values: values.filter_map(|place| self.values.get(place).copied()).collect(),
        }
    }

    /// Three equal parts along the first dimension.
    fn thirds(&self) -> [Self; 3] {
        let (each, mut shape) = (self.values.len() / 3, self.shape.clone());
        if let Some(rows) = shape.first_mut() {
            *rows /= 3;
        }
        [0, 1, 2]
            .map(|part| Self { shape: shape.clone(), values: self.values[part * each..(part + 1) * each].to_vec() })
    }
}
