//! Writing a model as a directory that transformers loads as VisionTextDualEncoderModel and -Processor.

use std::fs;
use std::path::Path;

use dualenc_model::{
    DualEncoderConfig, HostTensor, ImageTower, Pooling, ReferencePooling, StoredNames, TextPooler, TextTower,
    parameters,
};
use parameters::Which;
use serde_json::{Map, Value, json};

use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::models::load::Assembly;
use crate::run_dir::atomic_file::write_whole;
use crate::run_dir::checkpoint::tensors::serialize;

#[cfg(test)]
mod tests;

/// Tokenizer files that are copied where they exist.
const TOKENIZER_FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
];

/// Text towers with a pooler that transformers knows by `model_type`, and the class of their tokenizers
/// (`MODEL_MAPPING_NAMES` and `TOKENIZER_MAPPING_NAMES` of transformers 5.23).
const TOKENIZER_CLASSES: [(&str, &str); 7] = [
    ("bert", "BertTokenizer"),
    ("roberta", "RobertaTokenizer"),
    ("xlm-roberta", "XLMRobertaTokenizer"),
    ("camembert", "CamembertTokenizer"),
    ("mpnet", "MPNetTokenizer"),
    ("albert", "AlbertTokenizer"),
    ("clip_text_model", "CLIPTokenizer"),
];

/// Writes `assembly` to `dir`, which must not exist or be empty. `observer` hears in what the directory differs.
///
/// # Errors
/// When the reference has no way to compute what the model does, or a file cannot be written.
pub fn export(assembly: &Assembly, dir: &Path, observer: &mut dyn Observer) -> Result<(), TrainError> {
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(TrainError::Usage(format!("`{}` is not empty; choose a new directory", dir.display())));
    }
    let (image_config, image_identity) = exported_image_config(&assembly.model.image_tower, &assembly.image_config)?;
    check_text_pooling(&assembly.model.text_tower, &assembly.text_config)?;
    if let Some(difference) = assembly.processor.export_difference() {
        observer.on(Event::Warning(format!(
            "transformers has no image processor for this tower's images, and will process them a little differently: \
             {difference}"
        )));
    }
    fs::create_dir_all(dir).map_err(TrainError::write(dir))?;
    let names = StoredNames::new(&assembly.image_config, &assembly.text_config)?;
    let model = assembly.model.clone().with_adapters_merged();
    let mut parameters = parameters::collect(&model, Which::All)?;
    let logit_scale = parameters.get("logit_scale").and_then(|scale| scale.values.first().copied()).unwrap_or_default();
    if let Some(bias) = parameters.remove("logit_bias") {
        observer.on(Event::Note(format!(
            "VisionTextDualEncoder has no `logit_bias`: {} is left out; it shifts all logits alike and changes no ranking, \
             but add it to the logits for SigLIP's probabilities",
            bias.values.first().copied().unwrap_or_default()
        )));
    }
    let mut tensors = names.stored(parameters)?;
    if image_identity {
        let width = assembly.model.image_tower.width();
        tensors.insert("vision_model.pooler.dense.weight".to_owned(), HostTensor::identity(width));
        let bias = HostTensor { shape: vec![width], values: vec![0.0; width] };
        tensors.insert("vision_model.pooler.dense.bias".to_owned(), bias);
    }
    let config = DualEncoderConfig {
        projection_dim: assembly.model.embed_dim(),
        logit_scale_init_value: f64::from(logit_scale),
        vision_config: in_single_precision(image_config),
        text_config: in_single_precision(assembly.text_config.clone()),
    };
    let weights = serialize(tensors.into_iter().map(|(name, tensor)| (name, tensor.into())), dir)?;
    write_whole(&dir.join("model.safetensors"), |file| file.write_all(&weights))?;
    write_json(&dir.join("config.json"), &config.to_json())?;
    write_json(&dir.join("preprocessor_config.json"), &assembly.processor.to_preprocessor_json())?;
    copy_tokenizer(assembly, dir)
}

/// A tower's config without the precision that it was once saved in, which transformers 5 would round the weights to.
fn in_single_precision(mut config: Value) -> Value {
    if let Some(config) = config.as_object_mut() {
        config.remove("torch_dtype");
        config.remove("dtype");
    }
    config
}

/// The image tower's config as the exported model needs it, and whether it gets an identity as its pooler.
pub(crate) fn exported_image_config(tower: &ImageTower, config: &Value) -> Result<(Value, bool), TrainError> {
    let mut config = config.clone();
    if config["model_type"] == "resnet" {
        return Err(TrainError::Usage(
            "transformers' VisionTextDualEncoder cannot project a `resnet` image tower: its pooled output keeps two dimensions \
             of one pixel. `dualenc` reads the run itself; train with another family to export, `convnext` for instance"
                .to_owned(),
        ));
    }
    // The reference reads `hidden_size` of every tower, which the configs of convolutional ones do not have.
    if config.get("hidden_sizes").is_some() {
        config["hidden_size"] = json!(tower.width());
    }
    // It builds Data2VecVision without pooling and then fails; BEiT is the same network, with pooling, and takes
    // `out_indices` (of a segmentation head) for a promise about its depth.
    if config["model_type"] == "data2vec-vision"
        && let Value::Object(keys) = &mut config
    {
        keys.insert("model_type".to_owned(), json!("beit"));
        keys.remove("out_indices");
    }
    match tower.reference_pooling() {
        ReferencePooling::Own => Ok((config, false)),
        ReferencePooling::IdentityPooler => {
            config["pooler_act"] = json!("linear");
            Ok((config, true))
        }
        ReferencePooling::None => Err(TrainError::Usage(format!(
            "transformers' VisionTextDualEncoder cannot pool this image tower by {}; train with `image_pool = \"auto\"` to \
             export",
            if tower.pooling() == Pooling::Cls { "its class token" } else { "mean" }
        ))),
    }
}

/// Refuses a text tower that the reference cannot run as it pools.
pub(crate) fn check_text_pooling(tower: &TextTower, config: &Value) -> Result<(), TrainError> {
    let family = config["model_type"].as_str().unwrap_or_default();
    let known = TOKENIZER_CLASSES.map(|(model_type, _)| model_type);
    let problem = match (tower.pooling(), tower.config().pooler) {
        (_, TextPooler::Absent(_)) => format!(
            "cannot run a `{family}` text tower, which has no pooler; train with a family that has one to export: {}",
            known.join(", ")
        ),
        _ if !known.contains(&family) => format!(
            "does not know the text tower `{family}` by itself, only within its own whole model; train with another family to \
             export: {}",
            known.join(", ")
        ),
        (Pooling::Pooler, _) => return Ok(()),
        (Pooling::Cls | Pooling::Mean, _) => {
            "always takes the text tower's pooler; train with `text_pool = \"pooler\"` to export".to_owned()
        }
    };
    Err(TrainError::Usage(format!("transformers' VisionTextDualEncoder {problem}")))
}

fn write_json(path: &Path, value: &Value) -> Result<(), TrainError> {
    write_whole(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}

fn copy_tokenizer(assembly: &Assembly, dir: &Path) -> Result<(), TrainError> {
    for name in TOKENIZER_FILES {
        let source = assembly.text_dir.join(name);
        if source.is_file() {
            let bytes = fs::read(&source).map_err(TrainError::read(&source))?;
            write_whole(&dir.join(name), |file| file.write_all(&bytes))?;
        }
    }
    let path = dir.join("tokenizer_config.json");
    let mut config = match path.is_file() {
        true => read_object(&path)?,
        false => Map::new(),
    };
    if !config.get("tokenizer_class").is_some_and(Value::is_string) {
        config.insert("tokenizer_class".to_owned(), json!(tokenizer_class(&assembly.text_config)));
        write_json(&path, &Value::Object(config))?;
    }
    Ok(())
}

/// The class by which transformers reads a tokenizer whose own files name none: it looks for it in `tokenizer_config.json`,
/// as no class belongs to a VisionTextDualEncoder.
fn tokenizer_class(text_config: &Value) -> &str {
    let by_family = || {
        let family = text_config["model_type"].as_str();
        TOKENIZER_CLASSES.iter().find(|(model_type, _)| Some(*model_type) == family).map(|(_, class)| *class)
    };
    text_config["tokenizer_class"].as_str().or_else(by_family).unwrap_or("PreTrainedTokenizerFast")
}

fn read_object(path: &Path) -> Result<Map<String, Value>, TrainError> {
    let bytes = fs::read(path).map_err(TrainError::read(path))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| TrainError::Usage(format!("`{}` is not a JSON object: {error}", path.display())))
}
