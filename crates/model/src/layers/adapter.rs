//! Low-rank adapters (LoRA, Hu et al., 2022, arXiv:2106.09685): a frozen matrix `W` learns a low-rank update.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// A low-rank update to the weight of a linear layer: `scale * down up`.
#[derive(Module, Debug)]
pub struct Adapter {
    /// `[in, rank]`.
    pub down: Param<Tensor<2>>,
    /// `[rank, out]`.
    pub up: Param<Tensor<2>>,
    scale: f64,
}

impl Adapter {
    /// `down` is `[in, rank]`, `up` is `[rank, out]`, `scale` is `alpha / rank` (sec. 4.1).
    pub(crate) fn new(down: Param<Tensor<2>>, up: Param<Tensor<2>>, scale: f64) -> Self {
        Self { down, up, scale }
    }

    /// The update to the weight, `[in, out]`.
    pub fn difference(&self) -> Tensor<2> {
        self.down.val().matmul(self.up.val()) * self.scale
    }
}

/// Whether the parameter at `path` belongs to an adapter.
pub(crate) fn is_adapter(path: &str) -> bool {
    path.contains(".adapter.")
}
