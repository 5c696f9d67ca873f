//! Convolutional towers: a stem, stages of blocks that halve the map between them, the mean over space.
//!
//! ResNet (He et al., 2016) and ConvNeXt (Liu et al., 2022; version 2, Woo et al., 2023) differ in their blocks.

use burn::module::{Module, Param};
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Tensor, module};

use crate::layers::linear::{Activation, LayerNorm, Linear};
use crate::params::builder::{Init, ParamBuilder};
use crate::pooling::Pooling;
use crate::transformer::sequence_layout::SequenceLayout;
use crate::vision::conv_layers::{Conv, ConvNorm, Kernel, normalize_channels, to_map, to_rows};
use crate::vision::image_tower::TowerOutput;

/// Epsilon of every ConvNeXt norm but the last (a constant of the reference's).
const NEXT_EPSILON: f64 = 1e-6;

/// Added to the mean norm that response normalisation divides by (Woo et al., 2023, app. A).
const RESPONSE_EPSILON: f64 = 1e-6;

/// What a convolutional tower is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvNetConfig {
    /// Channels of each stage.
    pub widths: Vec<usize>,
    /// Blocks of each stage, as many numbers as there are widths.
    pub depths: Vec<usize>,
    /// The nonlinearity.
    pub activation: Activation,
    /// Which blocks.
    pub kind: ConvNetKind,
}

/// What the families differ in.
#[derive(Debug, Clone, PartialEq)]
pub enum ConvNetKind {
    /// ResNet.
    Residual {
        /// Channels after the stem.
        stem_width: usize,
        /// Whether a block is three convolutions with few channels in the middle, else two.
        bottleneck: bool,
        /// Whether the first stage halves the map, as the others do.
        halve_first: bool,
        /// Whether a bottleneck halves the map in its first convolution (He et al.), else in its second (torchvision).
        halve_early: bool,
    },
    /// ConvNeXt.
    Next {
        /// Side of the patches of the stem, in pixels.
        patch_size: usize,
        /// A learned factor a channel on each residual branch, and its initial value (version 1).
        layer_scale: Option<f64>,
        /// Whether blocks normalise responses (version 2).
        response_norm: bool,
        /// Epsilon of the last norm.
        norm_epsilon: f64,
        /// Standard deviation of fresh weights.
        init_std: f64,
    },
}

impl ConvNetConfig {
    /// Channels of the last stage.
    pub fn width(&self) -> usize {
        self.widths.last().copied().unwrap_or_default()
    }

    /// The smallest side of an image that leaves a place of the map, in pixels.
    pub fn smallest_side(&self) -> usize {
        match self.kind {
            ConvNetKind::Residual { .. } => 1,
            ConvNetKind::Next { patch_size, .. } => patch_size << (self.widths.len() - 1),
        }
    }
}

/// A convolutional network.
#[derive(Module, Debug)]
pub struct ConvNet {
    stem: Stem,
    stages: Vec<Stage>,
    final_norm: Option<LayerNorm>,
    #[module(skip)]
    config: ConvNetConfig,
    #[module(skip)]
    pooling: Pooling,
}

impl ConvNet {
    pub(crate) fn new(at: &ParamBuilder<'_>, config: ConvNetConfig, pooling: Pooling) -> Self {
        let (stem_width, final_epsilon) = match config.kind {
            ConvNetKind::Residual { stem_width, .. } => (stem_width, None),
            ConvNetKind::Next { norm_epsilon, .. } => (config.widths[0], Some(norm_epsilon)),
        };
        let stage = |n: usize| {
            let input = if n == 0 { stem_width } else { config.widths[n - 1] };
            Stage::new(&at.at("stages").at(n), &config, n, input)
        };
        Self {
            stem: Stem::new(&at.at("stem"), &config, stem_width),
            stages: (0..config.widths.len()).map(stage).collect(),
            final_norm: final_epsilon
                .map(|epsilon| LayerNorm::new(&at.at("final_norm"), config.width(), true, epsilon)),
            config,
            pooling,
        }
    }

    /// The config the tower was built from.
    pub fn config(&self) -> &ConvNetConfig {
        &self.config
    }

    /// How the tower was asked to pool; every way comes to the mean over space, normalised where the family does that.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// `[batch, 3, height, width]`, normalised pixels, of any size from [`ConvNetConfig::smallest_side`] on. What does not
    /// fill a window at the right or bottom end is not seen, as in the reference.
    pub fn forward(&self, pixels: Tensor<4>) -> TowerOutput {
        let x = self.stem.forward(pixels, self.config.activation);
        let x = self.stages.iter().fold(x, |x, stage| stage.forward(x));
        let [batch, _, height, width] = x.dims();
        let hidden = to_rows(x);
        let mean = SequenceLayout::uniform(batch, height * width).mean(hidden.clone(), 0);
        let pooled = match &self.final_norm {
            Some(norm) => norm.forward(mean),
            None => mean,
        };
        TowerOutput { hidden, pooled }
    }
}

/// Pixels to the first map.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "few are made, and what is large in them are tensors")]
enum Stem {
    /// A convolution of 7 x 7 and a maximum over 3 x 3, which both halve the map.
    Residual(ConvNorm),
    /// Patches.
    Next(NextStem),
}

#[derive(Module, Debug)]
struct NextStem {
    conv: Conv,
    norm: LayerNorm,
}

impl Stem {
    fn new(at: &ParamBuilder<'_>, config: &ConvNetConfig, width: usize) -> Self {
        match config.kind {
            ConvNetKind::Residual { .. } => Self::Residual(ConvNorm::new(at, 3, width, 7, 2)),
            ConvNetKind::Next { patch_size, init_std, .. } => Self::Next(NextStem {
                conv: Conv::new(&at.at("conv"), Kernel::patches(3, width, patch_size), true, init_std),
                norm: LayerNorm::new(&at.at("norm"), width, true, NEXT_EPSILON),
            }),
        }
    }

    fn forward(&self, pixels: Tensor<4>, activation: Activation) -> Tensor<4> {
        match self {
            Self::Residual(stem) => {
                let x = activation.forward(stem.forward(pixels));
                module::max_pool2d(x, MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]))
            }
            Self::Next(stem) => normalize_channels(&stem.norm, stem.conv.forward(pixels)),
        }
    }
}

/// Blocks with maps of one size.
#[derive(Module, Debug)]
struct Stage {
    /// ConvNeXt halves the map between its stages, ResNet in the first block of one.
    halving: Option<Halving>,
    blocks: Vec<Block>,
}

#[derive(Module, Debug)]
struct Halving {
    norm: LayerNorm,
    conv: Conv,
}

impl Stage {
    fn new(at: &ParamBuilder<'_>, config: &ConvNetConfig, stage: usize, input: usize) -> Self {
        let width = config.widths[stage];
        let halving = match config.kind {
            ConvNetKind::Next { init_std, .. } if stage > 0 => Some(Halving {
                norm: LayerNorm::new(&at.at("halving.norm"), input, true, NEXT_EPSILON),
                conv: Conv::new(&at.at("halving.conv"), Kernel::patches(input, width, 2), true, init_std),
            }),
            _ => None,
        };
        let block = |n: usize| {
            let at = at.at("blocks").at(n);
            match config.kind {
                ConvNetKind::Residual { halve_first, .. } => {
                    let stride = if n == 0 && (stage > 0 || halve_first) { 2 } else { 1 };
                    let input = if n == 0 { input } else { width };
                    Block::Residual(ResidualBlock::new(&at, config, [input, width], stride))
                }
                ConvNetKind::Next { .. } => Block::Next(NextBlock::new(&at, config, width)),
            }
        };
        Self { halving, blocks: (0..config.depths[stage]).map(block).collect() }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match &self.halving {
            Some(halving) => halving.conv.forward(normalize_channels(&halving.norm, x)),
            None => x,
        };
        self.blocks.iter().fold(x, |x, block| match block {
            Block::Residual(block) => block.forward(x),
            Block::Next(block) => block.forward(x),
        })
    }
}

#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "few are made, and what is large in them are tensors")]
enum Block {
    Residual(ResidualBlock),
    Next(NextBlock),
}

/// Convolutions with batch norms beside a shortcut (He et al., 2016, fig. 5).
#[derive(Module, Debug)]
struct ResidualBlock {
    /// Where the shapes before and after differ.
    shortcut: Option<ConvNorm>,
    layers: Vec<ConvNorm>,
    #[module(skip)]
    activation: Activation,
}

/// A bottleneck has this share of the channels in its middle (`reduction` in the reference).
const BOTTLENECK: usize = 4;

impl ResidualBlock {
    fn new(at: &ParamBuilder<'_>, config: &ConvNetConfig, [input, output]: [usize; 2], stride: usize) -> Self {
        let layers = match config.kind {
            ConvNetKind::Residual { bottleneck: true, halve_early, .. } => {
                let middle = output / BOTTLENECK;
                let (first, second) = if halve_early { (stride, 1) } else { (1, stride) };
                vec![(input, middle, 1, first), (middle, middle, 3, second), (middle, output, 1, 1)]
            }
            _ => vec![(input, output, 3, stride), (output, output, 3, 1)],
        };
        let layer = |(n, (input, output, side, stride)): (usize, _)| {
            ConvNorm::new(&at.at("layers").at(n), input, output, side, stride)
        };
        Self {
            shortcut: (input != output || stride != 1)
                .then(|| ConvNorm::new(&at.at("shortcut"), input, output, 1, stride)),
            layers: layers.into_iter().enumerate().map(layer).collect(),
            activation: config.activation,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let beside = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x.clone()),
            None => x.clone(),
        };
        let last = self.layers.len() - 1;
        let x = self.layers.iter().enumerate().fold(x, |x, (n, layer)| match n == last {
            true => layer.forward(x),
            // The reference's inner activation, whatever `hidden_act` says.
            false => Activation::Relu.forward(layer.forward(x)),
        });
        self.activation.forward(x + beside)
    }
}

/// A convolution over space for each channel alone, then an MLP for each place alone (Liu et al., 2022, fig. 4).
#[derive(Module, Debug)]
struct NextBlock {
    conv: Conv,
    norm: LayerNorm,
    up: Linear,
    response_norm: Option<ResponseNorm>,
    down: Linear,
    scale: Option<Param<Tensor<1>>>,
    #[module(skip)]
    activation: Activation,
}

/// Side of the kernel, and the MLP's width as a multiple of the block's (constants of both versions).
const NEXT_SIDE: usize = 7;
const NEXT_MLP: usize = 4;

impl NextBlock {
    fn new(at: &ParamBuilder<'_>, config: &ConvNetConfig, width: usize) -> Self {
        let (layer_scale, response_norm, init_std) = match config.kind {
            ConvNetKind::Next { layer_scale, response_norm, init_std, .. } => (layer_scale, response_norm, init_std),
            ConvNetKind::Residual { .. } => (None, false, 0.0),
        };
        let kernel =
            Kernel { input: width, output: width, side: NEXT_SIDE, stride: 1, padding: NEXT_SIDE / 2, groups: width };
        let inner = NEXT_MLP * width;
        Self {
            conv: Conv::new(&at.at("conv"), kernel, true, init_std),
            norm: LayerNorm::new(&at.at("norm"), width, true, NEXT_EPSILON),
            up: Linear::new(&at.at("up"), width, inner, true, init_std),
            response_norm: response_norm.then(|| ResponseNorm::new(&at.at("response_norm"), inner)),
            down: Linear::new(&at.at("down"), inner, width, true, init_std),
            scale: layer_scale.map(|value| at.param("scale", [width], Init::Constant(value as f32))),
            activation: config.activation,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shape = x.dims();
        let inner = self.norm.forward(to_rows(self.conv.forward(x.clone())));
        let inner = self.activation.forward(self.up.forward(inner));
        let inner = match &self.response_norm {
            Some(norm) => norm.forward(inner, shape[0]),
            None => inner,
        };
        let inner = self.down.forward(inner);
        let inner = match &self.scale {
            Some(scale) => inner * scale.val().unsqueeze(),
            None => inner,
        };
        x + to_map(inner, shape)
    }
}

/// Global response normalisation (Woo et al., 2023, sec. 3.2): a channel counts by its norm over the image, relative to
/// the other channels'.
#[derive(Module, Debug)]
struct ResponseNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

impl ResponseNorm {
    fn new(at: &ParamBuilder<'_>, width: usize) -> Self {
        let zeros = |name| at.param(name, [width], Init::Constant(0.0));
        Self { weight: zeros("weight"), bias: zeros("bias") }
    }

    /// `[rows, width]` of `batch` images to the same.
    fn forward(&self, x: Tensor<2>, batch: usize) -> Tensor<2> {
        let [rows, width] = x.dims();
        let images = x.clone().reshape([batch, rows / batch, width]);
        // A channel of zeros has no gradient, not an infinite one.
        let norms = images.clone().square().sum_dim(1).clamp_min(f64::from(f32::MIN_POSITIVE)).sqrt();
        let share = norms.clone() / (norms.mean_dim(2) + RESPONSE_EPSILON);
        let weighed = (images * share).reshape([rows, width]);
        weighed * self.weight.val().unsqueeze() + self.bias.val().unsqueeze() + x
    }
}
