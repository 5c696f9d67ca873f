//! A tensor of optimiser state or averaged weights, on its way into a checkpoint.

use std::borrow::Cow;

use dualenc_model::HostTensor;

/// A tensor in host memory, borrowed where its owner already holds it there.
#[derive(Debug, Clone)]
pub struct StateTensor<'a> {
    /// Size of each dimension.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: Cow<'a, [f32]>,
}

impl From<HostTensor> for StateTensor<'_> {
    fn from(tensor: HostTensor) -> Self {
        Self { shape: tensor.shape, values: tensor.values.into() }
    }
}
