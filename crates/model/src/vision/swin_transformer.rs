//! Swin (Liu et al., 2021): encoders over windows of smaller and smaller maps, the mean over space.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

use crate::dual_encoder::lora::VisitLinear;
use crate::layers::linear::{Dropout, LayerNorm, Linear};
use crate::params::builder::{Init, ParamBuilder};
use crate::pooling::Pooling;
use crate::transformer::attention::Relations;
use crate::transformer::encoder::{Encoder, EncoderConfig};
use crate::transformer::sequence_layout::SequenceLayout;
use crate::transformer::windows::{RowMap, Windows};
use crate::vision::image_tower::TowerOutput;
use crate::vision::position_interpolation::Interpolation;
use crate::vision::vision_transformer::{offset_rows, offsets, patch_rows};

/// Epsilon of the norms that the config says nothing of (PyTorch's default).
const NORM_EPSILON: f64 = 1e-5;

/// What a Swin tower is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct SwinConfig {
    /// The blocks of each stage; a stage is twice as wide as the one before.
    pub stages: Vec<EncoderConfig>,
    /// Side of the square images that positions were learned for, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Side of a window, in tokens.
    pub window: usize,
    /// Whether patches have learned positions besides.
    pub positions: bool,
}

impl SwinConfig {
    /// Width of the last stage.
    pub fn width(&self) -> usize {
        self.stages.last().map_or(0, |stage| stage.width)
    }

    fn grid(&self) -> [usize; 2] {
        [self.image_size / self.patch_size; 2]
    }
}

/// Rows of the table of relative positions for windows of `side`.
pub(crate) fn window_offsets(side: usize) -> usize {
    offsets([side; 2]).iter().product()
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

/// Four neighbours become one token of twice the width.
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

    /// The config the tower was built from.
    pub fn config(&self) -> &SwinConfig {
        &self.config
    }

    /// How the tower was asked to pool; every way comes to the mean over space.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// The linears of its blocks, by path.
    pub(crate) fn linears(&mut self, path: &str, visit: &mut VisitLinear<'_>) {
        for (n, stage) in self.stages.iter_mut().enumerate() {
            stage.encoder.linears(&format!("{path}.stages.{n}.encoder"), visit);
        }
    }

    /// `[batch, 3, height, width]`, normalised pixels whose sides are multiples of the patch size.
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
                let x4 = RowMap::new(&neighbours, grid[0] * grid[1], batch, &device).apply(x);
                let x4 = x4.reshape([batch * neighbours.len() / 4, 4 * width]);
                x = merging.reduction.forward(merging.norm.forward(x4));
                grid = grid.map(|side| side.div_ceil(2));
            }
        }
        let hidden = self.final_norm.forward(x);
        let pooled = SequenceLayout::uniform(batch, grid[0] * grid[1]).mean(hidden.clone(), 0);
        TowerOutput { hidden, pooled }
    }

    /// Relations of even blocks and of odd ones, whose windows are shifted, as many as the deepest stage has blocks.
    fn relations(&self, batch: usize, grid: [usize; 2], device: &Device) -> Vec<Relations> {
        let smallest = grid[0].min(grid[1]);
        let side = self.config.window.min(smallest);
        // One window that covers the map has nothing to be shifted against.
        let shift = if smallest <= self.config.window { 0 } else { self.config.window / 2 };
        let relative: Tensor<1, Int> = offset_rows([side; 2], [self.config.window; 2], device);
        let relations = |shift| {
            let windows = Windows::new(batch, grid, side, shift, device);
            Relations {
                relative: Some(relative.clone()),
                hidden: windows.apart.clone(),
                windows: Some(windows),
                ..Relations::default()
            }
        };
        let (even, odd) = (relations(0), relations(shift));
        let depth = self.config.stages.iter().map(|stage| stage.depth).max().unwrap_or(0);
        (0..depth).map(|n| if n % 2 == 0 { even.clone() } else { odd.clone() }).collect()
    }

    /// `[patches, width]` for a `grid` of patches.
    fn positions_for(&self, grid: [usize; 2]) -> Option<Tensor<2>> {
        let positions = self.positions.as_ref()?.val();
        Some(match grid == self.config.grid() {
            true => positions,
            false => Interpolation::Bicubic
                .matrix(self.config.grid(), grid, &positions.device())
                .cast(positions.dtype())
                .matmul(positions),
        })
    }
}

/// The four tokens that become one, for each of these: down the columns first; zeros beyond the ends of an odd map.
fn neighbours(grid: [usize; 2]) -> Vec<Option<usize>> {
    let halves = grid.map(|side| side.div_ceil(2));
    let token = |[row, column]: [usize; 2]| (row < grid[0] && column < grid[1]).then_some(row * grid[1] + column);
    let four = |n: usize| {
        let [row, column] = [2 * (n / halves[1]), 2 * (n % halves[1])];
        [[0, 0], [1, 0], [0, 1], [1, 1]].map(|[down, right]| token([row + down, column + right]))
    };
    (0..halves[0] * halves[1]).flat_map(four).collect()
}
