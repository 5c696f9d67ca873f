//! The layers of convolutional towers. They work on feature maps, `[batch, channels, height, width]`.

use burn::module::{Module, Param};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, module};

use crate::layers::layer_norm::LayerNorm;
use crate::params::builder::{Init, ParamBuilder};

/// Epsilon of batch norms: the default of PyTorch's `BatchNorm2d`, which the reference uses.
const BATCH_NORM_EPSILON: f64 = 1e-5;

/// The shape of a convolution. Kernels are square; `groups` divides both channel counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvShape {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Side of the kernel.
    pub side: usize,
    /// Stride.
    pub stride: usize,
    /// Zeros added on each side.
    pub padding: usize,
    /// Groups of channels that are convolved separately.
    pub groups: usize,
}

impl ConvShape {
    /// Non-overlapping patches: stride = kernel size, no padding.
    pub fn patches(input: usize, output: usize, side: usize) -> Self {
        Self { input, output, side, stride: side, padding: 0, groups: 1 }
    }

    fn weight(self) -> [usize; 4] {
        [self.output, self.input / self.groups, self.side, self.side]
    }
}

/// A 2-D convolution.
#[derive(Module, Debug)]
pub(crate) struct Conv {
    /// `[output, input / groups, side, side]`.
    pub weight: Param<Tensor<4>>,
    /// `[output]`.
    bias: Option<Param<Tensor<1>>>,
    stride: usize,
    padding: usize,
    groups: usize,
}

impl Conv {
    pub fn new(at: &ParamBuilder<'_>, shape: ConvShape, bias: bool, std: f64) -> Self {
        Self {
            weight: at.param("weight", shape.weight(), Init::Normal(std)),
            bias: bias.then(|| at.param("bias", [shape.output], Init::Constant(0.0))),
            stride: shape.stride,
            padding: shape.padding,
            groups: shape.groups,
        }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.convolve(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }

    fn convolve(&self, x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<4> {
        let options = ConvOptions::new([self.stride; 2], [self.padding; 2], [1, 1], self.groups);
        module::conv2d(x, weight, bias, options)
    }
}

/// Batch normalisation (Ioffe and Szegedy, 2015) with its running statistics, during training as well: weight and bias
/// train, statistics do not ("frozen BatchNorm", common when fine-tuning detection models). An output then never
/// depends on the rest of the batch, a locked tower cannot drift, and resuming needs no statistics.
#[derive(Module, Debug)]
pub(crate) struct BatchNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: Param<Tensor<1>>,
    running_var: Param<Tensor<1>>,
    num_batches_tracked: Param<Tensor<1>>,
}

impl BatchNorm {
    pub fn new(at: &ParamBuilder<'_>, channels: usize) -> Self {
        Self {
            weight: at.param("weight", [channels], Init::Constant(1.0)),
            bias: at.param("bias", [channels], Init::Constant(0.0)),
            running_mean: at.buffer("running_mean", [channels], 0.0),
            running_var: at.buffer("running_var", [channels], 1.0),
            num_batches_tracked: at.carried("num_batches_tracked", [1]),
        }
    }

    /// Scale and shift of each channel, `[channels]` each.
    fn affine(&self) -> (Tensor<1>, Tensor<1>) {
        let scale = self.weight.val() * (self.running_var.val() + BATCH_NORM_EPSILON).sqrt().recip();
        let shift = self.bias.val() - scale.clone() * self.running_mean.val();
        (scale, shift)
    }
}

/// A convolution without bias and a batch norm, computed as one convolution.
#[derive(Module, Debug)]
pub(crate) struct ConvNorm {
    /// The convolution.
    pub conv: Conv,
    norm: BatchNorm,
}

impl ConvNorm {
    /// With the padding that keeps the size of the map if `stride` is 1.
    pub fn new(at: &ParamBuilder<'_>, input: usize, output: usize, side: usize, stride: usize) -> Self {
        // He et al., 2015 (fan out), as the reference initialises ResNets.
        let std = (2.0 / (side * side * output) as f64).sqrt();
        let shape = ConvShape { input, output, side, stride, padding: side / 2, groups: 1 };
        Self { conv: Conv::new(&at.at("conv"), shape, false, std), norm: BatchNorm::new(&at.at("norm"), output) }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (scale, shift) = self.norm.affine();
        let [channels] = scale.dims();
        let weight = self.conv.weight.val() * scale.reshape([channels, 1, 1, 1]);
        self.conv.convolve(x, weight, Some(shift))
    }
}

/// Layer norm over the channels of each position of a map.
pub(crate) fn normalize_channels(norm: &LayerNorm, x: Tensor<4>) -> Tensor<4> {
    let shape = x.dims();
    to_map(norm.forward(to_rows(x)), shape)
}

/// Maps `[batch, channels, height, width]` to `[batch * height * width, channels]`.
pub(crate) fn to_rows(x: Tensor<4>) -> Tensor<2> {
    let [batch, channels, height, width] = x.dims();
    x.permute([0, 2, 3, 1]).reshape([batch * height * width, channels])
}

/// The inverse of [`to_rows`], to a map of this batch, height and width.
pub(crate) fn to_map(rows: Tensor<2>, [batch, _, height, width]: [usize; 4]) -> Tensor<4> {
    let [_, channels] = rows.dims();
    rows.reshape([batch, height, width, channels]).permute([0, 3, 1, 2])
}
