//! Vision transformers: patches, special tokens, positions, an encoder, pooling.

use burn::module::{Module, Param};
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Tensor};

use crate::layers::dropout::Dropout;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::{Linear, LinearVisitor};
use crate::params::builder::{Init, ParamBuilder};
use crate::params::inventory::any_trains;
use crate::pooled_layers::LayerTaps;
use crate::pooling::Pooling;
use crate::tower::TowerOutput;
use crate::transformer::attention_pool::AttentionPool;
use crate::transformer::config::{EncoderConfig, RelativeTable};
use crate::transformer::encoder::Encoder;
use crate::transformer::relations::Relations;
use crate::transformer::rotary::Rotary;
use crate::transformer::sequence_layout::SequenceLayout;
use crate::vision::patches::patch_rows;
use crate::vision::relative_offsets::{beit_rows, beit_table_resize};
use crate::vision::token_grid::cell_means;
use crate::vision::vit_config::{FinalNorm, Pooler, PoolerActivation, Positions, VisionTransformerConfig};

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
    /// Patches per side of the images that it sees, which only the width of all tokens depends on.
    #[module(skip)]
    image_grid: [usize; 2],
}

impl VisionTransformer {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: VisionTransformerConfig, pooling: Pooling) -> Self {
        let EncoderConfig { width, init_std, norm_bias, norm_epsilon, .. } = config.encoder;
        let token = |name, rows: usize| (rows > 0).then(|| at.param(name, [rows, width], Init::Normal(init_std)));
        let norm = |name, wanted: bool| wanted.then(|| LayerNorm::new(&at.at(name), width, norm_bias, norm_epsilon));
        let patch_values = 3 * config.patch_size * config.patch_size;
        let learned = matches!(config.positions, Positions::Learned(_));
        let num_positions = config.num_positioned_tokens() + config.grid().iter().product::<usize>();
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
            final_norm: norm("final_norm", config.final_norm != FinalNorm::None && !config.skip_final_norm),
            pooler: matches!(pooler, Some(Pooler::Dense(_)))
                .then(|| Linear::new(&at.at("pooler"), width, width, true, init_std)),
            pooler_norm: norm("pooler_norm", pooler == Some(Pooler::MeanNorm)),
            head: (pooler == Some(Pooler::Attention)).then(|| AttentionPool::new(&at.at("head"), &config.encoder)),
            image_grid: config.grid(),
            config,
            pooling,
        }
    }

    /// The tower for images of `height` and `width` in pixels.
    pub(crate) fn for_images(self, height: usize, width: usize) -> Self {
        let patch = self.config.patch_size;
        Self { image_grid: [height / patch, width / patch], ..self }
    }

    /// Width of the pooled output.
    pub(crate) fn pooled_width(&self) -> usize {
        self.config.pooled_width(self.pooling, self.image_grid)
    }

    /// The architecture that the tower was built from.
    pub fn config(&self) -> &VisionTransformerConfig {
        &self.config
    }

    /// How the tower pools.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Calls `visit` for each linear of the blocks; `path` is the tower's own.
    pub(crate) fn visit_linears(&mut self, path: &str, visit: &mut LinearVisitor<'_>) {
        self.encoder.visit_linears(&format!("{path}.encoder"), visit);
    }

    /// As [`ImageTower::packed`](crate::ImageTower::packed).
    pub(crate) fn pack(&mut self) {
        self.patch.pack();
        self.visit_linears("", &mut |_, linear| linear.pack());
        if let Some(head) = &mut self.head {
            head.visit_linears("", &mut |_, linear| linear.pack());
        }
    }

    /// Runs the tower on normalised pixels, `[batch, 3, height, width]`.
    ///
    /// For images of another size than the tower was trained on, learned positions are interpolated, as with the
    /// reference's `interpolate_pos_encoding`. DINOv3's random scaling of coordinates during training is not
    /// implemented.
    ///
    /// # Panics
    /// If `height` or `width` is not a multiple of the patch size.
    pub fn forward(&self, pixels: Tensor<4>, dropout: &Dropout) -> TowerOutput {
        let [_, _, height, width] = pixels.dims();
        self.forward_after(0, self.encoder_input(pixels, dropout), [height, width], dropout)
    }

    /// Runs the rest of the tower after its first `layers` layers, for images of `height` and `width` in pixels.
    /// `hidden`: what these layers compute, `[batch * tokens, width]`.
    pub(crate) fn forward_after(
        &self,
        layers: usize,
        hidden: Tensor<2>,
        [height, width]: [usize; 2],
        dropout: &Dropout,
    ) -> TowerOutput {
        let (layout, relations) = self.layout(hidden.dims()[0], [height, width], &hidden.device());
        let pool = |tokens| self.pool(tokens, &layout, self.pooling, self.grid_of([height, width]));
        let mut taps = LayerTaps::new(&self.config.pooled_layers);
        taps.after_blocks(layers, || self.finish(hidden.clone(), pool).1);
        let hidden = self.encoder.forward_each(layers, hidden, &layout, &[relations], dropout, |hidden| {
            taps.after_block(|| self.finish(hidden.clone(), pool).1);
        });
        let (hidden, pooled) = self.finish(hidden, pool);
        TowerOutput { hidden, pooled: taps.join(pooled) }
    }

    /// The pooled output after each block, in each of `poolings`: what a tower with only the blocks up to there
    /// returns. Layers that `wanted` refuses, numbered from 1, are empty.
    pub(crate) fn forward_layers(
        &self,
        pixels: Tensor<4>,
        poolings: &[Pooling],
        wanted: impl Fn(usize) -> bool,
    ) -> Vec<Vec<Tensor<2>>> {
        let [_, _, height, width] = pixels.dims();
        let grid = self.grid_of([height, width]);
        let x = self.encoder_input(pixels, &Dropout::off());
        let (layout, relations) = self.layout(x.dims()[0], [height, width], &x.device());
        let mut layers = Vec::new();
        let pool = |tokens: Tensor<2>| {
            poolings.iter().map(|&pooling| self.pool(tokens.clone(), &layout, pooling, grid)).collect::<Vec<_>>()
        };
        self.encoder.forward_each(0, x, &layout, &[relations], &Dropout::off(), |hidden| {
            let is_wanted = wanted(layers.len() + 1);
            layers.push(if is_wanted { self.finish(hidden.clone(), pool).1 } else { Vec::new() });
        });
        layers
    }

    /// Number of blocks.
    pub(crate) fn num_layers(&self) -> usize {
        self.encoder.num_layers()
    }

    /// The input of the encoder.
    fn encoder_input(&self, pixels: Tensor<4>, dropout: &Dropout) -> Tensor<2> {
        let [_, _, height, width] = pixels.dims();
        let x = self.embed(pixels, self.grid_of([height, width]));
        let x = match &self.first_norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        dropout.apply(x, self.config.encoder.hidden_dropout)
    }

    /// What the attention over `rows` tokens of images of this height and width needs.
    fn layout(&self, rows: usize, size: [usize; 2], device: &Device) -> (SequenceLayout, Relations) {
        let grid = self.grid_of(size);
        let tokens = self.config.num_special_tokens() + grid[0] * grid[1];
        let relations = self.relations(grid, &device.clone().without_autodiff());
        (SequenceLayout::uniform(rows / tokens, tokens), relations)
    }

    /// Patches per side of images of this height and width.
    fn grid_of(&self, [height, width]: [usize; 2]) -> [usize; 2] {
        [height / self.config.patch_size, width / self.config.patch_size]
    }

    /// As [`ImageTower::locked_layers`](crate::ImageTower::locked_layers).
    pub(crate) fn locked_layers(&self) -> usize {
        let Self { patch, class_token, distillation_token, registers, positions, first_norm, encoder, config, .. } =
            self;
        if any_trains(patch)
            || any_trains(class_token)
            || any_trains(distillation_token)
            || any_trains(registers)
            || any_trains(positions)
            || any_trains(first_norm)
        {
            return 0;
        }
        let lowest = config.pooled_layers.iter().copied().min();
        encoder.num_locked_layers().min(lowest.unwrap_or(usize::MAX))
    }

    /// As [`ImageTower::ending_after`](crate::ImageTower::ending_after).
    pub(crate) fn ending_after(&self, layers: usize) -> Self {
        let config = VisionTransformerConfig {
            encoder: self.config.encoder.clone().ending_after(layers),
            final_norm: FinalNorm::None,
            pooled_layers: Vec::new(),
            token_grid: None,
            ..self.config.clone()
        };
        Self {
            encoder: self.encoder.ending_after(layers),
            config,
            pooling: Pooling::Tokens,
            final_norm: None,
            pooler: None,
            pooler_norm: None,
            head: None,
            ..self.clone()
        }
    }

    /// The hidden state of the tower, and the result of `pool`, from the output of a block.
    fn finish<R>(&self, hidden: Tensor<2>, pool: impl Fn(Tensor<2>) -> R) -> (Tensor<2>, R) {
        match (self.config.final_norm, &self.final_norm) {
            (FinalNorm::Tokens, Some(norm)) => {
                let hidden = norm.forward(hidden);
                (hidden.clone(), pool(hidden))
            }
            (FinalNorm::Pooled, Some(norm)) => (hidden.clone(), pool(norm.forward(hidden))),
            _ => (hidden.clone(), pool(hidden)),
        }
    }

    /// All tokens of each image, one after the other: `[rows, width]` to `[batch, tokens * width]`.
    fn tokens(&self, hidden: Tensor<2>, layout: &SequenceLayout, grid: [usize; 2]) -> Tensor<2> {
        let ([_, width], batch, count) = (hidden.dims(), layout.batch, layout.longest);
        let Some(side) = self.config.token_grid else { return hidden.reshape([batch, count * width]) };
        let special = self.config.num_special_tokens();
        let tokens = hidden.reshape([batch, count, width]);
        let means = cell_means(grid, side, &tokens.device().without_autodiff()).cast(tokens.dtype()).unsqueeze::<3>();
        let patches = means.matmul(tokens.clone().narrow(1, special, count - special));
        let tokens = if special == 0 { patches } else { Tensor::cat(vec![tokens.narrow(1, 0, special), patches], 1) };
        tokens.reshape([batch, (special + side * side) * width])
    }

    /// Pools `[rows, width]` to `[batch, pooled width]`, for images of a `grid` of patches.
    fn pool(&self, hidden: Tensor<2>, layout: &SequenceLayout, pooling: Pooling, grid: [usize; 2]) -> Tensor<2> {
        let mean = |hidden| layout.mean(hidden, self.config.num_special_tokens());
        match (pooling, &self.head, &self.pooler_norm, &self.pooler) {
            (Pooling::Mean, ..) => mean(hidden),
            (Pooling::Cls, ..) => layout.first(hidden),
            (Pooling::Tokens, ..) => self.tokens(hidden, layout, grid),
            (Pooling::ClsMean, ..) => Tensor::cat(vec![layout.first(hidden.clone()), mean(hidden)], 1),
            (Pooling::Pooler, Some(head), ..) => head.forward(hidden, layout),
            (Pooling::Pooler, _, Some(norm), _) => norm.forward(mean(hidden)),
            (Pooling::Pooler, _, _, Some(pooler)) => {
                let pooled = pooler.forward(layout.first(hidden));
                if self.config.pooler == Pooler::Dense(PoolerActivation::Tanh) { tanh(pooled) } else { pooled }
            }
            // An image tower refuses `Last` when its pooling is resolved.
            (Pooling::Pooler, None, None, None) | (Pooling::Last, ..) => layout.first(hidden),
        }
    }

    /// Embeds the patches with one matrix product, prepends the special tokens and adds positions:
    /// `[batch * tokens, width]`.
    fn embed(&self, pixels: Tensor<4>, grid: [usize; 2]) -> Tensor<2> {
        let [batch, ..] = pixels.dims();
        let width = self.config.encoder.width;
        let num_patches = grid[0] * grid[1];
        let patches = patch_rows(pixels, self.config.patch_size);
        let mut patches = self.patch.forward(patches).reshape([batch, num_patches, width]);

        let positioned = self.config.num_positioned_tokens();
        let mut tokens: Vec<Tensor<2>> =
            [&self.class_token, &self.distillation_token].into_iter().flatten().map(Param::val).collect();
        if let Some(positions) = self.positions_for(grid) {
            patches = patches + positions.clone().narrow(0, positioned, num_patches).unsqueeze();
            for (n, token) in tokens.iter_mut().enumerate() {
                *token = token.clone() + positions.clone().narrow(0, n, 1);
            }
        }
        tokens.extend(self.registers.as_ref().map(Param::val));
        let special = self.config.num_special_tokens();
        let x = if special == 0 {
            patches
        } else {
            let tokens = Tensor::cat(tokens, 0).unsqueeze::<3>().expand([batch, special, width]);
            Tensor::cat(vec![tokens, patches], 1)
        };
        x.reshape([batch * (special + num_patches), width])
    }

    /// Position embeddings of the special tokens that have one and of a `grid` of patches, `[tokens, width]`.
    fn positions_for(&self, grid: [usize; 2]) -> Option<Tensor<2>> {
        let positions = self.positions.as_ref()?.val();
        let (Positions::Learned(interpolation), own) = (self.config.positions, self.config.grid()) else {
            return None;
        };
        if grid == own {
            return Some(positions);
        }
        let positioned = self.config.num_positioned_tokens();
        let [count, _] = positions.dims();
        let patches = positions.clone().narrow(0, positioned, count - positioned);
        let patches = interpolation.matrix(own, grid, &positions.device()).cast(patches.dtype()).matmul(patches);
        Some(if positioned == 0 { patches } else { Tensor::cat(vec![positions.narrow(0, 0, positioned), patches], 0) })
    }

    /// The positions of a `grid` of patches, for attention.
    fn relations(&self, grid: [usize; 2], device: &Device) -> Relations {
        let encoder = &self.config.encoder;
        let has_table = encoder.relative != RelativeTable::None;
        let rotary = |theta| {
            Rotary::of_patches(grid, self.config.num_special_tokens(), encoder.width / encoder.heads, theta, device)
        };
        Relations {
            table_rows: has_table.then(|| beit_rows(grid, device)),
            table_resize: (has_table && grid != self.config.grid())
                .then(|| beit_table_resize(self.config.grid(), grid, device)),
            rotary: match self.config.positions {
                Positions::Rotary(theta) => Some(rotary(theta)),
                Positions::None | Positions::Learned(_) => None,
            },
            ..Relations::default()
        }
    }
}
