//! The shape of an MLP.

use crate::ops::activation::Activation;

/// Sizes of two linear layers, with an activation between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MlpShape {
    pub rows: usize,
    pub input: usize,
    pub hidden: usize,
    pub output: usize,
    pub up_has_bias: bool,
    pub down_has_bias: bool,
    pub activation: Activation,
}
