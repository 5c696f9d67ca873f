//! Vision transformers: patches, special tokens, positions, an encoder, pooling.

use burn::module::{Module, Param};
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::dual_encoder::lora::VisitLinear;
use crate::layers::linear::{Dropout, LayerNorm, Linear};
use crate::params::builder::{Init, ParamBuilder};
use crate::pooling::Pooling;
use crate::transformer::attention::Relations;
use crate::transformer::encoder::{AttentionPool, Encoder, EncoderConfig, RelativeTable};
use crate::transformer::rotary::Rotary;
use crate::transformer::sequence_layout::SequenceLayout;
use crate::vision::image_tower::TowerOutput;
use crate::vision::position_interpolation::Interpolation;

/// What a vision transformer is made of, whichever family it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionTransformerConfig {
    /// The blocks.
    pub encoder: EncoderConfig,
    /// Side of the square images that positions were learned for, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Whether the patch embedding has a bias.
    pub patch_bias: bool,
    /// Whether a class token comes first.
    pub class_token: bool,
    /// Whether DeiT's distillation token comes next.
    pub distillation_token: bool,
    /// Register tokens (Darcet et al., 2024), which come last before the patches and have no positions.
    pub registers: usize,
    /// Whether the files hold the token that stands for masked patches in pretraining. It is carried, not used.
    pub mask_token: bool,
    /// Where patches are.
    pub positions: Positions,
    /// Whether embeddings are normalised before the first block.
    pub first_norm: bool,
    /// The norm after the last block.
    pub final_norm: FinalNorm,
    /// What `pooler_output` is.
    pub pooler: Pooler,
}

/// How the tower knows where a patch is, apart from the encoder's relative position bias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Positions {
    /// It does not.
    None,
    /// A learned embedding a place, resized for other image sizes.
    Learned(Interpolation),
    /// Queries and keys are turned; the number is the base of the frequencies.
    Rotary(f64),
}

/// What the norm after the last block is applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalNorm {
    /// Every token.
    Tokens,
    /// Only what is pooled: the last hidden state stays as the blocks left it (CLIP).
    Pooled,
    /// Nothing.
    None,
}

/// What the family calls `pooler_output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooler {
    /// A learned layer over the class token.
    Dense(PoolerActivation),
    /// The class token.
    ClassToken,
    /// The mean of the patch tokens, normalised.
    MeanNorm,
    /// A learned query that attends to all tokens (MAP head, Zhai et al., 2022, app. B).
    Attention,
    /// It has none.
    None,
}

/// The nonlinearity of a pooler (`pooler_act`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolerActivation {
    /// tanh, the default everywhere.
    Tanh,
    /// None: with an identity matrix such a pooler returns the class token itself.
    Linear,
}

impl VisionTransformerConfig {
    /// A plain ViT around `encoder`, from which a family's differs in what its config says: class token, learned positions,
    /// final norm, no pooler.
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
            pooler: Pooler::ClassToken,
        }
    }

    /// Special tokens that have positions.
    fn num_placed_tokens(&self) -> usize {
        usize::from(self.class_token) + usize::from(self.distillation_token)
    }

    /// Special tokens before the patches.
    fn num_special_tokens(&self) -> usize {
        self.num_placed_tokens() + self.registers
    }

    /// Patches a side at the size that positions were learned for.
    fn grid(&self) -> [usize; 2] {
        [self.image_size / self.patch_size; 2]
    }

    /// What `pooling` takes from this tower, in words.
    pub(crate) fn describe_pooling(&self, pooling: Pooling) -> &'static str {
        match (pooling, self.pooler) {
            (Pooling::Mean, _) => "the mean of the patch tokens",
            (Pooling::Cls, _) => "the class token",
            (Pooling::Pooler, Pooler::Dense(PoolerActivation::Tanh)) => {
                "the pooler: a linear of the class token and tanh"
            }
            (Pooling::Pooler, Pooler::Dense(PoolerActivation::Linear)) => "the pooler: a linear of the class token",
            (Pooling::Pooler, Pooler::ClassToken) => "the class token: its family has no pooler layer",
            (Pooling::Pooler, Pooler::MeanNorm) => "the pooler: the mean of the patch tokens, normalised",
            (Pooling::Pooler, Pooler::Attention) => "the head: a learned query that attends to all patch tokens",
            (Pooling::Pooler, Pooler::None) => "nothing",
        }
    }

    /// Whether this tower can pool like that; else why not.
    pub(crate) fn check_pooling(&self, pooling: Pooling) -> Result<(), &'static str> {
        match (pooling, self.pooler) {
            (Pooling::Cls, _) if !self.class_token => Err("it has no class token"),
            (Pooling::Pooler, Pooler::None) => Err("it has no pooler"),
            _ => Ok(()),
        }
    }
}

/// Rows of BEiT's table of relative positions for a `grid`: one for each offset of two patches, and three that tell of
/// the class token.
pub(crate) fn relative_positions(grid: [usize; 2]) -> usize {
    let [rows, columns] = offsets(grid);
    rows * columns + 3
}

/// How many offsets there are a side.
pub(crate) fn offsets(grid: [usize; 2]) -> [usize; 2] {
    grid.map(|side| 2 * side - 1)
}

/// `[batch, 3, height, width]` to the pixels of each patch, `[batch * patches, 3 * patch * patch]`.
pub(crate) fn patch_rows(pixels: Tensor<4>, patch: usize) -> Tensor<2> {
    let [batch, channels, height, width] = pixels.dims();
    let grid = [height / patch, width / patch];
    pixels
        .reshape([batch, channels, grid[0], patch, grid[1], patch])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([batch * grid[0] * grid[1], channels * patch * patch])
}

/// A vision transformer.
#[derive(Module, Debug)]
pub struct VisionTransformer {
    patch: Linear,
    class_token: Option<Param<Tensor<2>>>,
    distillation_token: Option<Param<Tensor<2>>>,
    registers: Option<Param<Tensor<2>>>,
    mask_token: Option<Param<Tensor<2>>>,
    positions: Option<Param<Tensor<2>>>,
    first_norm: Option<LayerNorm>,
    encoder: Encoder,
    final_norm: Option<LayerNorm>,
    pooler: Option<Linear>,
    pooler_norm: Option<LayerNorm>,
    head: Option<AttentionPool>,
    #[module(skip)]
    config: VisionTransformerConfig,
    #[module(skip)]
    pooling: Pooling,
}

impl VisionTransformer {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: VisionTransformerConfig, pooling: Pooling) -> Self {
        let EncoderConfig { width, init_std, norm_bias, norm_epsilon, .. } = config.encoder;
        let token = |name, rows: usize| (rows > 0).then(|| at.param(name, [rows, width], Init::Normal(init_std)));
        let norm = |name, wanted: bool| wanted.then(|| LayerNorm::new(&at.at(name), width, norm_bias, norm_epsilon));
        let patch_values = 3 * config.patch_size * config.patch_size;
        let learned = matches!(config.positions, Positions::Learned(_));
        let num_positions = config.num_placed_tokens() + config.grid().iter().product::<usize>();
        let pooler = (pooling == Pooling::Pooler).then_some(config.pooler);
        Self {
            patch: Linear::new(&at.at("patch"), patch_values, width, config.patch_bias, init_std),
            class_token: token("class_token", usize::from(config.class_token)),
            distillation_token: token("distillation_token", usize::from(config.distillation_token)),
            registers: token("registers", config.registers),
            mask_token: config.mask_token.then(|| at.carried("mask_token", [1, width])),
            positions: token("positions", if learned { num_positions } else { 0 }),
            first_norm: norm("first_norm", config.first_norm),
            encoder: Encoder::new(&at.at("encoder"), &config.encoder),
            final_norm: norm("final_norm", config.final_norm != FinalNorm::None),
            pooler: matches!(pooler, Some(Pooler::Dense(_)))
                .then(|| Linear::new(&at.at("pooler"), width, width, true, init_std)),
            pooler_norm: norm("pooler_norm", pooler == Some(Pooler::MeanNorm)),
            head: (pooler == Some(Pooler::Attention)).then(|| AttentionPool::new(&at.at("head"), &config.encoder)),
            config,
            pooling,
        }
    }

    /// The config the tower was built from.
    pub fn config(&self) -> &VisionTransformerConfig {
        &self.config
    }

    /// How the tower makes one vector of its tokens.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// The linears of its blocks, by path.
    pub(crate) fn linears(&mut self, path: &str, visit: &mut VisitLinear<'_>) {
        self.encoder.linears(&format!("{path}.encoder"), visit);
    }

    /// `[batch, 3, height, width]`, normalised pixels whose sides are multiples of the patch size.
    ///
    /// Other sizes than the tower's own interpolate what it learned about positions, as the reference's
    /// `interpolate_pos_encoding` does. DINOv3's random scaling of coordinates, in training only, is left out.
    pub fn forward(&self, pixels: Tensor<4>, dropout: &Dropout) -> TowerOutput {
        let [batch, _, height, width] = pixels.dims();
        let grid = [height / self.config.patch_size, width / self.config.patch_size];
        let relations = self.relations(grid, &pixels.device().without_autodiff());
        let x = self.embed(pixels, grid);
        let layout = SequenceLayout::uniform(batch, self.config.num_special_tokens() + grid[0] * grid[1]);
        let x = match &self.first_norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let x = dropout.apply(x, self.config.encoder.hidden_dropout);
        let hidden = self.encoder.forward(x, &layout, &[relations], dropout);
        match (self.config.final_norm, &self.final_norm) {
            (FinalNorm::Tokens, Some(norm)) => {
                let hidden = norm.forward(hidden);
                TowerOutput { pooled: self.pool(hidden.clone(), &layout), hidden }
            }
            (FinalNorm::Pooled, Some(norm)) => {
                TowerOutput { pooled: self.pool(norm.forward(hidden.clone()), &layout), hidden }
            }
            _ => TowerOutput { pooled: self.pool(hidden.clone(), &layout), hidden },
        }
    }

    /// `[rows, width]` to `[batch, width]`.
    fn pool(&self, hidden: Tensor<2>, layout: &SequenceLayout) -> Tensor<2> {
        let mean = |hidden| layout.mean(hidden, self.config.num_special_tokens());
        match (self.pooling, &self.head, &self.pooler_norm, &self.pooler) {
            (Pooling::Mean, ..) => mean(hidden),
            (Pooling::Cls, ..) => layout.first(hidden),
            (Pooling::Pooler, Some(head), ..) => head.forward(hidden, layout),
            (Pooling::Pooler, _, Some(norm), _) => norm.forward(mean(hidden)),
            (Pooling::Pooler, _, _, Some(pooler)) => {
                let pooled = pooler.forward(layout.first(hidden));
                if self.config.pooler == Pooler::Dense(PoolerActivation::Tanh) { tanh(pooled) } else { pooled }
            }
            (Pooling::Pooler, None, None, None) => layout.first(hidden),
        }
    }

    /// Patch embedding as one product, special tokens in front, positions added: `[batch * tokens, width]`.
    fn embed(&self, pixels: Tensor<4>, grid: [usize; 2]) -> Tensor<2> {
        let [batch, ..] = pixels.dims();
        let width = self.config.encoder.width;
        let num_patches = grid[0] * grid[1];
        let patches = patch_rows(pixels, self.config.patch_size);
        let mut patches = self.patch.forward(patches).reshape([batch, num_patches, width]);

        let placed = self.config.num_placed_tokens();
        let mut tokens: Vec<Tensor<2>> =
            [&self.class_token, &self.distillation_token].into_iter().flatten().map(Param::val).collect();
        if let Some(positions) = self.positions_for(grid) {
            patches = patches + positions.clone().narrow(0, placed, num_patches).unsqueeze();
            for (n, token) in tokens.iter_mut().enumerate() {
                *token = token.clone() + positions.clone().narrow(0, n, 1);
            }
        }
        tokens.extend(self.registers.as_ref().map(Param::val));
        let special = self.config.num_special_tokens();
        let x = match special {
            0 => patches,
            _ => {
                let tokens = Tensor::cat(tokens, 0).unsqueeze::<3>().expand([batch, special, width]);
                Tensor::cat(vec![tokens, patches], 1)
            }
        };
        x.reshape([batch * (special + num_patches), width])
    }

    /// Position embeddings of the placed special tokens and of a `grid` of patches, `[tokens, width]`.
    fn positions_for(&self, grid: [usize; 2]) -> Option<Tensor<2>> {
        let positions = self.positions.as_ref()?.val();
        let (Positions::Learned(interpolation), own) = (self.config.positions, self.config.grid()) else {
            return None;
        };
        if grid == own {
            return Some(positions);
        }
        let placed = self.config.num_placed_tokens();
        let [count, _] = positions.dims();
        let patches = positions.clone().narrow(0, placed, count - placed);
        let patches = interpolation.matrix(own, grid, &positions.device()).cast(patches.dtype()).matmul(patches);
        Some(match placed {
            0 => patches,
            _ => Tensor::cat(vec![positions.narrow(0, 0, placed), patches], 0),
        })
    }

    /// How the tokens of a `grid` of patches stand to each other.
    fn relations(&self, grid: [usize; 2], device: &Device) -> Relations {
        let encoder = &self.config.encoder;
        let relative = encoder.relative != RelativeTable::None;
        let rotary = |theta| {
            Rotary::of_patches(grid, self.config.num_special_tokens(), encoder.width / encoder.heads, theta, device)
        };
        Relations {
            relative: relative.then(|| relative_rows(grid, device)),
            resampled: (relative && grid != self.config.grid())
                .then(|| resampled_table(self.config.grid(), grid, device)),
            rotary: match self.config.positions {
                Positions::Rotary(theta) => Some(rotary(theta)),
                Positions::None | Positions::Learned(_) => None,
            },
            ..Relations::default()
        }
    }
}

/// The row of the table of relative positions for each pair of tokens, class token first, `[tokens * tokens]`: offsets
/// of patches; class token to patch; patch to class token; class token to itself (BEiT, Bao et al., 2022; the order is the
/// reference's).
fn relative_rows(grid: [usize; 2], device: &Device) -> Tensor<1, Int> {
    let first_special = relative_positions(grid) - 3;
    let row = |query: usize, key: usize| match (query, key) {
        (0, 0) => first_special + 2,
        (0, _) => first_special,
        (_, 0) => first_special + 1,
        _ => offset_row(query - 1, key - 1, grid[1], grid),
    };
    pair_rows(1 + grid[0] * grid[1], row, device)
}

/// The same for the tokens of a `grid` without class token, in a table for grids of up to `largest`.
pub(crate) fn offset_rows(grid: [usize; 2], largest: [usize; 2], device: &Device) -> Tensor<1, Int> {
    pair_rows(grid[0] * grid[1], |query, key| offset_row(query, key, grid[1], largest), device)
}

/// The row for two places of a grid with so many `columns`: by the offset of rows, then of columns.
fn offset_row(query: usize, key: usize, columns: usize, largest: [usize; 2]) -> usize {
    let offset = |query: usize, key: usize, axis: usize| query + largest[axis] - 1 - key;
    let [_, column_offsets] = offsets(largest);
    offset(query / columns, key / columns, 0) * column_offsets + offset(query % columns, key % columns, 1)
}

fn pair_rows(count: usize, row: impl Fn(usize, usize) -> usize, device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i32> = (0..count * count).map(|pair| row(pair / count, pair % count) as i32).collect();
    Tensor::from_data(TensorData::new(rows, [count * count]), device)
}

/// The map from the table for an `own` grid to one for `grid`: offsets are resized, the class token's rows stay.
fn resampled_table(own: [usize; 2], grid: [usize; 2], device: &Device) -> Tensor<2> {
    let map = Interpolation::Bilinear.matrix(offsets(own), offsets(grid), device);
    let [new, old] = map.dims();
    let special = Tensor::eye(3, device);
    let above = Tensor::cat(vec![map, Tensor::zeros([new, 3], device)], 1);
    let below = Tensor::cat(vec![Tensor::zeros([3, old], device), special], 1);
    Tensor::cat(vec![above, below], 0)
}
