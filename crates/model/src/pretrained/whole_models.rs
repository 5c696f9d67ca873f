//! The kinds of model that have both towers in one directory, and where each keeps what.

use serde_json::Value;

use crate::dual_encoder::config::{DUAL_ENCODER_TYPE, LOGIT_SCALE_INIT};
use crate::pooling::Pool;
use crate::tower::Tower;
use crate::weights::host_tensor::HostTensor;
use crate::weights::layout::Layout;
use crate::weights::name_table::{Kind, Names};
use crate::weights::weight_files::WeightFiles;

/// Names of the projections and the temperature in a file of the reference.
pub(crate) const HEAD: Names = Names {
    rows: &[
        ("image_projection.weight", "visual_projection.weight", Kind::Tensor(Layout::Transposed)),
        ("text_projection.weight", "text_projection.weight", Kind::Tensor(Layout::Transposed)),
        ("logit_scale", "logit_scale", Kind::Tensor(Layout::Scalar)),
        ("logit_bias", "logit_bias", Kind::Tensor(Layout::Scalar)),
    ],
    prefixes: &[""],
    probe: "visual_projection",
};

/// Names of the projections in a file of the reference.
const PROJECTIONS: [&str; 2] = ["visual_projection.weight", "text_projection.weight"];

/// Name of the logarithm of the inverse temperature.
const LOGIT_SCALE: &str = "logit_scale";

/// What to say about a model without `logit_scale` that gets this one.
pub(crate) fn missing_scale_warning(scale: f64) -> String {
    format!(
        "`logit_scale` is not in the weights; it is {scale}, with which a new model of this config starts, so \
         probabilities and losses are not those of the trained model"
    )
}

/// A kind of model with both towers.
#[derive(Debug)]
pub(crate) struct WholeModel {
    model_type: &'static str,
    /// `model_type` of its towers.
    image: TowerType,
    text: TowerType,
    /// The pooling that replaces `text_pool = "auto"`.
    text_pool: Pool,
    /// Whether it projects the pooled outputs of its towers; otherwise it compares them directly.
    projects: bool,
}

/// The `model_type` of a tower within a whole model.
#[derive(Debug)]
enum TowerType {
    /// The one in the config of the tower, by default this.
    Default(&'static str),
    /// This one, whatever the config says: the same network under another name.
    Always(&'static str),
}

/// The supported kinds. In transformers 5, a VisionTextDualEncoder without tower configs has a ViT and a BERT.
const WHOLE_MODELS: &[WholeModel] = &[
    WholeModel {
        model_type: DUAL_ENCODER_TYPE,
        image: TowerType::Default("vit"),
        text: TowerType::Default("bert"),
        text_pool: Pool::Auto,
        projects: true,
    },
    WholeModel {
        model_type: "clip",
        image: TowerType::Default("clip_vision_model"),
        text: TowerType::Default("clip_text_model"),
        text_pool: Pool::Auto,
        projects: true,
    },
    // A BERT without pooler beside CLIP's image tower (Yang et al., 2022; modeling_chinese_clip.py).
    WholeModel {
        model_type: "chinese_clip",
        image: TowerType::Always("clip_vision_model"),
        text: TowerType::Always("bert"),
        text_pool: Pool::Cls,
        projects: true,
    },
    WholeModel {
        model_type: "siglip",
        image: TowerType::Default("siglip_vision_model"),
        text: TowerType::Default("siglip_text_model"),
        text_pool: Pool::Auto,
        projects: false,
    },
    // Its image tower, for images of any shape, is not supported; its text tower is.
    WholeModel {
        model_type: "siglip2",
        image: TowerType::Default("siglip2_vision_model"),
        text: TowerType::Default("siglip2_text_model"),
        text_pool: Pool::Auto,
        projects: false,
    },
];

/// The `model_type` of every supported kind, for messages.
pub(crate) fn supported_types() -> String {
    WHOLE_MODELS.iter().map(|kind| kind.model_type).collect::<Vec<_>>().join(", ")
}

impl WholeModel {
    /// The kind of model that `config` describes, if any.
    pub fn of(config: &Value) -> Option<&'static Self> {
        let model_type = config["model_type"].as_str()?;
        WHOLE_MODELS.iter().find(|kind| kind.model_type == model_type)
    }

    /// The config of one tower, with its `model_type` filled in.
    ///
    /// Early CLIP configs hold each tower's config twice, of which `{key}_dict` takes precedence
    /// (configuration_clip.py, `CLIPConfig.__post_init__`).
    pub fn tower_config(&self, config: &Value, tower: Tower) -> Value {
        let (key, model_type) = match tower {
            Tower::Image => ("vision_config", &self.image),
            Tower::Text => ("text_config", &self.text),
        };
        let legacy = &config[format!("{key}_dict")];
        let mut tower_config = if legacy.is_object() { legacy } else { &config[key] }.clone();
        match model_type {
            TowerType::Default(_) if tower_config["model_type"].is_string() => {}
            // Not a config; the reader of the family reports it.
            _ if !tower_config.is_object() && !tower_config.is_null() => {}
            TowerType::Default(name) | TowerType::Always(name) => tower_config["model_type"] = (*name).into(),
        }
        tower_config
    }

    /// Resolves `pool` for the text tower of this kind.
    pub fn text_pool(&self, pool: Pool) -> Pool {
        match pool {
            Pool::Auto => self.text_pool,
            chosen => chosen,
        }
    }

    /// The `logit_scale` of a model with these `weights` and this `config`, if the weights lack it: that of
    /// a new model in transformers. That is `logit_scale_init_value` of the config (`__init__` of `CLIPModel` and
    /// `VisionTextDualEncoderModel`), and 0 for SigLIP (`_init_weights` of `modeling_siglip.py`).
    /// Loading such weights, transformers 5.23 sets SigLIP's alone, and leaves the others uninitialised memory.
    ///
    /// # Errors
    /// A description, if the value in the config is not a finite number.
    pub fn missing_scale(&self, config: &Value, weights: &WeightFiles) -> Result<Option<f64>, String> {
        if weights.get(LOGIT_SCALE).is_some() {
            return Ok(None);
        }
        let key = "logit_scale_init_value";
        let found = &config[key];
        match (self.projects, found) {
            (false, _) => Ok(Some(0.0)),
            (true, Value::Null) => Ok(Some(LOGIT_SCALE_INIT)),
            (true, _) => match found.as_f64().filter(|value| value.is_finite()) {
                Some(value) => Ok(Some(value)),
                None => Err(format!("`{key}` is `{found}`, expected a number such as {LOGIT_SCALE_INIT}")),
            },
        }
    }

    /// The projections, scale and bias among `weights`, as a VisionTextDualEncoder stores them: scalars have no
    /// dimension, and the projections of a kind that does not project are identities.
    ///
    /// # Errors
    /// A description, if the scale or the bias is not a single number, or if the kind does not project and the towers
    /// have different widths.
    pub fn head(&self, weights: &WeightFiles, image_width: usize, text_width: usize) -> Result<WeightFiles, String> {
        let mut head = WeightFiles::default();
        for name in PROJECTIONS {
            if let Some(projection) = weights.get(name) {
                head.insert(name, projection.clone());
            }
        }
        for name in [LOGIT_SCALE, "logit_bias"] {
            let Some(scalar) = weights.get(name) else { continue };
            if scalar.count() != 1 {
                return Err(format!(
                    "`{name}` of its weights has the shape {:?}, expected a single number; write the weights anew from \
                     the model that they come from",
                    scalar.shape
                ));
            }
            head.insert(name, scalar.reshaped(Vec::new()));
        }
        if !self.projects && image_width != text_width {
            return Err(format!(
                "a `{}` compares the outputs of its towers directly, but their widths are {image_width} (image) and \
                 {text_width} (text); set `image_pool` and `text_pool` to \"auto\", or set both `image_tower` and \
                 `text_tower` to this directory to start with newly initialised projections",
                self.model_type
            ));
        }
        if !self.projects {
            head.insert(PROJECTIONS[0], HostTensor::identity(image_width).into());
            head.insert(PROJECTIONS[1], HostTensor::identity(text_width).into());
        }
        Ok(head)
    }
}
