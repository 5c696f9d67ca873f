//! Three matrices side by side in one, and back, and the sums of the columns of two matrices, as one kernel each.

use burn::tensor::Tensor;

use crate::cube::extension::ops;
use crate::cube::support::{has_addresses, properties};

/// `[rows, 3 * width]` of three matrices `[rows, width]`, outside of the graph; `None` unless the kernel takes them.
pub(crate) fn join(parts: &[Tensor<2>; 3]) -> Option<Tensor<2>> {
    let [rows, width] = parts[0].dims();
    properties(&parts[0])?;
    let alike = parts.iter().all(|part| part.dims() == [rows, width] && part.dtype() == parts[0].dtype());
    (alike && has_addresses(3 * rows * width)).then(|| ops::join_columns(parts.clone()))
}

/// Three matrices `[rows, width]` of `x` `[rows, 3 * width]`, outside of the graph; `None` unless the kernel takes it.
pub(crate) fn part(x: &Tensor<2>) -> Option<[Tensor<2>; 3]> {
    let [rows, triple] = x.dims();
    properties(x)?;
    (triple.is_multiple_of(3) && has_addresses(rows * triple)).then(|| ops::part_columns(x.clone()))
}

/// The sums of the columns of two matrices with few rows, outside of the graph; `None` unless the kernel takes them.
pub(crate) fn sums(slices: [&Tensor<2>; 2]) -> Option<[Tensor<1>; 2]> {
    properties(slices[0])?;
    let fits = slices.iter().all(|x| x.dtype() == slices[0].dtype() && has_addresses(x.dims().iter().product()));
    fits.then(|| ops::sum_slices(slices.map(Tensor::clone)))
}
