//! Gradients of parameters that act on every row: sums over all rows of a batch, of which there are many, with few
//! results. A GPU works on results side by side, so that one sum of each would leave most of the card idle. There the
//! rows are cut into slices of equal height, and the sums of the slices are added in order. A library of the device
//! does so by itself.

use burn::tensor::Tensor;

use crate::portable::forms::is_remote;
use crate::portable::products::by_library;

/// Rows and columns of a result that a multiprocessor works on at a time, as products are tiled.
const TILE: usize = 128;

/// Tiles that keep a GPU busy: two for each of the 100 to 150 multiprocessors of a large one.
const TILES: usize = 256;

/// Rows of a slice of a product, at least: fewer are not worth writing a result of their own.
const PRODUCT_ROWS: usize = 256;

/// Rows of a slice of a column sum, at least.
const SUM_ROWS: usize = 32;

/// Slices of the rows at most, in sums over all rows on a device: of a number of rows that is a multiple of this, all
/// are used.
pub const MOST_SLICES: usize = 128;

/// `x^T y`, `[in, out]`, of `x` `[rows, in]` and `y` `[rows, out]`.
pub(crate) fn transposed_product(x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
    if let Some(product) = by_library(&x, &y, [true, false]) {
        return product;
    }
    let slices = product_slices(&x, &y);
    finished_product(slices, x, y)
}

/// The sums of the columns of `x` `[rows, width]`, `[width]`.
pub(crate) fn column_sums(x: Tensor<2>) -> Tensor<1> {
    let slices = column_slices(&x);
    finished_sums(slices, x)
}

/// [`transposed_product`] of `x` and `y`, and [`column_sums`] of `y`: the gradients of a linear layer.
pub(crate) fn linear_gradients(x: Tensor<2>, y: Tensor<2>) -> (Tensor<2>, Tensor<1>) {
    if let Some(product) = by_library(&x, &y, [true, false]) {
        return (product, column_sums(y));
    }
    let (products, sums) = (product_slices(&x, &y), column_slices(&y));
    #[cfg(feature = "cube")]
    if let (Some(products), Some(sums)) = (&products, &sums)
        && let Some([products, sums]) = crate::cube::columns::sums([products, sums])
    {
        return (products.reshape([x.dims()[1], y.dims()[1]]), sums);
    }
    (finished_product(products, x, y.clone()), finished_sums(sums, y))
}

/// `x^T y` from its [`product_slices`].
fn finished_product(slices: Option<Tensor<2>>, x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
    let ([_, input], [_, output]) = (x.dims(), y.dims());
    match slices {
        Some(slices) => slices.sum_dim(0).reshape([input, output]),
        None => x.transpose().matmul(y),
    }
}

/// The sums of the columns of `x` from its [`column_slices`].
fn finished_sums(slices: Option<Tensor<2>>, x: Tensor<2>) -> Tensor<1> {
    let [_, width] = x.dims();
    slices.unwrap_or(x).sum_dim(0).reshape([width])
}

/// `x^T y` of slices of the rows, `[slices, in * out]`; `None` if one product is as fast.
fn product_slices(x: &Tensor<2>, y: &Tensor<2>) -> Option<Tensor<2>> {
    let ([rows, input], [_, output]) = (x.dims(), y.dims());
    let tiles = input.div_ceil(TILE) * output.div_ceil(TILE);
    let slices = slices(rows, TILES.div_ceil(tiles), PRODUCT_ROWS);
    let cut = |x: &Tensor<2>, width| x.clone().reshape([slices, rows / slices, width]);
    let products = || cut(x, input).swap_dims(1, 2).matmul(cut(y, output)).reshape([slices, input * output]);
    (slices > 1 && is_remote(&x.device())).then(products)
}

/// The sums of the columns of slices of the rows, `[slices, width]`; `None` if one sum is as fast.
fn column_slices(x: &Tensor<2>) -> Option<Tensor<2>> {
    let [rows, width] = x.dims();
    let slices = slices(rows, MOST_SLICES, SUM_ROWS);
    let sums = || x.clone().reshape([slices, rows / slices, width]).sum_dim(1).reshape([slices, width]);
    (slices > 1 && is_remote(&x.device())).then(sums)
}

/// The number of slices, about `wanted`: a power of two that divides `rows`, with at least `least` rows each.
fn slices(rows: usize, wanted: usize, least: usize) -> usize {
    let most = wanted.next_power_of_two().min(MOST_SLICES);
    let fits = |slices: &usize| rows.is_multiple_of(*slices) && rows / slices >= least;
    (0..=most.ilog2()).rev().map(|power| 1 << power).find(fits).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::slices;

    #[test]
    fn rows_are_cut_without_rest() {
        assert_eq!(slices(18_432, 29, 256), 32);
        assert_eq!(slices(18_432, 8, 256), 8);
        assert_eq!(slices(18_432, 256, 32), 128);
        // 197 tokens of each of 12 images.
        assert_eq!(slices(12 * 197, 29, 256), 4);
        assert_eq!(slices(1024, 29, 256), 4);
        assert_eq!(slices(18_431, 29, 256), 1);
        assert_eq!(slices(0, 29, 256), 1);
    }
}
