//! Swin (Liu et al., 2021): encoders over windows of ever coarser feature maps, pooled by the mean over all tokens.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

use crate::form::list;
use crate::layers::dropout::Dropout;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::{Linear, LinearVisitor};
use crate::params::builder::{Init, ParamBuilder};
use crate::pooling::Pooling;
use crate::tower::TowerOutput;
use crate::transformer::config::EncoderConfig;
use crate::transformer::encoder::Encoder;
use crate::transformer::relations::Relations;
use crate::transformer::sequence_layout::SequenceLayout;
use crate::transformer::windows::{Windows, gather_in_each_image};
use crate::vision::patches::patch_rows;
use crate::vision::position_interpolation::Interpolation;
use crate::vision::relative_offsets::{offset_rows, offsets_per_side};

/// Epsilon of the norms that the config does not cover (PyTorch's default).
const NORM_EPSILON: f64 = 1e-5;

/// The architecture of a Swin tower.
#[derive(Debug, Clone, PartialEq)]
pub struct SwinConfig {
    /// The encoder of each stage, at least one; each is twice as wide as the one before.
    pub stages: Vec<EncoderConfig>,
    /// Side of the square images the tower was trained on, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Side of a window, in tokens.
    pub window: usize,
    /// Whether patches also have learned absolute positions.
    pub positions: bool,
}

impl SwinConfig {
    /// Width of the last stage.
    pub fn width(&self) -> usize {
        self.stages.last().map_or(0, |stage| stage.width)
    }

    /// The written form, for cache keys (see `form`).
    pub(crate) fn form(&self) -> String {
        let Self { stages, image_size, patch_size, window, positions } = self;
        let stages = list(stages.iter().map(EncoderConfig::form));
        format!("swin(stages={stages} image={image_size} patch={patch_size} window={window} positions={positions})")
    }

    fn grid(&self) -> [usize; 2] {
        [self.image_size / self.patch_size; 2]
    }
}

/// Number of rows of the relative position table for windows of `side` tokens.
pub(crate) fn window_table_rows(side: usize) -> usize {
    offsets_per_side([side; 2]).iter().product()
}

/// A Swin transformer.
#[derive(Module, Debug)]
pub struct Swin {
    patch: Linear,
    embedding_norm: LayerNorm,
    positions: Option<Param<Tensor<2>>>,
    stages: Vec<Stage>,
    final_norm: LayerNorm,
    #[module(skip)]
    config: SwinConfig,
    #[module(skip)]
    pooling: Pooling,
}

#[derive(Module, Debug)]
struct Stage {
    encoder: Encoder,
    merging: Option<Merging>,
}

/// Merges four neighbouring tokens into one of twice the width.
#[derive(Module, Debug)]
struct Merging {
    norm: LayerNorm,
    reduction: Linear,
}

impl Swin {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: SwinConfig, pooling: Pooling) -> Self {
        let EncoderConfig { width, init_std, .. } = config.stages[0];
        let norm_epsilon = config.stages[0].norm_epsilon;
        let patch_values = 3 * config.patch_size * config.patch_size;
        let places = config.grid().iter().product();
        let last = config.stages.len() - 1;
        let stage = |(n, encoder): (usize, &EncoderConfig)| {
            let (at, width) = (at.at("stages").at(n), encoder.width);
            Stage {
                encoder: Encoder::new(&at.at("encoder"), encoder),
                merging: (n < last).then(|| Merging {
                    norm: LayerNorm::new(&at.at("merging.norm"), 4 * width, true, NORM_EPSILON),
                    reduction: Linear::new(&at.at("merging.reduction"), 4 * width, 2 * width, false, init_std),
                }),
            }
        };
        Self {
            patch: Linear::new(&at.at("patch"), patch_values, width, true, init_std),
            embedding_norm: LayerNorm::new(&at.at("embedding_norm"), width, true, NORM_EPSILON),
            positions: config.positions.then(|| at.param("positions", [places, width], Init::Normal(init_std))),
            stages: config.stages.iter().enumerate().map(stage).collect(),
            final_norm: LayerNorm::new(&at.at("final_norm"), config.width(), true, norm_epsilon),
            config,
            pooling,
        }
    }

    /// The architecture that the tower was built from.
    pub fn config(&self) -> &SwinConfig {
        &self.config
    }

    /// The pooling that was asked for. Each one is the mean over all tokens.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Calls `visit` for each linear of the blocks; `path` is the tower's own.
    pub(crate) fn visit_linears(&mut self, path: &str, visit: &mut LinearVisitor<'_>) {
        for (n, stage) in self.stages.iter_mut().enumerate() {
            stage.encoder.visit_linears(&format!("{path}.stages.{n}.encoder"), visit);
        }
    }

    /// As [`ImageTower::packed`](crate::ImageTower::packed).
    pub(crate) fn pack(&mut self) {
        self.patch.pack();
        self.visit_linears("", &mut |_, linear| linear.pack());
        let mergings = self.stages.iter_mut().filter_map(|stage| stage.merging.as_mut());
        mergings.for_each(|merging| merging.reduction.pack());
    }

    /// Runs the tower on normalised pixels, `[batch, 3, height, width]`.
    ///
    /// # Panics
    /// If `height` or `width` is not a multiple of the patch size.
    pub fn forward(&self, pixels: Tensor<4>, dropout: &Dropout) -> TowerOutput {
        let [batch, _, height, width] = pixels.dims();
        let device = pixels.device().without_autodiff();
        let mut grid = [height / self.config.patch_size, width / self.config.patch_size];
        let x = self.embedding_norm.forward(self.patch.forward(patch_rows(pixels, self.config.patch_size)));
        let x = match self.positions_for(grid) {
            Some(positions) => x + positions.repeat(&[batch, 1]),
            None => x,
        };
        let mut x = dropout.apply(x, self.config.stages[0].hidden_dropout);
        for stage in &self.stages {
            let layout = SequenceLayout::uniform(batch, grid[0] * grid[1]);
            x = stage.encoder.forward(x, &layout, &self.relations(batch, grid, &device), dropout);
            if let Some(merging) = &stage.merging {
                let neighbours = neighbours(grid);
                let [_, width] = x.dims();
                let x4 = gather_in_each_image(&neighbours, grid[0] * grid[1], batch, &device).apply(x);
                let x4 = x4.reshape([batch * neighbours.len() / 4, 4 * width]);
                x = merging.reduction.forward(merging.norm.forward(x4));
                grid = grid.map(|side| side.div_ceil(2));
            }
        }
        let hidden = self.final_norm.forward(x);
        let pooled = SequenceLayout::uniform(batch, grid[0] * grid[1]).mean(hidden.clone(), 0);
        TowerOutput { hidden, pooled }
    }

    /// One entry per block of the deepest stage. The windows of every second block are shifted.
    fn relations(&self, batch: usize, grid: [usize; 2], device: &Device) -> Vec<Relations> {
        let smallest = grid[0].min(grid[1]);
        let side = self.config.window.min(smallest);
        // A single window that covers the map is not shifted.
        let shift = if smallest <= self.config.window { 0 } else { self.config.window / 2 };
        let table_rows: Tensor<1, Int> = offset_rows([side; 2], [self.config.window; 2], device);
        let relations = |shift| {
            let windows = Windows::new(batch, grid, side, shift, device);
            Relations {
                table_rows: Some(table_rows.clone()),
                mask: windows.mask.clone(),
                windows: Some(windows),
                ..Relations::default()
            }
        };
        let (even, odd) = (relations(0), relations(shift));
        let depth = self.config.stages.iter().map(|stage| stage.depth).max().unwrap_or(0);
        (0..depth).map(|n| if n % 2 == 0 { even.clone() } else { odd.clone() }).collect()
    }

    /// Position embeddings of a `grid` of patches, `[patches, width]`.
    fn positions_for(&self, grid: [usize; 2]) -> Option<Tensor<2>> {
        let positions = self.positions.as_ref()?.val();
        if grid == self.config.grid() {
            return Some(positions);
        }
        let resize = Interpolation::Bicubic.matrix(self.config.grid(), grid, &positions.device());
        Some(resize.cast(positions.dtype()).matmul(positions))
    }
}

/// The four tokens that each merged token is made of, top to bottom before left to right. `None`, for zeros, beyond the
/// edge of a map with odd sides.
fn neighbours(grid: [usize; 2]) -> Vec<Option<usize>> {
    let halves = grid.map(|side| side.div_ceil(2));
    let token = |[row, column]: [usize; 2]| (row < grid[0] && column < grid[1]).then_some(row * grid[1] + column);
    let merged = |n: usize| {
        let [row, column] = [2 * (n / halves[1]), 2 * (n % halves[1])];
        [[0, 0], [1, 0], [0, 1], [1, 1]].map(|[down, right]| token([row + down, column + right]))
    };
    (0..halves[0] * halves[1]).flat_map(merged).collect()
}
