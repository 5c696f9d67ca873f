//! Where the tokens of an image are in a row of all of them.

use burn::tensor::Tensor;

/// The tokens of an image, one after the other: the class token if there is one, other special tokens, patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLayout {
    /// Width of a token.
    pub width: usize,
    /// Number of tokens before the patches.
    pub special: usize,
    /// Whether the first token is a class token.
    pub class_token: bool,
    /// Side of the grid of patch tokens, where they are means of a finer one.
    pub grid: Option<usize>,
}

impl TokenLayout {
    /// Number of tokens in each row of `[batch, tokens * width]`.
    pub(crate) fn count(&self, tokens: &Tensor<2>) -> usize {
        tokens.dims()[1] / self.width
    }

    /// One vector for each image, `[batch, width]`, of `[batch, tokens * width]`: the class token, or the mean of the
    /// patch tokens where there is none.
    pub fn summary(&self, tokens: Tensor<2>) -> Tensor<2> {
        if self.class_token { tokens.narrow(1, 0, self.width) } else { self.mean_of_patches(tokens, self.width) }
    }

    /// The mean of the patch tokens, `[batch, width]`, of `[batch, tokens * width]`. `width`: of a token.
    pub(crate) fn mean_of_patches(&self, tokens: Tensor<2>, width: usize) -> Tensor<2> {
        let [batch, values] = tokens.dims();
        let count = values / width;
        let tokens = tokens.reshape([batch, count, width]);
        tokens.narrow(1, self.special, count - self.special).mean_dim(1).reshape([batch, width])
    }
}
