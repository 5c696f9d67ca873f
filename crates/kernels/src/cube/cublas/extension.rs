//! A product as an operation of Burn's backend, outside of the graph.

#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use crate::cube::cublas::library::{ALIGNMENT, Library, Shape};
use crate::cube::launch::support::empty_like;

/// A product, and the dimensions of its result.
#[derive(Debug, Clone)]
pub struct ProductCall {
    pub shape: Shape,
    pub dims: Vec<usize>,
}

/// Products by the library of a device that has one.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub trait LibraryProducts: Backend {
    /// `bias`: not read unless the shape says so.
    #[fusion(meta = product_output)]
    fn library_product(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        call: ProductCall,
    ) -> FloatTensor<Self>;
}

#[cfg(feature = "fusion")]
fn product_output(a: &TensorSpec, _: &TensorSpec, _: &TensorSpec, call: &ProductCall) -> TensorSpec {
    TensorSpec { shape: burn::tensor::Shape::from(call.dims.clone()), dtype: a.dtype }
}

impl LibraryProducts for CubeBackend {
    fn library_product(a: CubeTensor, b: CubeTensor, bias: CubeTensor, call: ProductCall) -> CubeTensor {
        let ready = |tensor: CubeTensor| {
            let tensor = into_contiguous(tensor);
            let is_aligned = tensor.handle.offset_start.unwrap_or(0).is_multiple_of(u64::from(ALIGNMENT));
            if is_aligned { tensor } else { tensor.copy() }
        };
        let (a, b) = (ready(a), ready(b));
        let bias = if call.shape.biased { ready(bias) } else { b.clone() };
        let out = empty_like(&a, &call.dims, a.dtype);
        let library = Library::of(&a.client);
        let Some((library, plan)) = library.and_then(|library| Some((library, library.plan(a.dtype, call.shape)?)))
        else {
            unreachable!("this operation is called after the same library returned a plan for the same product")
        };
        // Bindings, unlike handles, do not keep Burn from computing in place.
        let binding = |tensor: &CubeTensor| tensor.handle.clone().binding();
        library.enqueue(plan, [&a, &b, &bias].map(binding), binding(&out));
        out
    }
}

/// [`LibraryProducts`] over Burn's tensors.
pub mod ops {
    use burn::backend::Dispatch;
    use burn::tensor::Tensor;

    use super::{LibraryProducts, ProductCall, Shape};

    pub fn product<const D: usize>(
        a: Tensor<D>,
        b: Tensor<D>,
        bias: Option<Tensor<1>>,
        shape: Shape,
        dims: Vec<usize>,
    ) -> Tensor<D> {
        let [a, b] = [a, b].map(Tensor::into_dispatch);
        let bias = bias.map_or_else(|| b.clone(), Tensor::into_dispatch);
        Tensor::from_dispatch(Dispatch::library_product(a, b, bias, ProductCall { shape, dims }))
    }
}
