//! Several tensors as one argument of an operation: Burn's extension has no lists.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType};

/// Tensors of a [`Bundle`], at most.
pub const MOST: usize = 16;

/// Up to [`MOST`] tensors. Others fill it up and are not read.
#[derive(ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct Bundle<B: Backend>(
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
    pub FloatTensor<B>,
);

impl<B: Backend> Bundle<B> {
    /// `tensors`: at least one. Those after [`MOST`] are left out.
    pub fn new(tensors: &[FloatTensor<B>]) -> Self {
        let at = |n: usize| tensors[n.min(tensors.len() - 1)].clone();
        Self(
            at(0),
            at(1),
            at(2),
            at(3),
            at(4),
            at(5),
            at(6),
            at(7),
            at(8),
            at(9),
            at(10),
            at(11),
            at(12),
            at(13),
            at(14),
            at(15),
        )
    }

    /// The first `count` tensors.
    pub fn into_first(self, count: usize) -> Vec<FloatTensor<B>> {
        let Self(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) = self;
        let mut tensors = vec![a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p];
        tensors.truncate(count);
        tensors
    }
}
