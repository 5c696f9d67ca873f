//! How the stock modules of sentence-transformers pool a tower: by an output of the tower that transformers pools
//! itself, or by a `Pooling` module over its tokens.

use dualenc_model::{ConvNetKind, FinalNorm, ImageTower, ImageTowerConfig, Pooler, Pooling, TextTower, Tower};
use serde_json::Value;

use crate::commands::export::head_limits::{HeadLimits, check_heads, check_tokens};
use crate::commands::export::obstacles::{ANY_MODEL, Obstacles, check_layers};
use crate::error::TrainError;
use crate::models::load::LoadedModel;

/// Text towers that transformers loads on their own (`MODEL_MAPPING_NAMES` of transformers 5.23).
const TEXT_FAMILIES: [&str; 18] = [
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "mpnet",
    "distilbert",
    "electra",
    "albert",
    "modernbert",
    "deberta-v2",
    "clip_text_model",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma3_text",
    "t5",
    "gte",
];

/// Image towers that transformers runs only at the size of their config, unless a caller asks it to interpolate
/// positions, which sentence-transformers cannot do.
const FIXED_SIZE: [&str; 6] = ["vit", "deit", "beit", "data2vec-vision", "clip_vision_model", "siglip_vision_model"];

/// What a route takes from its tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooled {
    /// `pooler_output`.
    Output,
    /// `pooler_output`, which is a map of one pixel: its mean.
    OutputMap,
    /// The first of all tokens.
    First,
    /// The mean of all tokens.
    Mean,
    /// The mean of all tokens but the first, of this many. The mean of all and the first token determine it.
    MeanWithoutFirst(usize),
    /// The first of this many tokens, and the mean of all others.
    FirstAndMeanWithoutFirst(usize),
    /// The last of all tokens.
    Last,
}

/// Both routes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routes {
    pub image: Pooled,
    pub text: Pooled,
}

impl Routes {
    /// The routes of `loaded`.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when stock modules cannot compute them, with all that is in the way.
    pub fn new(loaded: &LoadedModel) -> Result<Self, TrainError> {
        let (program, model) = ("sentence-transformers", &loaded.model);
        let (image, text) = (&model.image_tower, &model.text_tower);
        let mut obstacles = Obstacles::default();
        obstacles.keep(check_tokens(model, program))?;
        obstacles.keep(check_layers(program, Tower::Image, image.pooled_layers()))?;
        obstacles.keep(check_image_norm(program, image))?;
        let image = match image.pooling() {
            // Refused above.
            Pooling::Tokens => None,
            pooling => obstacles.keep(pooled_by(image, loaded.processor.output_size()).ok_or_else(|| {
                TrainError::Usage(format!(
                    "sentence-transformers cannot pool this image tower by {}; train with `image_pool = \"auto\"`",
                    image.config().describe_pooling(pooling)
                ))
            }))?,
        };
        obstacles.keep(check_layers(program, Tower::Text, &text.config().pooled_layers))?;
        obstacles.keep(refuse_other_size(loaded))?;
        check_heads(model, HeadLimits::SentenceTransformers, false, &mut obstacles)?;
        obstacles.keep(check_text_norm(program, text))?;
        let text = obstacles.keep(text_route(text, &loaded.text_config))?;
        obstacles.refuse(program)?;
        let both = image.zip(text).map(|(image, text)| Self { image, text });
        both.ok_or_else(|| TrainError::Internal("a tower without a route".to_owned()))
    }
}

/// Refuses an image tower that leaves its final norm out, which `program` cannot do.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_image_norm(program: &str, tower: &ImageTower) -> Result<(), TrainError> {
    check_norm(program, Tower::Image, skips_final_norm(tower))
}

/// Refuses a text tower that leaves its final norm out, which `program` cannot do.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_text_norm(program: &str, tower: &TextTower) -> Result<(), TrainError> {
    check_norm(program, Tower::Text, tower.config().skip_final_norm)
}

fn check_norm(program: &str, tower: Tower, is_skipped: bool) -> Result<(), TrainError> {
    if !is_skipped {
        return Ok(());
    }
    Err(TrainError::Usage(format!(
        "{program} always applies the final norm of the {tower}; to export, train with `{}_layer_norm = true`; \
         {ANY_MODEL}",
        tower.kind()
    )))
}

fn skips_final_norm(tower: &ImageTower) -> bool {
    matches!(tower.config(), ImageTowerConfig::Transformer(config) if config.skip_final_norm)
}

/// What the image route takes from a tower that sees images of `size`, height and width in pixels; `None` if stock
/// modules cannot pool as the tower does.
pub(crate) fn image_route(tower: &ImageTower, size: (u32, u32)) -> Option<Pooled> {
    if skips_final_norm(tower) || !tower.pooled_layers().is_empty() {
        return None;
    }
    pooled_by(tower, size)
}

/// [`image_route`], as if the tower pooled one layer after its final norm.
fn pooled_by(tower: &ImageTower, size: (u32, u32)) -> Option<Pooled> {
    let config = match tower.config() {
        ImageTowerConfig::Convolutional(config) if matches!(config.kind, ConvNetKind::Residual { .. }) => {
            return Some(Pooled::OutputMap);
        }
        ImageTowerConfig::Convolutional(_) | ImageTowerConfig::Windowed(_) => return Some(Pooled::Output),
        ImageTowerConfig::Absent { .. } => return None,
        ImageTowerConfig::Transformer(config) => config,
    };
    let special = usize::from(config.class_token) + usize::from(config.distillation_token) + config.registers;
    let patches = (size.0 as usize / config.patch_size) * (size.1 as usize / config.patch_size);
    // `last_hidden_state` comes before a norm of the pooled token, and after one of all tokens.
    let is_normed_later = config.final_norm == FinalNorm::Pooled;
    match (config.pooler, tower.pooling()) {
        (_, Pooling::Pooler) | (Pooler::ClassToken, Pooling::Cls) => Some(Pooled::Output),
        (_, Pooling::Cls) if !is_normed_later => Some(Pooled::First),
        (_, Pooling::Mean) if !is_normed_later && special == 0 => Some(Pooled::Mean),
        (_, Pooling::Mean) if !is_normed_later && special == 1 => Some(Pooled::MeanWithoutFirst(1 + patches)),
        (_, Pooling::ClsMean) if !is_normed_later && special == 1 => {
            Some(Pooled::FirstAndMeanWithoutFirst(1 + patches))
        }
        _ => None,
    }
}

fn text_route(tower: &TextTower, config: &Value) -> Result<Pooled, TrainError> {
    let family = config["model_type"].as_str().unwrap_or_default();
    if !TEXT_FAMILIES.contains(&family) {
        return Err(TrainError::Usage(format!(
            "sentence-transformers cannot load the text tower `{family}` by itself: transformers knows it only as part \
             of a whole model; to export, train with another family: {}",
            TEXT_FAMILIES.join(", ")
        )));
    }
    Ok(match tower.pooling() {
        Pooling::Pooler => Pooled::Output,
        Pooling::Cls => Pooled::First,
        Pooling::Mean => Pooled::Mean,
        Pooling::ClsMean | Pooling::Tokens => {
            return Err(TrainError::Internal("a text tower is pooled as an image tower".to_owned()));
        }
        Pooling::Last => Pooled::Last,
    })
}

/// The side in pixels for which the image tower has positions, if the model sees images of another size, and
/// transformers interpolates positions only on request.
pub(crate) fn interpolated_from(loaded: &LoadedModel) -> Option<usize> {
    let family = loaded.image_config["model_type"].as_str()?;
    let ImageTowerConfig::Transformer(config) = loaded.model.image_tower.config() else { return None };
    let (height, width) = loaded.processor.output_size();
    let own = config.image_size;
    let is_own = (height as usize, width as usize) == (own, own);
    (!is_own && FIXED_SIZE.contains(&family)).then_some(own)
}

/// Refuses images of another size than the tower's own, if the module would have to interpolate positions.
fn refuse_other_size(loaded: &LoadedModel) -> Result<(), TrainError> {
    let Some(own) = interpolated_from(loaded) else { return Ok(()) };
    let (height, width) = loaded.processor.output_size();
    Err(TrainError::Usage(format!(
        "sentence-transformers runs this image tower only at its own size of {own}x{own} px, but this model sees \
         images of {width}x{height} px; export with `--format transformers`, or train without `model.image_size`"
    )))
}
