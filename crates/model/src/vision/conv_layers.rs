//! Layers of convolutional towers. All work on feature maps: `[batch, channels, height, width]`.

use burn::module::{Module, Param};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, module};

use crate::layers::linear::LayerNorm;
use crate::params::builder::{Init, ParamBuilder};

/// Added to the variance by PyTorch's `BatchNorm2d`, whose default the reference takes.
const BATCH_NORM_EPSILON: f64 = 1e-5;

/// The shape of a convolution. Kernels are square; `groups` divides both channel counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernel {
    /// Channels before.
    pub input: usize,
    /// Channels after.
    pub output: usize,
    /// Side, in places of the map.
    pub side: usize,
    /// Places from one window to the next.
    pub stride: usize,
    /// Zeros around the map.
    pub padding: usize,
    /// Blocks of channels that do not see each other.
    pub groups: usize,
}

impl Kernel {
    /// One whose windows are as far apart as they are wide, without padding.
    pub fn patches(input: usize, output: usize, side: usize) -> Self {
        Self { input, output, side, stride: side, padding: 0, groups: 1 }
    }

    fn shape(self) -> [usize; 4] {
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
    pub fn new(at: &ParamBuilder<'_>, kernel: Kernel, bias: bool, std: f64) -> Self {
        Self {
            weight: at.param("weight", kernel.shape(), Init::Normal(std)),
            bias: bias.then(|| at.param("bias", [kernel.output], Init::Constant(0.0))),
            stride: kernel.stride,
            padding: kernel.padding,
            groups: kernel.groups,
        }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.with(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }

    fn with(&self, x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<4> {
        let options = ConvOptions::new([self.stride; 2], [self.padding; 2], [1, 1], self.groups);
        module::conv2d(x, weight, bias, options)
    }
}

/// Batch normalisation (Ioffe and Szegedy, 2015) by its running statistics, in training too: an affine map whose weight
/// and bias train and whose statistics do not ("frozen BatchNorm", as detection models are fine-tuned). A batch then never
/// changes what another image gives, a locked tower cannot drift, and a resumed run has no statistics to lose.
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

    /// Factor and summand of each channel.
    fn affine(&self) -> (Tensor<1>, Tensor<1>) {
        let factor = self.weight.val() * (self.running_var.val() + BATCH_NORM_EPSILON).sqrt().recip();
        let summand = self.bias.val() - factor.clone() * self.running_mean.val();
        (factor, summand)
    }
}

/// A convolution without bias and its batch norm, computed as one convolution.
#[derive(Module, Debug)]
pub(crate) struct ConvNorm {
    /// The convolution.
    pub conv: Conv,
    norm: BatchNorm,
}

impl ConvNorm {
    /// With padding that keeps the map's size where the stride is 1.
    pub fn new(at: &ParamBuilder<'_>, input: usize, output: usize, side: usize, stride: usize) -> Self {
        // He et al., 2015 (fan out), as the reference starts ResNets.
        let std = (2.0 / (side * side * output) as f64).sqrt();
        let kernel = Kernel { input, output, side, stride, padding: side / 2, groups: 1 };
        Self { conv: Conv::new(&at.at("conv"), kernel, false, std), norm: BatchNorm::new(&at.at("norm"), output) }
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (factor, summand) = self.norm.affine();
        let [channels] = factor.dims();
        let weight = self.conv.weight.val() * factor.reshape([channels, 1, 1, 1]);
        self.conv.with(x, weight, Some(summand))
    }
}

/// Layer norm over the channels of each place.
pub(crate) fn normalize_channels(norm: &LayerNorm, x: Tensor<4>) -> Tensor<4> {
    let shape = x.dims();
    to_map(norm.forward(to_rows(x)), shape)
}

/// `[batch, channels, height, width]` to `[batch * height * width, channels]`.
pub(crate) fn to_rows(x: Tensor<4>) -> Tensor<2> {
    let [batch, channels, height, width] = x.dims();
    x.permute([0, 2, 3, 1]).reshape([batch * height * width, channels])
}

/// The way back, to a map of this batch, height and width.
pub(crate) fn to_map(rows: Tensor<2>, [batch, _, height, width]: [usize; 4]) -> Tensor<4> {
    let [_, channels] = rows.dims();
    rows.reshape([batch, height, width, channels]).permute([0, 3, 1, 2])
}
