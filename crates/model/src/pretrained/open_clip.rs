//! open_clip's directories (`open_clip_config.json` and `open_clip_model.safetensors`). Its plain CLIP models, a vision
//! transformer and a causal text transformer, equal transformers' CLIP under other names. Config and tensors are
//! converted as they are read, so no other file deals with them.
//!
//! Sources: `src/open_clip/model.py` (`CLIPVisionCfg`, `CLIPTextCfg`, `_build_vision_tower`, `_build_text_tower`) and
//! `transformer.py` of open_clip; `convert_clip_original_pytorch_to_hf.py` of transformers for the names.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::foreign_file::parse_json;
use crate::weights::matrix::Part;
use crate::weights::weight_files::WeightFiles;

/// The name of open_clip's config.
const CONFIG: &str = "open_clip_config.json";

/// The name of open_clip's weights.
const WEIGHTS: &str = "open_clip_model.safetensors";

/// The keys that are converted. Any other key may change what the model computes, and is refused.
const MODEL_KEYS: [&str; 4] = ["embed_dim", "vision_cfg", "text_cfg", "quick_gelu"];
const VISION_KEYS: [&str; 6] = ["image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"];
const TEXT_KEYS: [&str; 6] = ["context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"];

/// What to do about a model that is not a plain CLIP.
const ADVICE: &str = "only plain CLIP models of open_clip are supported (ViT and text transformer); use a checkpoint \
                      that transformers reads as CLIP or SigLIP";

/// Reads the open_clip config in `dir`: its path, and the equivalent CLIP config. `None` if there is none.
///
/// # Errors
/// [`ModelError::Read`] if it cannot be read; [`ModelError::Config`] if it is malformed or not that of a plain CLIP.
pub(crate) fn read_config(dir: &Path) -> Result<Option<(PathBuf, Value)>, ModelError> {
    let path = dir.join(CONFIG);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
    let problem = |problem: String| ModelError::Config { path: path.clone(), problem };
    let file = parse_json(&path, &bytes)?;
    let config = clip_config(&file["model_cfg"]).map_err(problem)?;
    Ok(Some((path, config)))
}

fn clip_config(model: &Value) -> Result<Value, String> {
    let model = section(model, "model_cfg", &MODEL_KEYS)?;
    let vision = section(&model["vision_cfg"], "vision_cfg", &VISION_KEYS)?;
    let text = section(&model["text_cfg"], "text_cfg", &TEXT_KEYS)?;
    let activation = if model["quick_gelu"].as_bool() == Some(true) { "quick_gelu" } else { "gelu" };
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
            // In a config of CLIP, this value means that the greatest id is pooled.
            "eos_token_id": 2,
        },
    }))
}

/// The object `value`, if it has only `known` keys; `null` counts as absent.
fn section(value: &Value, name: &str, known: &[&str]) -> Result<Map<String, Value>, String> {
    let object = value.as_object().ok_or_else(|| format!("`{name}` is `{value}`; expected an object; {ADVICE}"))?;
    match object.iter().find(|(key, value)| !known.contains(&key.as_str()) && !value.is_null()) {
        Some((key, value)) => Err(format!("`{name}` sets `{key}` to `{value}`; {ADVICE}")),
        // All known keys are present in the result, because indexing a map by a missing key panics.
        None => Ok(known.iter().map(|key| ((*key).to_owned(), value[*key].clone())).collect()),
    }
}

fn number(section: &Map<String, Value>, key: &str, default: u64) -> Result<u64, String> {
    match &section[key] {
        Value::Null => Ok(default),
        value => value.as_u64().ok_or_else(|| format!("`{key}` is `{value}`; expected a whole number; {ADVICE}")),
    }
}

fn mlp_width(section: &Map<String, Value>, width: u64) -> Result<u64, String> {
    let ratio = match &section["mlp_ratio"] {
        Value::Null => 4.0,
        value => value.as_f64().ok_or_else(|| format!("`mlp_ratio` is `{value}`; expected a number; {ADVICE}"))?,
    };
    Ok((width as f64 * ratio) as u64)
}

/// Prefixes of names, in open_clip and in CLIP.
const PREFIXES: [(&str, &str); 10] = [
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

/// Names within a block, in open_clip and in CLIP.
const PARTS: [(&str, &str); 5] = [
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.", ".self_attn."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
];

/// Projections, `[width, dim]` in open_clip and `[dim, width]` in CLIP.
const PROJECTIONS: [(&str, &str); 2] =
    [("visual.proj", "visual_projection.weight"), ("text_projection", "text_projection.weight")];

/// The name of queries, keys and values in open_clip, where they are one tensor.
const PACKED: &str = ".in_proj_";

/// The names of the three parts of [`PACKED`] in CLIP.
const UNPACKED: [&str; 3] = [".q_proj.", ".k_proj.", ".v_proj."];

/// The path of open_clip's weights in `dir`; `None` if `config_path` is not open_clip's config, or there is no such
/// file.
pub(crate) fn weights_path(dir: &Path, config_path: &Path) -> Option<PathBuf> {
    let path = dir.join(WEIGHTS);
    (config_path.ends_with(CONFIG) && path.is_file()).then_some(path)
}

/// Whether the files have open_clip's names.
pub(crate) fn has_names(files: &WeightFiles) -> bool {
    files.has_prefix("visual.")
}

/// Converts open_clip's tensors to CLIP's.
pub(crate) fn to_clip(files: WeightFiles) -> WeightFiles {
    let mut clip = WeightFiles::default();
    for (name, tensor) in files.into_tensors() {
        if let Some((_, projection)) = PROJECTIONS.iter().find(|(theirs, _)| *theirs == name) {
            clip.insert(projection, tensor.transposed());
            continue;
        }
        let renamed = PREFIXES.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", name.strip_prefix(theirs)?)));
        let name = PARTS.iter().fold(renamed.unwrap_or(name), |name, (theirs, ours)| name.replace(theirs, ours));
        match name.split_once(PACKED) {
            Some((block, kind)) => {
                for (index, part) in UNPACKED.iter().enumerate() {
                    clip.insert(&format!("{block}{part}{kind}"), tensor.part(Part { index, of: UNPACKED.len() }));
                }
            }
            None => clip.insert(&name, tensor),
        }
    }
    clip
}
