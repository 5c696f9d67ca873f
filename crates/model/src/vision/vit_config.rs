//! The architecture of a vision transformer.

use crate::form::list;
use crate::pooling::Pooling;
use crate::transformer::config::EncoderConfig;
use crate::vision::position_interpolation::Interpolation;

/// The architecture of a vision transformer, whichever family it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionTransformerConfig {
    /// The encoder.
    pub encoder: EncoderConfig,
    /// Side of the square images the tower was trained on, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Whether the patch embedding has a bias.
    pub patch_bias: bool,
    /// Whether the first token is a class token.
    pub class_token: bool,
    /// Whether DeiT's distillation token follows.
    pub distillation_token: bool,
    /// Number of register tokens (Darcet et al., 2024), which follow, just before the patches, and have no positions.
    pub registers: usize,
    /// Whether weight files hold the token for masked patches, which only pretraining uses. It is carried over to
    /// exports.
    pub mask_token: bool,
    /// How positions of patches are encoded.
    pub positions: Positions,
    /// Whether embeddings are normalised before the first block.
    pub first_norm: bool,
    /// The norm after the last block.
    pub final_norm: FinalNorm,
    /// Whether that norm is left out: an earlier layer is pooled as it is.
    pub skip_final_norm: bool,
    /// Layers to pool and concatenate, from 1, in this order; empty if only the last is pooled. The tower
    /// ends with the highest.
    pub pooled_layers: Vec<usize>,
    /// What the family calls `pooler_output`.
    pub pooler: Pooler,
    /// Side of the grid of means that stand for the patch tokens, where the output is all tokens; `None`: themselves.
    pub token_grid: Option<usize>,
}

/// How positions of patches are encoded, apart from the relative position bias of the encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Positions {
    /// Not at all.
    None,
    /// A learned embedding per position, interpolated for other image sizes.
    Learned(Interpolation),
    /// Rotation of queries and keys, with this base of the frequencies.
    Rotary(f64),
}

/// What the norm after the last block is applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalNorm {
    /// Every token.
    Tokens,
    /// Only the pooled token: the last hidden state is not normalised (CLIP).
    Pooled,
    /// Nothing.
    None,
}

/// The `pooler_output` of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooler {
    /// A linear of the class token, then an activation.
    Dense(PoolerActivation),
    /// The class token.
    ClassToken,
    /// The mean of the patch tokens, normalised.
    MeanNorm,
    /// A learned query that attends to all tokens (MAP head, Zhai et al., 2022, app. B).
    Attention,
    /// None.
    None,
}

/// The nonlinearity of a pooler (`pooler_act`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolerActivation {
    /// tanh, the default of all families.
    Tanh,
    /// The identity. With an identity matrix, such a pooler returns the class token.
    Linear,
}

impl VisionTransformerConfig {
    /// The base that families override: a class token, learned positions, a final norm, no pooler layer.
    pub fn plain(encoder: EncoderConfig, image_size: usize, patch_size: usize) -> Self {
        Self {
            encoder,
            image_size,
            patch_size,
            patch_bias: true,
            class_token: true,
            distillation_token: false,
            registers: 0,
            mask_token: false,
            positions: Positions::Learned(Interpolation::Bicubic),
            first_norm: false,
            final_norm: FinalNorm::Tokens,
            skip_final_norm: false,
            pooled_layers: Vec::new(),
            pooler: Pooler::ClassToken,
            token_grid: None,
        }
    }

    /// The written form, for cache keys (see `form`).
    pub(crate) fn form(&self) -> String {
        let Self {
            encoder,
            image_size,
            patch_size,
            patch_bias,
            class_token,
            distillation_token,
            registers,
            mask_token,
            positions,
            first_norm,
            final_norm,
            skip_final_norm,
            pooled_layers,
            pooler,
            token_grid,
        } = self;
        let encoder = encoder.form();
        let positions = match positions {
            Positions::None => "none".to_owned(),
            Positions::Learned(interpolation) => format!("learned {}", interpolation.form()),
            Positions::Rotary(theta) => format!("rotary {theta}"),
        };
        let final_norm = match final_norm {
            FinalNorm::Tokens => "tokens",
            FinalNorm::Pooled => "pooled",
            FinalNorm::None => "none",
        };
        let pooler = match pooler {
            Pooler::Dense(PoolerActivation::Tanh) => "dense tanh",
            Pooler::Dense(PoolerActivation::Linear) => "dense linear",
            Pooler::ClassToken => "class-token",
            Pooler::MeanNorm => "mean-norm",
            Pooler::Attention => "attention",
            Pooler::None => "none",
        };
        let skipped = if *skip_final_norm { " skip-final-norm" } else { "" };
        let layers = match pooled_layers.as_slice() {
            [] => String::new(),
            layers => format!(" pooled-layers={}", list(layers)),
        };
        let grid = token_grid.map_or_else(String::new, |side| format!(" token-grid={side}"));
        format!(
            "vit({encoder} image={image_size} patch={patch_size} patch-bias={patch_bias} class={class_token} \
             distillation={distillation_token} registers={registers} mask={mask_token} positions={positions} \
             first-norm={first_norm} final-norm={final_norm} pooler={pooler}{skipped}{layers}{grid})"
        )
    }

    /// Number of special tokens with positions.
    pub(crate) fn num_positioned_tokens(&self) -> usize {
        usize::from(self.class_token) + usize::from(self.distillation_token)
    }

    /// Number of special tokens before the patches.
    pub(crate) fn num_special_tokens(&self) -> usize {
        self.num_positioned_tokens() + self.registers
    }

    /// Patches per side of the images the tower was trained on.
    pub(crate) fn grid(&self) -> [usize; 2] {
        [self.image_size / self.patch_size; 2]
    }

    /// Describes in words what `pooling` takes from this tower.
    pub(crate) fn describe_pooling(&self, pooling: Pooling) -> &'static str {
        match (pooling, self.pooler) {
            (Pooling::Mean, _) => "the mean of the patch tokens",
            (Pooling::Cls, _) => "the class token",
            (Pooling::ClsMean, _) => "the class token and the mean of the patch tokens, side by side",
            (Pooling::Pooler, Pooler::Dense(PoolerActivation::Tanh)) => {
                "the pooler: a linear of the class token and tanh"
            }
            (Pooling::Pooler, Pooler::Dense(PoolerActivation::Linear)) => "the pooler: a linear of the class token",
            (Pooling::Pooler, Pooler::ClassToken) => "the class token: its family has no pooler layer",
            (Pooling::Pooler, Pooler::MeanNorm) => "the pooler: the mean of the patch tokens, normalised",
            (Pooling::Pooler, Pooler::Attention) => "the head: a learned query that attends to all patch tokens",
            (Pooling::Tokens, _) => "all tokens, one after the other",
            (Pooling::Pooler, Pooler::None) | (Pooling::Last, _) => "nothing",
        }
    }

    /// Checks that the tower can pool this way; the error says why not.
    pub(crate) fn check_pooling(&self, pooling: Pooling) -> Result<(), &'static str> {
        match (pooling, self.pooler) {
            (Pooling::Cls | Pooling::ClsMean, _) if !self.class_token => Err("it has no class token"),
            (Pooling::Pooler, Pooler::None) => Err("it has no pooler"),
            _ => Ok(()),
        }
    }

    /// Width of the output of `pooling`, over all pooled layers, for images that are cut into a `grid` of patches.
    pub(crate) fn pooled_width(&self, pooling: Pooling, grid: [usize; 2]) -> usize {
        let of_layer = match pooling {
            Pooling::Tokens => {
                let patches = self.token_grid.map_or(grid[0] * grid[1], |side| side * side);
                (self.num_special_tokens() + patches) * self.encoder.width
            }
            Pooling::ClsMean => 2 * self.encoder.width,
            Pooling::Cls | Pooling::Mean | Pooling::Last | Pooling::Pooler => self.encoder.width,
        };
        of_layer * self.pooled_layers.len().max(1)
    }
}
