//! Products by the library of a device, outside of the graph.

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device, Tensor};

use crate::cube::cublas::extension::ops;
use crate::cube::cublas::library::{Library, Shape};
use crate::portable::forms::only_plain;

/// Name and version of the library that multiplies matrices on `device`; `None` where Burn's kernels do.
pub fn matrix_library(device: &Device) -> Option<String> {
    library(device).map(Library::name)
}

/// `x W + b`, `[rows, out]`, of `x` `[rows, in]`, `weight` `[in, out]` and `bias` `[out]`, outside of the graph. `None`
/// unless the library takes it, as in all functions here.
pub(crate) fn affine(x: &Tensor<2>, weight: &Tensor<2>, bias: Option<&Tensor<1>>) -> Option<Tensor<2>> {
    let ([rows, inner], [_, columns]) = (x.dims(), weight.dims());
    let dtypes = [x.dtype(), weight.dtype(), bias.map_or(x.dtype(), Tensor::dtype)];
    let shape = Shape { batch: 1, rows, inner, columns, transposed: [false; 2], biased: bias.is_some() };
    takes(&x.device(), dtypes, shape)?;
    Some(ops::product(x.clone(), weight.clone(), bias.cloned(), shape, vec![rows, columns]))
}

/// `a b` outside of the graph: matrices in the last two dimensions, with as many in those before. `transposed` says
/// which of them is read with its last two dimensions swapped.
pub(crate) fn product<const D: usize>(a: &Tensor<D>, b: &Tensor<D>, transposed: [bool; 2]) -> Option<Tensor<D>> {
    let ([first, second], [third, fourth]) = (last_dims(a), last_dims(b));
    let (rows, inner) = if transposed[0] { (second, first) } else { (first, second) };
    let (inner_of_b, columns) = if transposed[1] { (fourth, third) } else { (third, fourth) };
    let mut dims = a.dims().to_vec();
    if inner != inner_of_b || dims[..D - 2] != b.dims()[..D - 2] {
        return None;
    }
    let shape = Shape { batch: dims[..D - 2].iter().product(), rows, inner, columns, transposed, biased: false };
    takes(&a.device(), [a.dtype(), b.dtype(), a.dtype()], shape)?;
    dims[D - 2..].copy_from_slice(&[rows, columns]);
    Some(ops::product(a.clone(), b.clone(), None, shape, dims))
}

fn last_dims<const D: usize>(x: &Tensor<D>) -> [usize; 2] {
    let dims = x.dims();
    [dims[D - 2], dims[D - 1]]
}

/// `Some` if the library has a kernel for these products.
fn takes(device: &Device, dtypes: [DType; 3], shape: Shape) -> Option<()> {
    let Shape { batch, rows, inner, columns, .. } = shape;
    let is_empty = [batch, rows, inner, columns].contains(&0);
    if only_plain() || is_empty || dtypes != [dtypes[0]; 3] {
        return None;
    }
    library(device)?.plan(dtypes[0], shape).map(|_| ())
}

fn library(device: &Device) -> Option<&'static Library> {
    match device.clone().without_autodiff().as_dispatch() {
        DispatchDevice::Cube(device) => Library::of(&device.client()),
        _ => None,
    }
}
