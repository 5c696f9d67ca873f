//! Image towers of the ViT kind: `[batch, 3, height, width]` to `[batch, width]`.

use burn::module::{Module, Param};
use burn::tensor::activation::tanh;
use burn::tensor::{Tensor, TensorData};

use crate::encoder::{Encoder, EncoderConfig};
use crate::layers::{Dropout, LayerNorm, Linear};
use crate::params::{Init, ParamBuilder};
use crate::pool::Pooling;
use crate::sequence::SequenceLayout;

/// What an image tower is made of, whichever family it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageTowerConfig {
    /// The blocks.
    pub encoder: EncoderConfig,
    /// Side of the square images the position embeddings were made for, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// DeiT's second special token.
    pub distillation_token: bool,
    /// The pooler that the family applies to the class token, if it has one.
    pub pooler: Option<PoolerActivation>,
}

/// The nonlinearity of a pooler (`pooler_act`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolerActivation {
    /// tanh, the default everywhere.
    Tanh,
    /// None: with an identity matrix such a pooler returns the class token itself.
    Linear,
}

impl ImageTowerConfig {
    /// Special tokens before the patches.
    fn num_special_tokens(&self) -> usize {
        1 + usize::from(self.distillation_token)
    }

    /// Patches a side at the size of the position embeddings.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
}

/// A vision transformer.
#[derive(Module, Debug)]
pub struct ImageTower {
    patch: Linear,
    class_token: Param<Tensor<2>>,
    distillation_token: Option<Param<Tensor<2>>>,
    positions: Param<Tensor<2>>,
    encoder: Encoder,
    final_norm: LayerNorm,
    pooler: Option<Linear>,
    #[module(skip)]
    config: ImageTowerConfig,
    #[module(skip)]
    pooling: Pooling,
}

/// What a tower gives back.
#[derive(Debug, Clone)]
pub struct TowerOutput {
    /// The last hidden state of every real token, `[rows, width]`, sequence after sequence.
    pub hidden: Tensor<2>,
    /// `[batch, width]`.
    pub pooled: Tensor<2>,
}

impl ImageTower {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: ImageTowerConfig, pooling: Pooling) -> Self {
        let EncoderConfig { width, init_std, norm_bias, norm_epsilon, .. } = config.encoder;
        let token = |name| at.param(name, [1, width], Init::Normal(init_std));
        let num_positions = config.grid() * config.grid() + config.num_special_tokens();
        Self {
            patch: Linear::new(&at.at("patch"), 3 * config.patch_size * config.patch_size, width, true, init_std),
            class_token: token("class_token"),
            distillation_token: config.distillation_token.then(|| token("distillation_token")),
            positions: at.param("positions", [num_positions, width], Init::Normal(init_std)),
            encoder: Encoder::new(&at.at("encoder"), &config.encoder),
            final_norm: LayerNorm::new(&at.at("final_norm"), width, norm_bias, norm_epsilon),
            pooler: (pooling == Pooling::Pooler && config.pooler.is_some())
                .then(|| Linear::new(&at.at("pooler"), width, width, true, init_std)),
            config,
            pooling,
        }
    }

    /// The config the tower was built from.
    pub fn config(&self) -> &ImageTowerConfig {
        &self.config
    }

    /// How the tower makes one vector of its tokens.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Whether its parameters are outside of the gradient graph.
    pub fn is_locked(&self) -> bool {
        !self.class_token.val().is_autodiff()
    }

    /// `[batch, 3, height, width]`, normalised pixels whose sides are multiples of the patch size.
    ///
    /// Other sizes than the tower's own interpolate its position embeddings, as the reference's
    /// `interpolate_pos_encoding` does.
    pub fn forward(&self, pixels: Tensor<4>, dropout: &Dropout) -> TowerOutput {
        let [batch, _, height, width] = pixels.dims();
        let patch = self.config.patch_size;
        let grid = [height / patch, width / patch];
        let x = self.embed(pixels, grid);
        let special = self.config.num_special_tokens();
        let layout = SequenceLayout::uniform(batch, special + grid[0] * grid[1]);
        let x = dropout.apply(x, self.config.encoder.hidden_dropout);
        let hidden = self.final_norm.forward(self.encoder.forward(x, &layout, &[], dropout));
        let pooled = match self.pooling {
            Pooling::Mean => layout.mean(hidden.clone(), special),
            Pooling::Cls | Pooling::Pooler => self.pool_class_token(layout.first(hidden.clone())),
        };
        TowerOutput { hidden, pooled }
    }

    fn pool_class_token(&self, class_token: Tensor<2>) -> Tensor<2> {
        match (&self.pooler, self.config.pooler) {
            (Some(pooler), Some(PoolerActivation::Tanh)) => tanh(pooler.forward(class_token)),
            (Some(pooler), _) => pooler.forward(class_token),
            (None, _) => class_token,
        }
    }

    /// Patch embedding as one product, special tokens in front, positions added: `[batch * tokens, width]`.
    fn embed(&self, pixels: Tensor<4>, grid: [usize; 2]) -> Tensor<2> {
        let [batch, channels, _, _] = pixels.dims();
        let patch = self.config.patch_size;
        let width = self.config.encoder.width;
        let num_patches = grid[0] * grid[1];
        let patches = pixels
            .reshape([batch, channels, grid[0], patch, grid[1], patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch * num_patches, channels * patch * patch]);
        let patches = self.patch.forward(patches).reshape([batch, num_patches, width]);

        let mut tokens = vec![self.class_token.val()];
        tokens.extend(self.distillation_token.as_ref().map(Param::val));
        let special = tokens.len();
        let tokens = Tensor::cat(tokens, 0).unsqueeze::<3>().expand([batch, special, width]);
        let x = Tensor::cat(vec![tokens, patches], 1) + self.positions_for(grid).unsqueeze();
        x.reshape([batch * (special + num_patches), width])
    }

    /// Position embeddings of special tokens and of a `grid` of patches, `[special + rows * columns, width]`.
    fn positions_for(&self, grid: [usize; 2]) -> Tensor<2> {
        let positions = self.positions.val();
        let own = self.config.grid();
        if grid == [own, own] {
            return positions;
        }
        let special = self.config.num_special_tokens();
        let [count, width] = positions.dims();
        let patches = positions.clone().slice([special..count, 0..width]);
        let weights = interpolation_matrix(own, grid);
        let weights = TensorData::new(weights, [grid[0] * grid[1], own * own]);
        let weights = Tensor::<2>::from_data(weights, &positions.device().without_autodiff());
        Tensor::cat(vec![positions.slice([0..special, 0..width]), weights.matmul(patches)], 0)
    }
}

/// The linear map of `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)` from an `own x own` grid
/// to `grid`, as `[rows * columns, own * own]`.
pub(crate) fn interpolation_matrix(own: usize, grid: [usize; 2]) -> Vec<f32> {
    let (rows, columns) = (bicubic_taps(own, grid[0]), bicubic_taps(own, grid[1]));
    let mut matrix = vec![0.0; grid[0] * grid[1] * own * own];
    for (row, row_taps) in rows.iter().enumerate() {
        for (column, column_taps) in columns.iter().enumerate() {
            let line = &mut matrix[(row * grid[1] + column) * own * own..][..own * own];
            for &(y, y_weight) in row_taps {
                for &(x, x_weight) in column_taps {
                    line[y * own + x] += (y_weight * x_weight) as f32;
                }
            }
        }
    }
    matrix
}

/// The four source positions and weights of each of `new` points on a line of `old`.
fn bicubic_taps(old: usize, new: usize) -> Vec<[(usize, f64); 4]> {
    /// PyTorch's cubic coefficient (aten UpSample.h); Pillow uses -0.5.
    const A: f64 = -0.75;
    let near = |t: f64| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
    let far = |t: f64| ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A;
    let scale = old as f64 / new as f64;
    (0..new)
        .map(|point| {
            let source = (point as f64 + 0.5) * scale - 0.5;
            let start = source.floor();
            let t = source - start;
            let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
            std::array::from_fn(|tap| {
                let position = (start + tap as f64 - 1.0).clamp(0.0, (old - 1) as f64);
                (position as usize, weights[tap])
            })
        })
        .collect()
}
