//! From a Hugging Face `config.json` to a tower's config. Defaults are those of the family's config class.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::ModelError;
use crate::encoder::{EncoderConfig, NormOrder};
use crate::image_tower::{ImageTowerConfig, PoolerActivation};
use crate::layers::Activation;
use crate::names::Family;
use crate::text_tower::TextTowerConfig;

/// `model_type`s of image towers, with what they are.
const IMAGE_FAMILIES: &[(&str, Family)] = &[("vit", Family::Vit), ("deit", Family::Deit), ("dinov2", Family::Dinov2)];

/// `model_type`s of text towers; CamemBERT and XLM-R are RoBERTa with other tokenizers.
const TEXT_FAMILIES: &[(&str, Family)] = &[
    ("bert", Family::Bert),
    ("roberta", Family::Roberta),
    ("xlm-roberta", Family::Roberta),
    ("camembert", Family::Roberta),
];

/// The keys that image families share; absent ones take the family's default below.
#[derive(Deserialize)]
struct ImageJson {
    #[serde(default = "defaults::width")]
    hidden_size: usize,
    #[serde(default = "defaults::depth")]
    num_hidden_layers: usize,
    #[serde(default = "defaults::depth")]
    num_attention_heads: usize,
    intermediate_size: Option<usize>,
    mlp_ratio: Option<f64>,
    #[serde(default = "defaults::activation")]
    hidden_act: Activation,
    #[serde(default)]
    hidden_dropout_prob: f64,
    #[serde(default)]
    attention_probs_dropout_prob: f64,
    #[serde(default = "defaults::init_std")]
    initializer_range: f64,
    layer_norm_eps: Option<f64>,
    #[serde(default = "defaults::image_size")]
    image_size: Side,
    patch_size: Option<Side>,
    #[serde(default = "defaults::channels")]
    num_channels: usize,
    #[serde(default = "defaults::yes")]
    qkv_bias: bool,
    layerscale_value: Option<f64>,
    #[serde(default)]
    use_swiglu_ffn: bool,
    pooler_act: Option<String>,
    pooler_output_size: Option<usize>,
}

#[derive(Deserialize)]
struct TextJson {
    vocab_size: Option<usize>,
    #[serde(default = "defaults::width")]
    hidden_size: usize,
    #[serde(default = "defaults::depth")]
    num_hidden_layers: usize,
    #[serde(default = "defaults::depth")]
    num_attention_heads: usize,
    #[serde(default = "defaults::mlp_width")]
    intermediate_size: usize,
    #[serde(default = "defaults::activation")]
    hidden_act: Activation,
    #[serde(default = "defaults::text_dropout")]
    hidden_dropout_prob: f64,
    #[serde(default = "defaults::text_dropout")]
    attention_probs_dropout_prob: f64,
    #[serde(default = "defaults::init_std")]
    initializer_range: f64,
    #[serde(default = "defaults::norm_epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "defaults::max_positions")]
    max_position_embeddings: usize,
    #[serde(default = "defaults::type_vocab")]
    type_vocab_size: usize,
    pad_token_id: Option<u32>,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
}

/// `224` or `[224, 224]`.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Side {
    One(usize),
    Pair([usize; 2]),
}

mod defaults {
    //! ViTConfig, Dinov2Config, BertConfig and RobertaConfig of transformers 5.23.
    use super::{Activation, Side};

    pub fn width() -> usize {
        768
    }
    pub fn depth() -> usize {
        12
    }
    pub fn mlp_width() -> usize {
        3072
    }
    pub fn activation() -> Activation {
        Activation::Gelu
    }
    pub fn init_std() -> f64 {
        0.02
    }
    pub fn norm_epsilon() -> f64 {
        1e-12
    }
    pub fn image_size() -> Side {
        Side::One(224)
    }
    pub fn channels() -> usize {
        3
    }
    pub fn yes() -> bool {
        true
    }
    pub fn text_dropout() -> f64 {
        0.1
    }
    pub fn max_positions() -> usize {
        512
    }
    pub fn type_vocab() -> usize {
        2
    }
}

fn family_of(json: &Value, path: &Path, kind: &'static str, known: &[(&str, Family)]) -> Result<Family, ModelError> {
    let found = json.get("model_type").and_then(Value::as_str).unwrap_or("(none)");
    known.iter().find(|(name, _)| *name == found).map(|(_, family)| *family).ok_or_else(|| {
        ModelError::UnsupportedFamily {
            path: path.to_owned(),
            kind,
            found: found.to_owned(),
            supported: known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
        }
    })
}

/// Reads an image tower's config; `path` is named in errors.
pub(crate) fn image_config(json: &Value, path: &Path) -> Result<(Family, ImageTowerConfig), ModelError> {
    let problem = |problem: String| ModelError::Config { path: path.to_owned(), problem };
    let family = family_of(json, path, "image", IMAGE_FAMILIES)?;
    let json: ImageJson = serde_json::from_value(json.clone()).map_err(|error| problem(error.to_string()))?;
    let square = |name: &str, side: Side| match side {
        Side::One(side) => Ok(side),
        Side::Pair([height, width]) if height == width => Ok(height),
        Side::Pair(pair) => Err(problem(format!("`{name}` is {pair:?}; only square ones are supported"))),
    };
    let dino = family == Family::Dinov2;
    let patch_size = square("patch_size", json.patch_size.unwrap_or(Side::One(if dino { 14 } else { 16 })))?;
    let image_size = square("image_size", json.image_size)?;
    let heads = json.num_attention_heads;
    if heads == 0 || !json.hidden_size.is_multiple_of(heads) {
        return Err(problem(format!(
            "`hidden_size` {} is not a multiple of `num_attention_heads` {heads}",
            json.hidden_size
        )));
    }
    if patch_size == 0 || image_size < patch_size {
        return Err(problem(format!("`image_size` {image_size} holds no patch of `patch_size` {patch_size}")));
    }
    if json.num_channels != 3 {
        return Err(problem(format!("`num_channels` is {}; images have 3", json.num_channels)));
    }
    if json.use_swiglu_ffn {
        return Err(problem("`use_swiglu_ffn` (DINOv2-giant) is not supported yet".to_owned()));
    }
    if json.pooler_output_size.is_some_and(|size| size != json.hidden_size) {
        return Err(problem(
            "`pooler_output_size` differs from `hidden_size`, which the reference cannot project".to_owned(),
        ));
    }
    let pooler = match json.pooler_act.as_deref() {
        _ if dino => None,
        None | Some("tanh") => Some(PoolerActivation::Tanh),
        Some("linear" | "identity") => Some(PoolerActivation::Linear),
        Some(other) => return Err(problem(format!("`pooler_act` is `{other}`; supported: tanh, linear"))),
    };
    let mlp_width = match (dino, json.mlp_ratio, json.intermediate_size) {
        (true, ratio, _) => (json.hidden_size as f64 * ratio.unwrap_or(4.0)) as usize,
        (false, _, width) => width.unwrap_or(defaults::mlp_width()),
    };
    let config = ImageTowerConfig {
        encoder: EncoderConfig {
            width: json.hidden_size,
            depth: json.num_hidden_layers,
            heads,
            mlp_width,
            activation: json.hidden_act,
            norm_order: NormOrder::Pre,
            norm_epsilon: json.layer_norm_eps.unwrap_or(if dino { 1e-6 } else { defaults::norm_epsilon() }),
            layer_scale: dino.then_some(json.layerscale_value.unwrap_or(1.0)),
            qkv_bias: json.qkv_bias,
            hidden_dropout: json.hidden_dropout_prob,
            attention_dropout: json.attention_probs_dropout_prob,
            init_std: json.initializer_range,
        },
        image_size,
        patch_size,
        distillation_token: family == Family::Deit,
        pooler,
    };
    Ok((family, config))
}

/// Reads a text tower's config; `path` is named in errors.
pub(crate) fn text_config(json: &Value, path: &Path) -> Result<(Family, TextTowerConfig), ModelError> {
    let problem = |problem: String| ModelError::Config { path: path.to_owned(), problem };
    let family = family_of(json, path, "text", TEXT_FAMILIES)?;
    let json: TextJson = serde_json::from_value(json.clone()).map_err(|error| problem(error.to_string()))?;
    let heads = json.num_attention_heads;
    if heads == 0 || !json.hidden_size.is_multiple_of(heads) {
        return Err(problem(format!(
            "`hidden_size` {} is not a multiple of `num_attention_heads` {heads}",
            json.hidden_size
        )));
    }
    if let Some(kind) = json.position_embedding_type.filter(|kind| kind != "absolute") {
        return Err(problem(format!("`position_embedding_type` is `{kind}`; supported: absolute")));
    }
    if json.is_decoder {
        return Err(problem("`is_decoder` is true; a text tower is an encoder".to_owned()));
    }
    let roberta = family == Family::Roberta;
    let pad_id = json.pad_token_id.unwrap_or(u32::from(roberta));
    let first_position = if roberta { pad_id as usize + 1 } else { 0 };
    if json.max_position_embeddings <= first_position {
        return Err(problem(format!("`max_position_embeddings` is only {}", json.max_position_embeddings)));
    }
    let config = TextTowerConfig {
        encoder: EncoderConfig {
            width: json.hidden_size,
            depth: json.num_hidden_layers,
            heads,
            mlp_width: json.intermediate_size,
            activation: json.hidden_act,
            norm_order: NormOrder::Post,
            norm_epsilon: json.layer_norm_eps,
            layer_scale: None,
            qkv_bias: true,
            hidden_dropout: json.hidden_dropout_prob,
            attention_dropout: json.attention_probs_dropout_prob,
            init_std: json.initializer_range,
        },
        vocab_size: json.vocab_size.unwrap_or(if roberta { 50_265 } else { 30_522 }),
        max_positions: json.max_position_embeddings,
        type_vocab_size: json.type_vocab_size,
        first_position,
        pad_id,
    };
    Ok((family, config))
}
