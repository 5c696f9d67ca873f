//! An image tower of any kind: `[batch, 3, height, width]` to `[batch, width]`. Its kinds have only this in common.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::error::ModelError;
use crate::layers::dropout::Dropout;
use crate::layers::linear::LinearVisitor;
use crate::params::builder::ParamBuilder;
use crate::params::inventory::any_trains;
use crate::pooled_layers::Taken;
use crate::pooling::{Pool, Pooling};
use crate::tower::TowerOutput;
use crate::vision::absent_tower::AbsentTower;
use crate::vision::conv_net::{ConvNet, ConvNetConfig};
use crate::vision::swin_transformer::{Swin, SwinConfig};
use crate::vision::token_layout::TokenLayout;
use crate::vision::vision_transformer::VisionTransformer;
use crate::vision::vit_config::{Pooler, VisionTransformerConfig};

/// The architecture of an image tower, whichever family it came from.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageTowerConfig {
    /// A vision transformer.
    Transformer(VisionTransformerConfig),
    /// A convolutional network.
    Convolutional(ConvNetConfig),
    /// A transformer with attention within windows.
    Windowed(SwinConfig),
    /// None: the outputs come from files.
    Absent {
        /// Width of the outputs.
        width: usize,
    },
}

/// An image tower.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "few are made, and their size is that of the tensors they hold")]
pub enum ImageTower {
    /// A vision transformer.
    Transformer(VisionTransformer),
    /// A convolutional network.
    Convolutional(ConvNet),
    /// A transformer with attention within windows.
    Windowed(Swin),
    /// None: the outputs come from files.
    Absent(AbsentTower),
}

/// How the reference can reproduce the pooling of a tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferencePooling {
    /// As it is: this is what the family calls `pooler_output`.
    Own,
    /// With a pooler that has an identity matrix as its weight and the identity as its activation.
    IdentityPooler,
    /// Not at all.
    None,
}

impl ImageTowerConfig {
    /// Replaces both dropout probabilities, if `dropout` is given and the tower has dropout.
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
            Self::Absent { width } => Self::Absent { width },
        }
    }

    /// Takes means of `grid` times `grid` cells for the patch tokens, where the output is all tokens.
    #[must_use]
    pub(crate) fn with_token_grid(self, grid: Option<usize>) -> Self {
        match self {
            Self::Transformer(config) => Self::Transformer(VisionTransformerConfig { token_grid: grid, ..config }),
            other => other,
        }
    }

    /// Pools the layers of `taken`. Only a transformer has several.
    #[must_use]
    pub(crate) fn taking(self, taken: &Taken) -> Self {
        match self {
            Self::Transformer(config) => Self::Transformer(VisionTransformerConfig {
                skip_final_norm: !taken.norm,
                pooled_layers: taken.several(),
                ..config
            }),
            other => other,
        }
    }

    /// Describes in words what `pooling` takes from this tower.
    pub fn describe_pooling(&self, pooling: Pooling) -> &'static str {
        match self {
            Self::Transformer(config) => config.describe_pooling(pooling),
            Self::Convolutional(_) | Self::Windowed(_) => "the mean over the last feature map",
            Self::Absent { .. } => "a row of features",
        }
    }

    /// Resolves `pool`; the error says why the tower cannot pool this way.
    pub(crate) fn resolve(&self, pool: Pool) -> Result<Pooling, &'static str> {
        let pooling = match (pool, self) {
            (Pool::PatchMean, Self::Convolutional(_) | Self::Windowed(_) | Self::Absent { .. }) => {
                return Err("it has no patch tokens: `mean` is the mean over its last feature map");
            }
            (Pool::Sentence, _) => return Err("it is a pooling of text towers"),
            (Pool::Last, _) => return Err("only a text has a last token"),
            (Pool::Cls, _) => Pooling::Cls,
            (Pool::ClsMean, _) => Pooling::ClsMean,
            (Pool::Tokens, _) => Pooling::Tokens,
            // The mean of a vision transformer leaves every special token out.
            (Pool::Mean | Pool::PatchMean, _) => Pooling::Mean,
            // Every supported family has a `pooler_output`, or refuses it.
            (Pool::Auto | Pool::Pooler, _) => Pooling::Pooler,
        };
        self.check_pooling(pooling).map(|()| pooling)
    }

    /// Checks that the tower can pool this way; the error says why not.
    pub(crate) fn check_pooling(&self, pooling: Pooling) -> Result<(), &'static str> {
        match (self, pooling) {
            (_, Pooling::Last) => Err("only a text has a last token"),
            (Self::Transformer(config), _) => config.check_pooling(pooling),
            (Self::Convolutional(_) | Self::Windowed(_), Pooling::Cls | Pooling::ClsMean) => {
                Err("it has no class token")
            }
            (Self::Convolutional(_) | Self::Windowed(_) | Self::Absent { .. }, Pooling::Tokens) => {
                Err("it has no patch tokens")
            }
            (Self::Absent { .. }, _) | (_, Pooling::Mean | Pooling::Pooler) => Ok(()),
        }
    }

    /// Width of the output of `pooling`, over all pooled layers. That of all tokens is for images of the size the tower
    /// was trained on.
    pub fn pooled_width(&self, pooling: Pooling) -> usize {
        match self {
            Self::Transformer(config) => config.pooled_width(pooling, config.grid()),
            Self::Convolutional(config) => config.width(),
            Self::Windowed(config) => config.width(),
            Self::Absent { width } => *width,
        }
    }

    /// Whether `pooling` has weights of its own, which were trained for the last layer.
    pub fn pools_by_last_layer(&self, pooling: Pooling) -> bool {
        match self {
            Self::Transformer(config) => {
                pooling == Pooling::Pooler && matches!(config.pooler, Pooler::Dense(_) | Pooler::Attention)
            }
            Self::Convolutional(_) | Self::Windowed(_) | Self::Absent { .. } => false,
        }
    }
}

impl ImageTower {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: ImageTowerConfig, pooling: Pooling) -> Self {
        match config {
            ImageTowerConfig::Transformer(config) => Self::Transformer(VisionTransformer::new(at, config, pooling)),
            ImageTowerConfig::Convolutional(config) => Self::Convolutional(ConvNet::new(at, config, pooling)),
            ImageTowerConfig::Windowed(config) => Self::Windowed(Swin::new(at, config, pooling)),
            ImageTowerConfig::Absent { width } => Self::Absent(AbsentTower::new(width)),
        }
    }

    /// The tower for images of `height` and `width` in pixels, which the width of all tokens depends on.
    #[must_use]
    pub fn for_images(self, height: usize, width: usize) -> Self {
        match self {
            Self::Transformer(tower) => Self::Transformer(tower.for_images(height, width)),
            other => other,
        }
    }

    /// The architecture that the tower was built from.
    pub fn config(&self) -> ImageTowerConfig {
        match self {
            Self::Transformer(tower) => ImageTowerConfig::Transformer(tower.config().clone()),
            Self::Convolutional(tower) => ImageTowerConfig::Convolutional(tower.config().clone()),
            Self::Windowed(tower) => ImageTowerConfig::Windowed(tower.config().clone()),
            Self::Absent(tower) => ImageTowerConfig::Absent { width: tower.width() },
        }
    }

    /// The architecture and the pooling in a written, versioned form that is stable across releases, for cache keys.
    /// Together with the values of the parameters, it determines the output for an image.
    pub fn form(&self) -> String {
        let architecture = match self {
            Self::Transformer(tower) => tower.config().form(),
            Self::Convolutional(tower) => tower.config().form(),
            Self::Windowed(tower) => tower.config().form(),
            Self::Absent(tower) => format!("absent(width={})", tower.width()),
        };
        format!("image-tower 1 {architecture} pooling={}", self.pooling().form())
    }

    /// Width of the pooled output.
    pub fn width(&self) -> usize {
        match self {
            Self::Transformer(tower) => tower.pooled_width(),
            Self::Convolutional(tower) => tower.config().width(),
            Self::Windowed(tower) => tower.config().width(),
            Self::Absent(tower) => tower.width(),
        }
    }

    /// Whether the tower is not there: its outputs come from files, and it cannot run.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_))
    }

    /// Height and width of images must be multiples of this, in pixels.
    pub fn side_multiple(&self) -> usize {
        match self {
            Self::Transformer(tower) => tower.config().patch_size,
            Self::Convolutional(_) | Self::Absent(_) => 1,
            Self::Windowed(tower) => tower.config().patch_size,
        }
    }

    /// Smallest height and width of an image, in pixels.
    pub fn min_side(&self) -> usize {
        match self {
            Self::Transformer(tower) => tower.config().patch_size,
            Self::Convolutional(tower) => tower.config().min_side(),
            Self::Windowed(tower) => tower.config().patch_size,
            Self::Absent(_) => 1,
        }
    }

    /// How the tower pools.
    pub fn pooling(&self) -> Pooling {
        match self {
            Self::Transformer(tower) => tower.pooling(),
            Self::Convolutional(tower) => tower.pooling(),
            Self::Windowed(tower) => tower.pooling(),
            Self::Absent(_) => Pooling::Pooler,
        }
    }

    /// Side of the grid of means that stand for the patch tokens, if the output is all tokens and some do.
    pub fn token_grid(&self) -> Option<usize> {
        self.token_layout()?.grid
    }

    /// Where the tokens are in the pooled output, if it holds all tokens.
    pub(crate) fn token_layout(&self) -> Option<TokenLayout> {
        match self {
            Self::Transformer(tower) if tower.pooling() == Pooling::Tokens => {
                let config = tower.config();
                Some(TokenLayout {
                    width: config.encoder.width,
                    special: config.num_special_tokens(),
                    class_token: config.class_token,
                    grid: config.token_grid,
                })
            }
            _ => None,
        }
    }

    /// How the reference can reproduce the pooling of this tower.
    pub fn reference_pooling(&self) -> ReferencePooling {
        match self {
            Self::Transformer(tower) if tower.config().skip_final_norm || !tower.config().pooled_layers.is_empty() => {
                ReferencePooling::None
            }
            Self::Transformer(tower) => match (tower.pooling(), tower.config().pooler) {
                (Pooling::Pooler, _) | (Pooling::Cls, Pooler::ClassToken) => ReferencePooling::Own,
                (Pooling::Cls, Pooler::Dense(_)) => ReferencePooling::IdentityPooler,
                _ => ReferencePooling::None,
            },
            Self::Convolutional(_) | Self::Windowed(_) => ReferencePooling::Own,
            Self::Absent(_) => ReferencePooling::None,
        }
    }

    /// The layers to pool and concatenate, from 1; empty if only the last is pooled.
    pub fn pooled_layers(&self) -> &[usize] {
        match self {
            Self::Transformer(tower) => &tower.config().pooled_layers,
            Self::Convolutional(_) | Self::Windowed(_) | Self::Absent(_) => &[],
        }
    }

    /// Whether all its parameters are frozen.
    pub fn is_locked(&self) -> bool {
        !any_trains(self)
    }

    /// Calls `visit` for each linear that can have an adapter; `path` is the tower's own. Convolutional towers have
    /// none.
    pub(crate) fn visit_linears(&mut self, path: &str, visit: &mut LinearVisitor<'_>) {
        match self {
            Self::Transformer(tower) => tower.visit_linears(path, visit),
            Self::Convolutional(_) | Self::Absent(_) => {}
            Self::Windowed(tower) => tower.visit_linears(path, visit),
        }
    }

    /// Whether [`ImageTower::packed`] changes it: ResNets have convolutions only.
    pub fn has_linears(&self) -> bool {
        match self {
            Self::Transformer(_) | Self::Windowed(_) => true,
            Self::Convolutional(tower) => tower.has_linears(),
            Self::Absent(_) => false,
        }
    }

    /// The tower for inference on the CPU, with the weights of its linear layers rounded to bf16 and packed for
    /// [`bf16_instructions`](dualenc_kernels::bf16_instructions). Their inputs are rounded too; sums, and everything
    /// between the layers, are in `f32`. Poolers, which see one row for each image, and convolutions stay as they are.
    ///
    /// Such a tower can only run: the weights of these layers are gone.
    ///
    /// # Panics
    /// Unless the processor has the instructions, and the parameters are `f32` on the CPU.
    #[must_use]
    pub fn packed(mut self) -> Self {
        match &mut self {
            Self::Transformer(tower) => tower.pack(),
            Self::Convolutional(tower) => tower.pack(),
            Self::Windowed(tower) => tower.pack(),
            Self::Absent(_) => {}
        }
        self
    }

    /// Runs the tower on normalised pixels, `[batch, 3, height, width]`: `pooled` of the output is `[batch, width]`.
    ///
    /// # Panics
    /// If `height` or `width` is not a multiple of [`side_multiple`](Self::side_multiple), or below
    /// [`min_side`](Self::min_side); if the tower [is absent](Self::is_absent).
    pub fn forward(&self, pixels: Tensor<4>, dropout: &Dropout) -> TowerOutput {
        match self {
            Self::Transformer(tower) => tower.forward(pixels, dropout),
            Self::Convolutional(tower) => tower.forward(pixels),
            Self::Windowed(tower) => tower.forward(pixels, dropout),
            Self::Absent(_) => unreachable!("an absent image tower was asked to run: callers ask `is_absent` first"),
        }
    }

    /// How many layers, from the first, compute what is a function of the image alone while the rest of the tower
    /// trains: they are locked, with the embeddings before them. At most the lowest layer that is pooled, since norm
    /// and pooler, which may train, see its output. 0 for a tower that is no transformer over all patches.
    pub fn locked_layers(&self) -> usize {
        match self {
            Self::Transformer(tower) => tower.locked_layers(),
            Self::Convolutional(_) | Self::Windowed(_) | Self::Absent(_) => 0,
        }
    }

    /// The tower that ends after the first `layers` layers, and returns all tokens of an image, one after the other, as
    /// the last of these layers computes them. `None` for a tower without [`ImageTower::locked_layers`].
    #[must_use]
    pub fn ending_after(&self, layers: usize) -> Option<Self> {
        match self {
            Self::Transformer(tower) => Some(Self::Transformer(tower.ending_after(layers))),
            Self::Convolutional(_) | Self::Windowed(_) | Self::Absent(_) => None,
        }
    }

    /// Runs the rest of the tower after its first `layers` layers, up to [`ImageTower::locked_layers`], for images of
    /// `height` and `width` in pixels. `tokens` is the pooled output of [`ImageTower::ending_after`] them,
    /// `[batch, tokens * width]`; with it, the output is that of [`ImageTower::forward`].
    ///
    /// # Errors
    /// [`ModelError::Internal`] if the tower has no such layers.
    pub fn forward_after(
        &self,
        layers: usize,
        tokens: Tensor<2>,
        size: [usize; 2],
        dropout: &Dropout,
    ) -> Result<TowerOutput, ModelError> {
        match self {
            Self::Transformer(tower) => {
                let ([batch, values], width) = (tokens.dims(), tower.config().encoder.width);
                let hidden = tokens.reshape([batch * (values / width), width]);
                Ok(tower.forward_after(layers, hidden, size, dropout))
            }
            Self::Convolutional(_) | Self::Windowed(_) | Self::Absent(_) => {
                Err(ModelError::Internal("an image tower that cannot be cut was asked for its last layers".to_owned()))
            }
        }
    }

    /// The poolings of [`ImageTower::forward_layers`]: that of the tower, and those that need no weights of their own.
    pub fn poolings(&self) -> Vec<Pooling> {
        let config = self.config();
        let plain = match self {
            Self::Transformer(_) => &[Pooling::Cls, Pooling::Mean, Pooling::ClsMean][..],
            Self::Convolutional(_) | Self::Windowed(_) | Self::Absent(_) => &[],
        };
        let others = plain.iter().copied().filter(|&it| it != self.pooling() && config.check_pooling(it).is_ok());
        std::iter::once(self.pooling()).chain(others).collect()
    }

    /// Number of blocks with an output that [`ImageTower::forward_layers`] pools; 1 if it only pools the last hidden
    /// state.
    pub fn num_layers(&self) -> usize {
        match self {
            Self::Transformer(tower) => tower.num_layers(),
            Self::Convolutional(_) | Self::Windowed(_) | Self::Absent(_) => 1,
        }
    }

    /// Runs the tower on normalised pixels, `[batch, 3, height, width]`, and pools the output of each block in each of
    /// `poolings`, which are among [`ImageTower::poolings`]: `[batch, pooled width]`. A layer is what the tower returns
    /// with only the blocks up to there (`num_hidden_layers` in its `config.json`), final norm included. Layers that
    /// `wanted` refuses, numbered from 1, are empty.
    ///
    /// # Panics
    /// As [`ImageTower::forward`].
    pub fn forward_layers(
        &self,
        pixels: Tensor<4>,
        poolings: &[Pooling],
        wanted: impl Fn(usize) -> bool,
    ) -> Vec<Vec<Tensor<2>>> {
        match self {
            Self::Transformer(tower) => tower.forward_layers(pixels, poolings, wanted),
            Self::Convolutional(_) | Self::Windowed(_) | Self::Absent(_) => {
                vec![vec![self.forward(pixels, &Dropout::off()).pooled; poolings.len()]]
            }
        }
    }
}
