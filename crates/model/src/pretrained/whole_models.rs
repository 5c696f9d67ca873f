//! Models with both towers in one directory: what each kind keeps where in `config.json` and in its weights.

use serde_json::Value;

use crate::pooling::Pool;
use crate::weights::weight_files::{HostTensor, WeightFiles};

/// The `model_type` of the reference's composite.
pub const DUAL_ENCODER_TYPE: &str = "vision-text-dual-encoder";

/// The projections' names.
const PROJECTIONS: [&str; 2] = ["visual_projection.weight", "text_projection.weight"];

/// Which of the two towers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Image,
    Text,
}

impl Side {
    /// Where configs keep that of the tower.
    fn config_key(self) -> &'static str {
        match self {
            Self::Image => "vision_config",
            Self::Text => "text_config",
        }
    }

    /// What comes before the names of its tensors.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Image => "vision_model.",
            Self::Text => "text_model.",
        }
    }
}

/// A kind of model with both towers.
#[derive(Debug)]
pub(crate) struct Composite {
    model_type: &'static str,
    /// `model_type` of the towers.
    image: TowerType,
    text: TowerType,
    /// What `text_pool = "auto"` means, where it is not the text tower's own choice.
    text_pool: Pool,
    /// Whether it projects the towers' outputs; otherwise they are compared as they are.
    projects: bool,
}

/// The `model_type` of a tower within a composite.
#[derive(Debug)]
enum TowerType {
    /// The one its config says, or this.
    Default(&'static str),
    /// This one, whose network it is under another name.
    Always(&'static str),
}

/// Every kind. transformers 5 takes a VisionTextDualEncoder without configs for ViT and BERT.
const COMPOSITES: &[Composite] = &[
    Composite {
        model_type: DUAL_ENCODER_TYPE,
        image: TowerType::Default("vit"),
        text: TowerType::Default("bert"),
        text_pool: Pool::Auto,
        projects: true,
    },
    Composite {
        model_type: "clip",
        image: TowerType::Default("clip_vision_model"),
        text: TowerType::Default("clip_text_model"),
        text_pool: Pool::Auto,
        projects: true,
    },
    // A BERT without pooler beside CLIP's image tower (Yang et al., 2022; modeling_chinese_clip.py).
    Composite {
        model_type: "chinese_clip",
        image: TowerType::Always("clip_vision_model"),
        text: TowerType::Always("bert"),
        text_pool: Pool::Cls,
        projects: true,
    },
    Composite {
        model_type: "siglip",
        image: TowerType::Default("siglip_vision_model"),
        text: TowerType::Default("siglip_text_model"),
        text_pool: Pool::Auto,
        projects: false,
    },
    // Its image tower for images of any shape is no tower here; its text tower is.
    Composite {
        model_type: "siglip2",
        image: TowerType::Default("siglip2_vision_model"),
        text: TowerType::Default("siglip2_text_model"),
        text_pool: Pool::Auto,
        projects: false,
    },
];

/// `model_type` of all, for messages.
pub(crate) fn supported() -> String {
    COMPOSITES.iter().map(|composite| composite.model_type).collect::<Vec<_>>().join(", ")
}

impl Composite {
    /// The kind that `config` is of, if it is one.
    pub fn of(config: &Value) -> Option<&'static Self> {
        let model_type = config["model_type"].as_str()?;
        COMPOSITES.iter().find(|composite| composite.model_type == model_type)
    }

    /// The config of one tower, which gets its `model_type`.
    ///
    /// Early CLIP configs say the same twice and hold to `{part}_dict` (configuration_clip.py,
    /// `CLIPConfig.__post_init__`).
    pub fn tower_config(&self, config: &Value, side: Side) -> Value {
        let legacy = &config[format!("{}_dict", side.config_key())];
        let mut tower = if legacy.is_object() { legacy } else { &config[side.config_key()] }.clone();
        let model_type = match side {
            Side::Image => &self.image,
            Side::Text => &self.text,
        };
        match model_type {
            TowerType::Default(_) if tower["model_type"].is_string() => {}
            // No config at all: whoever reads it says so.
            _ if !tower.is_object() && !tower.is_null() => {}
            TowerType::Default(name) | TowerType::Always(name) => tower["model_type"] = (*name).into(),
        }
        tower
    }

    /// What `pool` means for the text tower.
    pub fn text_pool(&self, pool: Pool) -> Pool {
        match pool {
            Pool::Auto => self.text_pool,
            chosen => chosen,
        }
    }

    /// Projections, scale and bias of the whole's `weights`, as a VisionTextDualEncoder keeps them: scalars have no
    /// dimension, and where the kind does not project, identities of the towers' widths do.
    ///
    /// # Errors
    /// What is wrong, where such outputs cannot be compared.
    pub fn head(&self, weights: &WeightFiles, image_width: usize, text_width: usize) -> Result<WeightFiles, String> {
        let mut head = WeightFiles::default();
        for name in PROJECTIONS {
            head.extend(name, weights.get(name).cloned());
        }
        for name in ["logit_scale", "logit_bias"] {
            let scalar = weights.get(name).filter(|tensor| tensor.values.len() == 1);
            head.extend(name, scalar.map(|tensor| HostTensor { shape: Vec::new(), values: tensor.values.clone() }));
        }
        if !self.projects && image_width != text_width {
            return Err(format!(
                "a `{}` compares its towers' outputs as they are, but they are {image_width} (image) and {text_width} (text) \
                 wide; set `image_pool` and `text_pool` to \"auto\", or name the directory as both `image_tower` and \
                 `text_tower` to start with fresh projections",
                self.model_type
            ));
        }
        if !self.projects {
            head.extend(PROJECTIONS[0], Some(HostTensor::identity(image_width)));
            head.extend(PROJECTIONS[1], Some(HostTensor::identity(text_width)));
        }
        Ok(head)
    }
}
