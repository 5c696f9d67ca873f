//! Convolutional towers: a stem, stages of blocks that halve the map between them, and the mean over the last map.
//!
//! ResNet (He et al., 2016) and ConvNeXt (Liu et al., 2022; version 2, Woo et al., 2023) differ in their blocks.

use burn::module::{Module, Param};
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Tensor, module};
use dualenc_kernels::Activation;
use serde_json::json;

use crate::form::{list, option};
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::Linear;
use crate::params::builder::{Init, ParamBuilder};
use crate::pooling::Pooling;
use crate::tower::TowerOutput;
use crate::transformer::sequence_layout::SequenceLayout;
use crate::vision::conv_layers::{Conv, ConvNorm, ConvShape, normalize_channels, to_map, to_rows};

/// Epsilon of every ConvNeXt norm except the last (a constant in the reference).
const NEXT_EPSILON: f64 = 1e-6;

/// Epsilon of response normalisation (Woo et al., 2023, app. A).
const RESPONSE_EPSILON: f64 = 1e-6;

/// The architecture of a convolutional tower.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvNetConfig {
    /// Number of channels of each stage.
    pub widths: Vec<usize>,
    /// Number of blocks of each stage; as long as `widths`.
    pub depths: Vec<usize>,
    /// Nonlinearity of the blocks.
    pub activation: Activation,
    /// Kind of block.
    pub kind: ConvNetKind,
}

/// The kind of block, with the options of its family.
#[derive(Debug, Clone, PartialEq)]
pub enum ConvNetKind {
    /// ResNet.
    Residual {
        /// Number of channels after the stem.
        stem_width: usize,
        /// Whether a block is a bottleneck of three convolutions; otherwise it is two convolutions.
        bottleneck: bool,
        /// Whether the first stage halves the map, as the others do.
        halve_first: bool,
        /// Whether a bottleneck halves the map in its first convolution (He et al.); otherwise in its second
        /// (torchvision).
        halve_early: bool,
    },
    /// ConvNeXt.
    Next {
        /// Side of the stem's patches, in pixels.
        patch_size: usize,
        /// LayerScale: initial value of a learned factor per channel on each residual branch (version 1).
        layer_scale: Option<f64>,
        /// Whether blocks have global response normalisation (version 2).
        response_norm: bool,
        /// Epsilon of the last norm.
        norm_epsilon: f64,
        /// Standard deviation of randomly initialised weights.
        init_std: f64,
    },
}

impl ConvNetConfig {
    /// Number of channels of the last stage.
    pub fn width(&self) -> usize {
        self.widths.last().copied().unwrap_or_default()
    }

    /// The written form, for cache keys (see `form`).
    pub(crate) fn form(&self) -> String {
        let Self { widths, depths, activation, kind } = self;
        let (widths, depths, activation) = (list(widths), list(depths), json!(activation));
        let kind = match kind {
            ConvNetKind::Residual { stem_width, bottleneck, halve_first, halve_early } => format!(
                "residual(stem={stem_width} bottleneck={bottleneck} halve-first={halve_first} \
                 halve-early={halve_early})"
            ),
            ConvNetKind::Next { patch_size, layer_scale, response_norm, norm_epsilon, init_std } => format!(
                "next(patch={patch_size} layer-scale={} response-norm={response_norm} epsilon={norm_epsilon} \
                 std={init_std})",
                option(*layer_scale)
            ),
        };
        format!("conv(widths={widths} depths={depths} activation={activation} kind={kind})")
    }

    /// Smallest side of an image, in pixels: the last map must not be empty.
    pub fn min_side(&self) -> usize {
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

    /// The architecture that the tower was built from.
    pub fn config(&self) -> &ConvNetConfig {
        &self.config
    }

    /// The pooling that was asked for. Each one is the mean over the last map, normalised if the family does so.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Whether it has linear layers, as ConvNeXt has.
    pub(crate) fn has_linears(&self) -> bool {
        matches!(self.config.kind, ConvNetKind::Next { .. })
    }

    /// As [`ImageTower::packed`](crate::ImageTower::packed).
    pub(crate) fn pack(&mut self) {
        for block in self.stages.iter_mut().flat_map(|stage| &mut stage.blocks) {
            match block {
                Block::Residual(_) => {}
                Block::Next(NextBlock { up, down, .. }) => [up, down].into_iter().for_each(Linear::pack),
            }
        }
    }

    /// Runs the tower on normalised pixels, `[batch, 3, height, width]`. Pixels at the right and bottom that do not
    /// fill a window are ignored, as in the reference.
    ///
    /// # Panics
    /// If `height` or `width` is below [`ConvNetConfig::min_side`].
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

/// From pixels to the first feature map.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "few are made, and their size is that of the tensors they hold")]
enum Stem {
    /// A 7 x 7 convolution and a 3 x 3 max pool, each of which halves the map.
    Residual(ConvNorm),
    /// Non-overlapping patches.
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
                conv: Conv::new(&at.at("conv"), ConvShape::patches(3, width, patch_size), true, init_std),
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

/// Blocks that share one map size.
#[derive(Module, Debug)]
struct Stage {
    /// ConvNeXt halves the map between stages; ResNet does so in the first block of a stage.
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
                conv: Conv::new(&at.at("halving.conv"), ConvShape::patches(input, width, 2), true, init_std),
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
#[expect(clippy::large_enum_variant, reason = "few are made, and their size is that of the tensors they hold")]
enum Block {
    Residual(ResidualBlock),
    Next(NextBlock),
}

/// A residual block of convolutions with batch norms (He et al., 2016, fig. 5).
#[derive(Module, Debug)]
struct ResidualBlock {
    /// A projection, if the shapes before and after the block differ.
    shortcut: Option<ConvNorm>,
    layers: Vec<ConvNorm>,
    #[module(skip)]
    activation: Activation,
}

/// Factor by which a bottleneck reduces the number of channels (`reduction` in the reference).
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
        let residual = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x.clone()),
            None => x.clone(),
        };
        let last = self.layers.len() - 1;
        let x = self.layers.iter().enumerate().fold(x, |x, (n, layer)| {
            let x = layer.forward(x);
            // Always ReLU in the reference, whatever `hidden_act` says.
            if n == last { x } else { Activation::Relu.forward(x) }
        });
        self.activation.forward(x + residual)
    }
}

/// A depthwise convolution, then an MLP at each position (Liu et al., 2022, fig. 4).
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

/// Side of the depthwise kernel, the same in both versions.
const NEXT_SIDE: usize = 7;

/// Width of the MLP relative to the block, the same in both versions.
const NEXT_MLP: usize = 4;

impl NextBlock {
    fn new(at: &ParamBuilder<'_>, config: &ConvNetConfig, width: usize) -> Self {
        let (layer_scale, response_norm, init_std) = match config.kind {
            ConvNetKind::Next { layer_scale, response_norm, init_std, .. } => (layer_scale, response_norm, init_std),
            ConvNetKind::Residual { .. } => (None, false, 0.0),
        };
        let shape = ConvShape {
            input: width,
            output: width,
            side: NEXT_SIDE,
            stride: 1,
            padding: NEXT_SIDE / 2,
            groups: width,
        };
        let inner = NEXT_MLP * width;
        Self {
            conv: Conv::new(&at.at("conv"), shape, true, init_std),
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

/// Global response normalisation (Woo et al., 2023, sec. 3.2): scales each channel by its norm over the image, relative
/// to the mean norm of all channels.
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

    /// Maps `[rows, width]` of `batch` images to the same shape.
    fn forward(&self, x: Tensor<2>, batch: usize) -> Tensor<2> {
        let [rows, width] = x.dims();
        let images = x.clone().reshape([batch, rows / batch, width]);
        // Clamped, so that a channel of zeros has a gradient of 0 instead of infinity.
        let norms = images.clone().square().sum_dim(1).clamp_min(f64::from(f32::MIN_POSITIVE)).sqrt();
        let relative = norms.clone() / (norms.mean_dim(2) + RESPONSE_EPSILON);
        let scaled = (images * relative).reshape([rows, width]);
        scaled * self.weight.val().unsqueeze() + self.bias.val().unsqueeze() + x
    }
}
