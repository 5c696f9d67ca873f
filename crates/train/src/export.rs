//! Writing a model as a directory that transformers loads as VisionTextDualEncoderModel and -Processor.

use std::fs;
use std::path::Path;

use dualenc_model::{DUAL_ENCODER_TYPE, HostTensor, Pooling, ReferencePooling, StoredNames, TextPooler, parameters};
use parameters::Which;
use serde_json::{Value, json};

use crate::assemble::Assembly;
use crate::checkpoint::serialize;
use crate::error::TrainError;
use crate::files::write_whole;

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

/// Writes `assembly` to `dir`, which must not exist or be empty.
///
/// # Errors
/// When the reference has no way to pool as the model does, or a file cannot be written.
pub fn export(assembly: &Assembly, dir: &Path) -> Result<(), TrainError> {
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(TrainError::Usage(format!("`{}` is not empty; choose a new directory", dir.display())));
    }
    let (image_config, image_identity) = exported_image_config(assembly)?;
    check_text_pooling(assembly)?;
    fs::create_dir_all(dir).map_err(TrainError::write(dir))?;
    let names = StoredNames::new(&assembly.image_config, &assembly.text_config)?;
    let mut parameters = parameters::collect(&assembly.model, Which::All)?;
    let logit_scale = parameters.get("logit_scale").and_then(|scale| scale.values.first().copied()).unwrap_or_default();
    // The reference has no bias; it shifts all logits alike and changes no ranking.
    parameters.remove("logit_bias");
    let mut tensors = names.stored(parameters)?;
    if image_identity {
        let width = assembly.model.image_tower.width();
        tensors.insert("vision_model.pooler.dense.weight".to_owned(), identity(width));
        let bias = HostTensor { shape: vec![width], values: vec![0.0; width] };
        tensors.insert("vision_model.pooler.dense.bias".to_owned(), bias);
    }
    let config = json!({
        "architectures": ["VisionTextDualEncoderModel"],
        "model_type": DUAL_ENCODER_TYPE,
        "projection_dim": assembly.model.embed_dim(),
        "logit_scale_init_value": logit_scale,
        "vision_config": image_config,
        "text_config": assembly.text_config,
    });
    let weights = serialize(tensors, dir)?;
    write_whole(&dir.join("model.safetensors"), |file| file.write_all(&weights))?;
    write_json(&dir.join("config.json"), &config)?;
    write_json(&dir.join("preprocessor_config.json"), &assembly.processor.to_preprocessor_json())?;
    copy_tokenizer(assembly, dir)
}

/// The image tower's config as the exported model needs it, and whether it gets an identity as its pooler.
fn exported_image_config(assembly: &Assembly) -> Result<(Value, bool), TrainError> {
    let tower = &assembly.model.image_tower;
    let mut config = assembly.image_config.clone();
    // The reference reads `hidden_size` of every tower, which the configs of convolutional ones do not have.
    if config.get("hidden_sizes").is_some() {
        config["hidden_size"] = json!(tower.width());
    }
    // It builds Data2VecVision without pooling and then fails; BEiT is the same network, with pooling, and takes
    // `out_indices` (of a segmentation head) for a promise about its depth.
    if let (Some("data2vec-vision"), Value::Object(keys)) = (assembly.image_config["model_type"].as_str(), &mut config)
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

fn check_text_pooling(assembly: &Assembly) -> Result<(), TrainError> {
    let tower = &assembly.model.text_tower;
    let problem = match (tower.pooling(), tower.config().pooler) {
        (_, TextPooler::Absent(_)) => {
            let family = assembly.text_config["model_type"].as_str().unwrap_or_default();
            format!(
                "cannot run a `{family}` text tower, which has no pooler; train with a family that has one to export"
            )
        }
        (Pooling::Pooler, _) if tower.pooled_width() != tower.config().encoder.width => {
            "cannot project a text tower whose pooled output is not as wide as its tokens".to_owned()
        }
        (Pooling::Pooler, _) => return Ok(()),
        (Pooling::Cls | Pooling::Mean, _) => {
            "always takes the text tower's pooler; train with `text_pool = \"auto\"` to export".to_owned()
        }
    };
    Err(TrainError::Usage(format!("transformers' VisionTextDualEncoder {problem}")))
}

fn identity(width: usize) -> HostTensor {
    let mut values = vec![0.0; width * width];
    values.iter_mut().step_by(width + 1).for_each(|value| *value = 1.0);
    HostTensor { shape: vec![width, width], values }
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
    let config_path = dir.join("tokenizer_config.json");
    if !config_path.exists() {
        // transformers chooses the class by this file; the family's own is known.
        let class = match assembly.text_config["model_type"].as_str() {
            Some("bert") => "BertTokenizer",
            Some("roberta") => "RobertaTokenizer",
            Some("xlm-roberta") => "XLMRobertaTokenizer",
            _ => "PreTrainedTokenizerFast",
        };
        write_json(&config_path, &json!({"tokenizer_class": class}))?;
    }
    Ok(())
}
