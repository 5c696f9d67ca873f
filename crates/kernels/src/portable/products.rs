//! Products of matrices outside of the graph: by the library of a device that has one, else by Burn.

use burn::tensor::{Tensor, module};

/// `x W + b`, `[rows, out]`, of `x` `[rows, in]`, `weight` `[in, out]` and `bias` `[out]`.
pub(crate) fn affine(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    #[cfg(feature = "cuda")]
    if let Some(output) = crate::cube::cublas::products::affine(&x, &weight, bias.as_ref()) {
        return output;
    }
    module::linear(x, weight, bias)
}

/// `a b` of matrices in the last two dimensions. `transposed` says which of the two is read with these swapped.
pub(crate) fn product<const D: usize>(a: Tensor<D>, b: Tensor<D>, transposed: [bool; 2]) -> Tensor<D> {
    by_library(&a, &b, transposed).unwrap_or_else(|| {
        let swapped = |x: Tensor<D>, swap| if swap { x.swap_dims(D - 2, D - 1) } else { x };
        swapped(a, transposed[0]).matmul(swapped(b, transposed[1]))
    })
}

/// [`product`], if a library of the device takes it.
pub(crate) fn by_library<const D: usize>(a: &Tensor<D>, b: &Tensor<D>, transposed: [bool; 2]) -> Option<Tensor<D>> {
    #[cfg(feature = "cuda")]
    if let Some(output) = crate::cube::cublas::products::product(a, b, transposed) {
        return Some(output);
    }
    let _ = (a, b, transposed);
    None
}
