//! What transformers' VisionTextDualEncoder can compute.

use dualenc_model::{ImageTower, ImageTowerConfig, Pooler, Pooling, ReferencePooling, TextPooler, TextTower, Tower};
use serde_json::{Value, json};

use crate::commands::export::head_limits::OTHER_FORMAT;
use crate::commands::export::obstacles::{Obstacles, check_layers};
use crate::commands::export::routes::{check_image_norm, check_text_norm, image_route};
use crate::error::TrainError;

/// Text towers with a pooler that transformers loads on their own, by `model_type`, and their tokenizer classes
/// (`MODEL_MAPPING_NAMES` and `TOKENIZER_MAPPING_NAMES` of transformers 5.23).
pub(crate) const TOKENIZER_CLASSES: [(&str, &str); 7] = [
    ("bert", "BertTokenizer"),
    ("roberta", "RobertaTokenizer"),
    ("xlm-roberta", "XLMRobertaTokenizer"),
    ("camembert", "CamembertTokenizer"),
    ("mpnet", "MPNetTokenizer"),
    ("albert", "AlbertTokenizer"),
    ("clip_text_model", "CLIPTokenizer"),
];

/// transformers' class, in errors.
pub(crate) const DUAL_ENCODER: &str = "transformers' VisionTextDualEncoder";

/// The image tower's config for the exported model, and whether the tower needs an identity matrix as its pooler.
///
/// # Errors
/// [`TrainError::Usage`] when VisionTextDualEncoder cannot run the tower, or cannot pool as it does, with all that is
/// in the way.
pub(crate) fn exported_image_config(tower: &ImageTower, config: &Value) -> Result<(Value, bool), TrainError> {
    let mut obstacles = Obstacles::default();
    if tower.pooling() == Pooling::Tokens {
        obstacles.keep::<()>(Err(TrainError::Usage(format!(
            "{DUAL_ENCODER} pools its image tower; to export, train without `image_head.tokens`"
        ))))?;
    }
    let found = keep_image_config(tower, config, &mut obstacles)?;
    obstacles.refuse(DUAL_ENCODER)?;
    found.ok_or_else(|| TrainError::Internal("an image tower without a config".to_owned()))
}

/// As [`exported_image_config`], but keeps what is in the way. `None`: something is, or the tower gives all its tokens,
/// which is for the caller to refuse.
///
/// # Errors
/// None but those of [`Obstacles::keep`].
pub(crate) fn keep_image_config(
    tower: &ImageTower,
    config: &Value,
    obstacles: &mut Obstacles,
) -> Result<Option<(Value, bool)>, TrainError> {
    if config["model_type"] == "resnet" {
        return obstacles.keep(Err(TrainError::Usage(format!(
            "transformers' VisionTextDualEncoder cannot project a `resnet` image tower: its pooled output is a map of \
             one pixel, not a vector. {OTHER_FORMAT}, or train with another family, such as `convnext`"
        ))));
    }
    obstacles.keep(check_layers(DUAL_ENCODER, Tower::Image, tower.pooled_layers()))?;
    obstacles.keep(check_image_norm(DUAL_ENCODER, tower))?;
    if let Some(pooled) = unknown_pooling(tower) {
        let side = tower.side_multiple() as u32;
        let advice = match image_route(tower, (side, side)) {
            Some(_) => format!("{OTHER_FORMAT}, or train"),
            None => "to export, train".to_owned(),
        };
        obstacles.keep::<()>(Err(TrainError::Usage(format!(
            "transformers' VisionTextDualEncoder cannot pool this image tower by its {pooled}; {advice} with \
             `image_pool = \"auto\"`"
        ))))?;
    }
    let mut config = loadable_image_config(tower, config);
    Ok(match tower.reference_pooling() {
        ReferencePooling::Own => Some((config, false)),
        ReferencePooling::IdentityPooler => {
            config["pooler_act"] = json!("linear");
            Some((config, true))
        }
        ReferencePooling::None => None,
    })
}

/// In words, what the tower pools by, if VisionTextDualEncoder cannot pool a layer so. As
/// [`ImageTower::reference_pooling`], but for any layers and without a final norm. Tokens are no pooling.
fn unknown_pooling(tower: &ImageTower) -> Option<&'static str> {
    let pooler = match tower.config() {
        ImageTowerConfig::Transformer(config) => config.pooler,
        ImageTowerConfig::Convolutional(_) | ImageTowerConfig::Windowed(_) => return None,
        ImageTowerConfig::Absent { .. } => Pooler::None,
    };
    match (tower.pooling(), pooler) {
        (Pooling::Cls, Pooler::ClassToken | Pooler::Dense(_)) | (Pooling::Tokens, _) => None,
        (Pooling::Pooler, Pooler::None) => Some("mean"),
        (Pooling::Pooler, _) => None,
        (Pooling::Cls, _) => Some("class token"),
        (Pooling::ClsMean, _) => Some("class token and mean"),
        (Pooling::Mean | Pooling::Last, _) => Some("mean"),
    }
}

/// The config with which transformers builds the image tower as it is here.
pub(crate) fn loadable_image_config(tower: &ImageTower, config: &Value) -> Value {
    let mut config = config.clone();
    // The reference reads `hidden_size` of every tower; the configs of convolutional towers have none.
    if config.get("hidden_sizes").is_some() {
        config["hidden_size"] = json!(tower.width());
    }
    // The reference builds Data2VecVision without pooling and then fails. BEiT is the same network with pooling, but it
    // derives its depth from `out_indices`, which belong to a segmentation head.
    if config["model_type"] == "data2vec-vision"
        && let Value::Object(keys) = &mut config
    {
        keys.insert("model_type".to_owned(), json!("beit"));
        keys.remove("out_indices");
    }
    config
}

/// Refuses a text tower that VisionTextDualEncoder cannot run, or cannot pool as it does.
///
/// # Errors
/// [`TrainError::Usage`] with all that is in the way.
pub(crate) fn check_text_pooling(tower: &TextTower, config: &Value) -> Result<(), TrainError> {
    let mut obstacles = Obstacles::default();
    keep_text_obstacles(tower, config, &mut obstacles)?;
    obstacles.refuse(DUAL_ENCODER)
}

/// As [`check_text_pooling`], but keeps what is in the way.
///
/// # Errors
/// None but those of [`Obstacles::keep`].
pub(crate) fn keep_text_obstacles(
    tower: &TextTower,
    config: &Value,
    obstacles: &mut Obstacles,
) -> Result<(), TrainError> {
    let layers = &tower.config().pooled_layers;
    obstacles.keep(check_layers(DUAL_ENCODER, Tower::Text, layers))?;
    obstacles.keep(check_text_norm(DUAL_ENCODER, tower))?;
    // The other format cannot do without the norm or concatenate layers either.
    let advice = if layers.is_empty() && !tower.config().skip_final_norm {
        format!("{OTHER_FORMAT}, or train")
    } else {
        "to export, train".to_owned()
    };
    let family = config["model_type"].as_str().unwrap_or_default();
    let known = TOKENIZER_CLASSES.map(|(model_type, _)| model_type);
    let mut problems = Vec::new();
    let has_pooler = !matches!(tower.config().pooler, TextPooler::Absent(_));
    if !has_pooler {
        problems.push(format!(
            "cannot run a `{family}` text tower, which has no pooler; {advice} with a family that has one: {}",
            known.join(", ")
        ));
    } else if !known.contains(&family) {
        problems.push(format!(
            "does not know the text tower `{family}` by itself, only as part of a whole model; to export, train with \
             another family: {}",
            known.join(", ")
        ));
    }
    if has_pooler && tower.pooling() != Pooling::Pooler {
        problems.push(format!("always takes the text tower's pooler; {advice} with `text_pool = \"pooler\"`"));
    }
    for problem in problems {
        let error = TrainError::Usage(format!("transformers' VisionTextDualEncoder {problem}"));
        obstacles.keep::<()>(Err(error))?;
    }
    Ok(())
}
