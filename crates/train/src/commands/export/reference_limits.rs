//! What transformers' VisionTextDualEncoder can compute.

use dualenc_model::{ImageTower, Pooling, ReferencePooling, TextPooler, TextTower, Tower};
use serde_json::{Value, json};

use crate::commands::export::head_limits::OTHER_FORMAT;
use crate::commands::export::obstacles::check_layers;
use crate::commands::export::routes::{image_route, norm_advice};
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
/// [`TrainError::Usage`] when VisionTextDualEncoder cannot run the tower, or cannot pool as it does.
pub(crate) fn exported_image_config(tower: &ImageTower, config: &Value) -> Result<(Value, bool), TrainError> {
    if config["model_type"] == "resnet" {
        return Err(TrainError::Usage(format!(
            "transformers' VisionTextDualEncoder cannot project a `resnet` image tower: its pooled output is a map of \
             one pixel, not a vector. {OTHER_FORMAT}, or train with another family, such as `convnext`"
        )));
    }
    let also = (!matches!(tower.pooling(), Pooling::Cls | Pooling::Pooler)).then_some("`image_pool = \"auto\"`");
    check_layers(DUAL_ENCODER, Tower::Image, tower.pooled_layers(), also)?;
    let mut config = loadable_image_config(tower, config);
    match tower.reference_pooling() {
        ReferencePooling::Own => Ok((config, false)),
        ReferencePooling::IdentityPooler => {
            config["pooler_act"] = json!("linear");
            Ok((config, true))
        }
        ReferencePooling::None if tower.pooling() == Pooling::Tokens => Err(TrainError::Usage(format!(
            "{DUAL_ENCODER} pools its image tower; to export, train without `image_head.tokens`"
        ))),
        ReferencePooling::None => {
            let side = tower.side_multiple() as u32;
            let advice = match image_route(tower, (side, side)) {
                Some(_) => format!("{OTHER_FORMAT}, or train"),
                None => "to export, train".to_owned(),
            };
            Err(TrainError::Usage(format!(
                "transformers' VisionTextDualEncoder cannot pool this image tower by its {}; {advice} with \
                 `image_pool = \"auto\"`{}",
                match tower.pooling() {
                    Pooling::Cls => "class token",
                    Pooling::ClsMean => "class token and mean",
                    Pooling::Tokens => "tokens",
                    Pooling::Mean | Pooling::Last | Pooling::Pooler => "mean",
                },
                norm_advice(tower)
            )))
        }
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
/// [`TrainError::Usage`].
pub(crate) fn check_text_pooling(tower: &TextTower, config: &Value) -> Result<(), TrainError> {
    let also = (tower.pooling() != Pooling::Pooler).then_some("`text_pool = \"pooler\"`");
    check_layers(DUAL_ENCODER, Tower::Text, &tower.config().pooled_layers, also)?;
    let family = config["model_type"].as_str().unwrap_or_default();
    let known = TOKENIZER_CLASSES.map(|(model_type, _)| model_type);
    let problem = match (tower.pooling(), tower.config().pooler) {
        (_, TextPooler::Absent(_)) => format!(
            "cannot run a `{family}` text tower, which has no pooler; {OTHER_FORMAT}, or train with a family that has \
             one: {}",
            known.join(", ")
        ),
        _ if !known.contains(&family) => format!(
            "does not know the text tower `{family}` by itself, only as part of a whole model; to export, train with \
             another family: {}",
            known.join(", ")
        ),
        _ if tower.config().skip_final_norm => {
            "always applies the final norm of the text tower; to export, train without `text_layer_norm`".to_owned()
        }
        (Pooling::Pooler, _) => return Ok(()),
        (Pooling::Cls | Pooling::Mean | Pooling::ClsMean | Pooling::Last | Pooling::Tokens, _) => {
            format!("always takes the text tower's pooler; {OTHER_FORMAT}, or train with `text_pool = \"pooler\"`")
        }
    };
    Err(TrainError::Usage(format!("transformers' VisionTextDualEncoder {problem}")))
}
