//! Image towers: `[batch, 3, height, width]` to `[batch, width]`. Transformers, convolutional networks and what
//! lies between have nothing in common but this.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::dual_encoder::lora::VisitLinear;
use crate::layers::linear::Dropout;
use crate::params::builder::ParamBuilder;
use crate::params::values as parameters;
use crate::pooling::Pooling;
use crate::vision::conv_net::{ConvNet, ConvNetConfig};
use crate::vision::swin_transformer::{Swin, SwinConfig};
use crate::vision::vision_transformer::{Pooler, VisionTransformer, VisionTransformerConfig};

/// What an image tower is made of, whichever family it came from.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageTowerConfig {
    /// Tokens and attention.
    Transformer(VisionTransformerConfig),
    /// Feature maps.
    Convolutional(ConvNetConfig),
    /// Tokens and attention within windows.
    Windowed(SwinConfig),
}

/// An image tower.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "few are made, and what is large in them are tensors")]
pub enum ImageTower {
    /// Tokens and attention.
    Transformer(VisionTransformer),
    /// Feature maps.
    Convolutional(ConvNet),
    /// Tokens and attention within windows.
    Windowed(Swin),
}

/// What a tower gives back.
#[derive(Debug, Clone)]
pub struct TowerOutput {
    /// The last hidden state of every real token, `[rows, width]`, sequence after sequence. The tokens of a convolutional
    /// tower are the places of its last feature map, row by row.
    pub hidden: Tensor<2>,
    /// `[batch, width]`.
    pub pooled: Tensor<2>,
}

/// How the reference can pool as a tower does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferencePooling {
    /// By itself: it is what the family calls `pooler_output`.
    Own,
    /// With a pooler that has no nonlinearity and an identity matrix.
    IdentityPooler,
    /// Not at all.
    None,
}

impl ImageTowerConfig {
    /// The same with both dropouts replaced, where a value is given and the tower has dropout.
    #[must_use]
    pub fn with_dropout(self, dropout: Option<f64>) -> Self {
        match self {
            Self::Transformer(config) => {
                let encoder = config.encoder.clone().with_dropout(dropout);
                Self::Transformer(VisionTransformerConfig { encoder, ..config })
            }
            Self::Convolutional(config) => Self::Convolutional(config),
            Self::Windowed(config) => {
                let stages = config.stages.iter().map(|stage| stage.clone().with_dropout(dropout)).collect();
                Self::Windowed(SwinConfig { stages, ..config })
            }
        }
    }

    /// What `pooling` takes from this tower, in words.
    pub fn describe_pooling(&self, pooling: Pooling) -> &'static str {
        match self {
            Self::Transformer(config) => config.describe_pooling(pooling),
            Self::Convolutional(_) | Self::Windowed(_) => "the mean over the last feature map",
        }
    }

    /// Whether such a tower can pool like that; else why not.
    pub(crate) fn check_pooling(&self, pooling: Pooling) -> Result<(), &'static str> {
        match self {
            Self::Transformer(config) => config.check_pooling(pooling),
            Self::Convolutional(_) | Self::Windowed(_) if pooling == Pooling::Cls => Err("it has no class token"),
            Self::Convolutional(_) | Self::Windowed(_) => Ok(()),
        }
    }
}

impl ImageTower {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: ImageTowerConfig, pooling: Pooling) -> Self {
        match config {
            ImageTowerConfig::Transformer(config) => Self::Transformer(VisionTransformer::new(at, config, pooling)),
            ImageTowerConfig::Convolutional(config) => Self::Convolutional(ConvNet::new(at, config, pooling)),
            ImageTowerConfig::Windowed(config) => Self::Windowed(Swin::new(at, config, pooling)),
        }
    }

    /// The config the tower was built from.
    pub fn config(&self) -> ImageTowerConfig {
        match self {
            Self::Transformer(tower) => ImageTowerConfig::Transformer(tower.config().clone()),
            Self::Convolutional(tower) => ImageTowerConfig::Convolutional(tower.config().clone()),
            Self::Windowed(tower) => ImageTowerConfig::Windowed(tower.config().clone()),
        }
    }

    /// Width of what it gives back.
    pub fn width(&self) -> usize {
        match self {
            Self::Transformer(tower) => tower.config().encoder.width,
            Self::Convolutional(tower) => tower.config().width(),
            Self::Windowed(tower) => tower.config().width(),
        }
    }

    /// Sides of images must be multiples of this, in pixels.
    pub fn side_multiple(&self) -> usize {
        match self {
            Self::Transformer(tower) => tower.config().patch_size,
            Self::Convolutional(_) => 1,
            Self::Windowed(tower) => tower.config().patch_size,
        }
    }

    /// Images must have at least this many pixels a side.
    pub fn smallest_side(&self) -> usize {
        match self {
            Self::Transformer(tower) => tower.config().patch_size,
            Self::Convolutional(tower) => tower.config().smallest_side(),
            Self::Windowed(tower) => tower.config().patch_size,
        }
    }

    /// How the tower makes one vector of an image.
    pub fn pooling(&self) -> Pooling {
        match self {
            Self::Transformer(tower) => tower.pooling(),
            Self::Convolutional(tower) => tower.pooling(),
            Self::Windowed(tower) => tower.pooling(),
        }
    }

    /// How the reference can pool as this tower does.
    pub fn reference_pooling(&self) -> ReferencePooling {
        match self {
            Self::Transformer(tower) => match (tower.pooling(), tower.config().pooler) {
                (Pooling::Pooler, _) | (Pooling::Cls, Pooler::ClassToken) => ReferencePooling::Own,
                (Pooling::Cls, Pooler::Dense(_)) => ReferencePooling::IdentityPooler,
                _ => ReferencePooling::None,
            },
            Self::Convolutional(_) | Self::Windowed(_) => ReferencePooling::Own,
        }
    }

    /// Whether all its parameters are outside of the gradient graph.
    pub fn is_locked(&self) -> bool {
        !parameters::any_trains(self)
    }

    /// The linears of its blocks, by path; those of convolutional towers are none.
    pub(crate) fn linears(&mut self, path: &str, visit: &mut VisitLinear<'_>) {
        match self {
            Self::Transformer(tower) => tower.linears(path, visit),
            Self::Convolutional(_) => {}
            Self::Windowed(tower) => tower.linears(path, visit),
        }
    }

    /// `[batch, 3, height, width]`, normalised pixels.
    pub fn forward(&self, pixels: Tensor<4>, dropout: &Dropout) -> TowerOutput {
        match self {
            Self::Transformer(tower) => tower.forward(pixels, dropout),
            Self::Convolutional(tower) => tower.forward(pixels),
            Self::Windowed(tower) => tower.forward(pixels, dropout),
        }
    }
}
