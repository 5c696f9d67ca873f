//! The two towers, side by side.

use std::path::Path;

use burn::module::Param;
use burn::tensor::Tensor;
use dualenc_data::counted;
use dualenc_model::{HeadForm, Tower, TowerLock, TowerTraining, parameters};

use crate::commands::export::model_card::markdown::{escape, grouped, table};
use crate::commands::export::obstacles::listed;
use crate::config::tower_reference::is_hub_id;
use crate::config::{InitialWeights, LoraSection, RunConfig};
use crate::models::load::LoadedModel;

/// A table with a column for each tower, and what joins them.
pub(crate) fn section(loaded: &LoadedModel) -> String {
    let model = &loaded.model;
    let family = |config: &serde_json::Value| escape(config["model_type"].as_str().unwrap_or("unknown"));
    let mut rows = Vec::new();
    if let Some(config) = &loaded.config {
        rows.push(["started from".to_owned(), start(config, Tower::Image), start(config, Tower::Text)]);
        rows.push(["trained".to_owned(), training(config, Tower::Image), training(config, Tower::Text)]);
        let projections = config.ever_trains();
        let words = |trains: bool| if trains { "trained" } else { "locked" }.to_owned();
        let (image, text) = (words(projections.image_projection), words(projections.text_projection));
        rows.push(["projection".to_owned(), image, text]);
    }
    let merged = model.clone().with_adapters_merged();
    let count = |values: usize| grouped(values as u64);
    rows.extend([
        ["family".to_owned(), family(&loaded.image_config), family(&loaded.text_config)],
        [
            "pooled by".to_owned(),
            of_layers(
                model.image_tower.config().describe_pooling(model.image_tower.pooling()),
                model.image_tower.pooled_layers(),
            ),
            of_layers(
                model.text_tower.config().describe_pooling(model.text_tower.pooling()),
                &model.text_tower.config().pooled_layers,
            ),
        ],
        [
            "width".to_owned(),
            match &model.image_tokens {
                Some(tokens) => {
                    let width = tokens.layout().width;
                    format!("{} tokens of {width} values", model.image_tower.width() / width)
                }
                None => model.image_tower.width().to_string(),
            },
            model.text_tower.pooled_width().to_string(),
        ],
        [
            "parameters".to_owned(),
            count(parameters::count(&merged.image_tower)),
            count(parameters::count(&merged.text_tower)),
        ],
    ]);
    let mut text = table(["", "image tower", "text tower"], "---", &rows);
    let (image, text_head, dim) = (model.image_projection.form(), model.text_projection.form(), model.embed_dim());
    let is_linear = [image, text_head].iter().all(|form| *form == HeadForm::LINEAR);
    text += &if is_linear && model.image_tokens.is_none() {
        format!("\n\nA linear projection maps each tower to the common {dim} values.")
    } else {
        let image = model.describe_image_head();
        format!("\n\nA head maps each tower to the common {dim} values: `{image}` (image), `{text_head}` (text).")
    };
    let scale = host_scalar(&model.logit_scale);
    text += &format!(" `logit_scale` is {scale:.4}: the logits are cosines times {:.4}", scale.exp());
    text += &match &model.logit_bias {
        Some(bias) => format!(", plus the `logit_bias` {:.4} for SigLIP's probabilities.", host_scalar(bias)),
        None => ".".to_owned(),
    };
    text
}

/// What is pooled, with the layers if there are several.
fn of_layers(pooled: &str, layers: &[usize]) -> String {
    if layers.is_empty() {
        return pooled.to_owned();
    }
    format!("{pooled}, of layers {}, concatenated", listed(layers))
}

/// The value of a parameter that is one number.
pub(crate) fn host_scalar(parameter: &Param<Tensor<1>>) -> f32 {
    parameter.val().into_scalar()
}

/// What a tower started from: a model of the hub, or the last component of a path.
fn start(config: &RunConfig, tower: Tower) -> String {
    let lock = match tower {
        Tower::Image => config.model.lock.image,
        Tower::Text => config.model.lock.text,
    };
    let name = reference(config, tower);
    if lock == TowerLock::Scratch { format!("random weights, in the form of {name}") } else { name }
}

/// The model that a tower has its form from.
fn reference(config: &RunConfig, tower: Tower) -> String {
    let reference = match (config.initial_weights(), tower) {
        (InitialWeights::Pair { image, .. }, Tower::Image) => image,
        (InitialWeights::Pair { text, .. }, Tower::Text) => text,
        (InitialWeights::Init(init), _) => Some(init),
    };
    let Some(reference) = reference else { return "none: features from files".to_owned() };
    if is_hub_id(reference) {
        return format!("[{0}](https://huggingface.co/{1})", escape(reference), reference);
    }
    let name = Path::new(reference).file_name().map(|name| name.to_string_lossy().into_owned());
    escape(&name.unwrap_or_default())
}

/// How a tower was trained.
fn training(config: &RunConfig, tower: Tower) -> String {
    let all = config.ever_trains();
    let (lock, trained, lora) = match tower {
        Tower::Image => (config.model.lock.image, all.image, &config.model.image_lora),
        Tower::Text => (config.model.lock.text, all.text, &config.model.text_lora),
    };
    words(lock, trained, lora.as_ref())
}

fn words(lock: TowerLock, trained: TowerTraining, lora: Option<&LoraSection>) -> String {
    match (lock, trained) {
        (TowerLock::Scratch, _) => "from scratch".to_owned(),
        (_, TowerTraining { trains: true, .. }) => "all of it, pretrained".to_owned(),
        (_, TowerTraining { adapters: true, .. }) => {
            let rank = lora.map_or_else(String::new, |lora| format!(" of rank {}", lora.rank));
            let last = lora.and_then(|lora| lora.last_blocks);
            let blocks = last.map_or_else(String::new, |last| format!(" in its last {}", counted(last, "block")));
            format!("low-rank adapters{rank}{blocks}, which are added to the weights")
        }
        (_, TowerTraining { last: 1.., .. }) => format!("its last {} blocks, pretrained", trained.last),
        _ => "locked, as pretrained".to_owned(),
    }
}
