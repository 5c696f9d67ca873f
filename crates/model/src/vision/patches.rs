//! Images cut into patches.

use burn::tensor::Tensor;

/// Maps `[batch, 3, height, width]` to the pixels of each patch, `[batch * patches, 3 * patch * patch]`.
///
/// # Panics
/// If `height` or `width` is not a multiple of `patch`.
pub(crate) fn patch_rows(pixels: Tensor<4>, patch: usize) -> Tensor<2> {
    let [batch, channels, height, width] = pixels.dims();
    let grid = [height / patch, width / patch];
    pixels
        .reshape([batch, channels, grid[0], patch, grid[1], patch])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([batch * grid[0] * grid[1], channels * patch * patch])
}
