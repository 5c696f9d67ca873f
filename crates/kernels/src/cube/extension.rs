//! The kernels as operations of Burn's backend, outside of the graph, and how they are launched.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::tensor::{DType, Int, Shape, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::CubeBackend;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::{CubeCount, CubeDim};

use crate::cube::attention_kernels::{Form, attention_backward, attention_forward};
use crate::cube::dropout_kernels::{MaskLaunch, dropout_values};
use crate::cube::row_kernels::{norm_backward, norm_forward, norm_param_sums, softmax_rows};
use crate::ops::dropout::DropoutMask;

/// What attention is told beside its tensors.
#[derive(Debug, Clone)]
pub struct AttentionCall {
    pub sequences: usize,
    pub heads: usize,
    pub longest: usize,
    pub form: Form,
    pub dropout: Option<DropoutMask>,
}

/// The kernels. Tensors are contiguous or made so.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub trait DeviceKernels: Backend {
    #[fusion(meta = attention_outputs)]
    fn packed_attention(
        qkv: FloatTensor<Self>,
        starts: IntTensor<Self>,
        call: AttentionCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(dtype = qkv, shape = qkv)]
    fn packed_attention_backward(
        qkv: FloatTensor<Self>,
        starts: IntTensor<Self>,
        out: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        call: AttentionCall,
    ) -> FloatTensor<Self>;

    #[fusion(meta = norm_outputs)]
    fn row_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(dtype = x, shape = x)]
    fn row_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    #[fusion(meta = param_sums)]
    fn row_norm_param_sums(
        x: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        slices: usize,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = scores, shape = scores)]
    fn row_softmax(scores: FloatTensor<Self>, scale: f32) -> FloatTensor<Self>;

    #[fusion(dtype = branch, shape = branch)]
    fn dropped(
        x: FloatTensor<Self>,
        branch: FloatTensor<Self>,
        adds: bool,
        mask: DropoutMask,
    ) -> FloatTensor<Self>;
}

#[cfg(feature = "fusion")]
fn attention_outputs(qkv: &TensorSpec, _: &TensorSpec, call: &AttentionCall) -> (TensorSpec, TensorSpec) {
    let [rows, triple] = [qkv.shape[0], qkv.shape[1]];
    let of = |columns, dtype| TensorSpec { shape: Shape::new([rows, columns]), dtype };
    (of(triple / 3, qkv.dtype), of(call.heads, DType::F32))
}

#[cfg(feature = "fusion")]
fn norm_outputs(x: &TensorSpec, _: &TensorSpec, _: &TensorSpec, _: &bool, _: &f32) -> (TensorSpec, TensorSpec) {
    (x.clone(), TensorSpec { shape: Shape::new([x.shape[0], 2]), dtype: DType::F32 })
}

#[cfg(feature = "fusion")]
fn param_sums(x: &TensorSpec, _: &TensorSpec, _: &TensorSpec, slices: &usize) -> TensorSpec {
    TensorSpec { shape: Shape::new([*slices, 2 * x.shape[1]]), dtype: DType::F32 }
}

/// Units of a cube whose planes compute rows of their own.
const ROW_UNITS: u32 = 256;

/// Units of a cube whose units compute values of their own.
const VALUE_UNITS: u32 = 256;

/// Cubes along one side of a grid, at most, on every device.
const GRID_SIDE: usize = 65_535;

fn elem(tensor: &CubeTensor) -> ElemType {
    ElemType::Float(match tensor.dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        DType::F64 => FloatKind::F64,
        _ => FloatKind::F32,
    })
}

fn empty_like(tensor: &CubeTensor, shape: &[usize], dtype: DType) -> CubeTensor {
    let shape = Shape::from(shape.to_vec());
    empty_device_contiguous_dtype(tensor.client.clone(), tensor.device.clone(), shape, dtype)
}

/// A grid of at least `cubes` cubes.
fn grid(cubes: usize) -> CubeCount {
    let height = cubes.div_ceil(GRID_SIDE).max(1);
    CubeCount::Static(cubes.div_ceil(height) as u32, height as u32, 1)
}

fn mask_launch(mask: Option<DropoutMask>) -> MaskLaunch {
    let ([low, high], threshold, keep_scale) = mask.map_or(([0; 2], 0, 1.0), DropoutMask::parts);
    MaskLaunch::new(low, high, threshold, keep_scale)
}

/// The grid of rows of `width` values with a plane each, the cube, and the values of a unit.
fn row_launch(x: &CubeTensor, rows: usize, width: usize) -> (CubeCount, CubeDim, usize) {
    let plane = x.client.properties().hardware.plane_size_max;
    let planes = (ROW_UNITS / plane).max(1);
    (grid(rows.div_ceil(planes as usize)), CubeDim::new_2d(plane, planes), width.div_ceil(plane as usize))
}

impl AttentionCall {
    fn launch(&self) -> (CubeCount, CubeDim, f32) {
        // One more cube for the rows after all sequences; a unit for each row, in whole planes.
        let units = self.longest.next_multiple_of(32).min(128) as u32;
        let count = CubeCount::Static(self.sequences as u32 + 1, self.heads as u32, 1);
        (count, CubeDim::new_1d(units), (self.form.dim as f32).sqrt().recip())
    }
}

#[expect(unsafe_code, reason = "the kernels read and write within the shapes that these functions pass")]
impl DeviceKernels for CubeBackend {
    fn packed_attention(qkv: CubeTensor, starts: CubeTensor, call: AttentionCall) -> (CubeTensor, CubeTensor) {
        let [qkv, starts] = [qkv, starts].map(into_contiguous);
        let [rows, triple] = qkv.meta.shape().dims::<2>();
        let out = empty_like(&qkv, &[rows, triple / 3], qkv.dtype);
        let log_sums = empty_like(&qkv, &[rows, call.heads], DType::F32);
        let (client, dtype, (count, dim, scale)) = (qkv.client.clone(), elem(&qkv), call.launch());
        unsafe {
            attention_forward::launch_unchecked(
                &client,
                count,
                dim,
                qkv.into_tensor_arg(),
                starts.into_tensor_arg(),
                out.clone().into_tensor_arg(),
                log_sums.clone().into_tensor_arg(),
                scale,
                call.longest,
                mask_launch(call.dropout),
                call.form,
                dtype,
            );
        }
        (out, log_sums)
    }

    fn packed_attention_backward(
        qkv: CubeTensor,
        starts: CubeTensor,
        out: CubeTensor,
        log_sums: CubeTensor,
        gradient: CubeTensor,
        call: AttentionCall,
    ) -> CubeTensor {
        let inputs = [qkv, starts, out, log_sums, gradient];
        let [qkv, starts, out, log_sums, gradient] = inputs.map(into_contiguous);
        let of_qkv = empty_like(&qkv, &qkv.meta.shape().dims::<2>(), qkv.dtype);
        let (client, dtype, (count, dim, scale)) = (qkv.client.clone(), elem(&qkv), call.launch());
        unsafe {
            attention_backward::launch_unchecked(
                &client,
                count,
                dim,
                qkv.into_tensor_arg(),
                starts.into_tensor_arg(),
                out.into_tensor_arg(),
                log_sums.into_tensor_arg(),
                gradient.into_tensor_arg(),
                of_qkv.clone().into_tensor_arg(),
                scale,
                call.longest,
                mask_launch(call.dropout),
                call.form,
                dtype,
            );
        }
        of_qkv
    }

    fn row_norm(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        biased: bool,
        epsilon: f32,
    ) -> (CubeTensor, CubeTensor) {
        let [x, weight, bias] = [x, weight, bias].map(into_contiguous);
        let [rows, width] = x.meta.shape().dims::<2>();
        let out = empty_like(&x, &[rows, width], x.dtype);
        let statistics = empty_like(&x, &[rows, 2], DType::F32);
        let (client, dtype, (count, dim, per_unit)) = (x.client.clone(), elem(&x), row_launch(&x, rows, width));
        unsafe {
            norm_forward::launch_unchecked(
                &client,
                count,
                dim,
                x.into_tensor_arg(),
                weight.into_tensor_arg(),
                bias.into_tensor_arg(),
                out.clone().into_tensor_arg(),
                statistics.clone().into_tensor_arg(),
                width,
                epsilon,
                per_unit,
                biased,
                dtype,
            );
        }
        (out, statistics)
    }

    fn row_norm_backward(
        x: CubeTensor,
        weight: CubeTensor,
        statistics: CubeTensor,
        gradient: CubeTensor,
    ) -> CubeTensor {
        let [x, weight, statistics, gradient] = [x, weight, statistics, gradient].map(into_contiguous);
        let [rows, width] = x.meta.shape().dims::<2>();
        let of_x = empty_like(&x, &[rows, width], x.dtype);
        let (client, dtype, (count, dim, per_unit)) = (x.client.clone(), elem(&x), row_launch(&x, rows, width));
        unsafe {
            norm_backward::launch_unchecked(
                &client,
                count,
                dim,
                x.into_tensor_arg(),
                weight.into_tensor_arg(),
                statistics.into_tensor_arg(),
                gradient.into_tensor_arg(),
                of_x.clone().into_tensor_arg(),
                width,
                per_unit,
                dtype,
            );
        }
        of_x
    }

    fn row_norm_param_sums(
        x: CubeTensor,
        statistics: CubeTensor,
        gradient: CubeTensor,
        slices: usize,
    ) -> CubeTensor {
        let [x, statistics, gradient] = [x, statistics, gradient].map(into_contiguous);
        let [rows, width] = x.meta.shape().dims::<2>();
        let sums = empty_like(&x, &[slices, 2 * width], DType::F32);
        let units = VALUE_UNITS.min(width.next_multiple_of(32) as u32);
        let count = CubeCount::Static(width.div_ceil(units as usize) as u32, slices as u32, 1);
        let (client, dtype) = (x.client.clone(), elem(&x));
        unsafe {
            norm_param_sums::launch_unchecked(
                &client,
                count,
                CubeDim::new_1d(units),
                x.into_tensor_arg(),
                statistics.into_tensor_arg(),
                gradient.into_tensor_arg(),
                sums.clone().into_tensor_arg(),
                width,
                rows,
                rows.div_ceil(slices),
                dtype,
            );
        }
        sums
    }

    fn row_softmax(scores: CubeTensor, scale: f32) -> CubeTensor {
        let scores = into_contiguous(scores);
        let shape: Vec<usize> = scores.meta.shape().iter().copied().collect();
        let width = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / width.max(1);
        let out = empty_like(&scores, &shape, scores.dtype);
        let (client, dtype) = (scores.client.clone(), elem(&scores));
        let (count, dim, per_unit) = row_launch(&scores, rows, width);
        unsafe {
            softmax_rows::launch_unchecked(
                &client,
                count,
                dim,
                scores.into_tensor_arg(),
                out.clone().into_tensor_arg(),
                width,
                scale,
                per_unit,
                dtype,
            );
        }
        out
    }

    fn dropped(x: CubeTensor, branch: CubeTensor, adds: bool, mask: DropoutMask) -> CubeTensor {
        let [x, branch] = [x, branch].map(into_contiguous);
        let shape: Vec<usize> = branch.meta.shape().iter().copied().collect();
        let out = empty_like(&branch, &shape, branch.dtype);
        let (client, dtype) = (branch.client.clone(), elem(&branch));
        let count = grid(shape.iter().product::<usize>().div_ceil(VALUE_UNITS as usize));
        unsafe {
            dropout_values::launch_unchecked(
                &client,
                count,
                CubeDim::new_1d(VALUE_UNITS),
                x.into_tensor_arg(),
                branch.into_tensor_arg(),
                out.clone().into_tensor_arg(),
                mask_launch(Some(mask)),
                adds,
                dtype,
            );
        }
        out
    }
}

/// [`DeviceKernels`] over Burn's tensors, which are outside of the graph.
pub mod ops {
    use super::{AttentionCall, DeviceKernels, Dispatch, DropoutMask, Int, Tensor};

    pub fn attention(qkv: Tensor<2>, starts: Tensor<1, Int>, call: AttentionCall) -> [Tensor<2>; 2] {
        let (out, log_sums) = Dispatch::packed_attention(qkv.into_dispatch(), starts.into_dispatch(), call);
        [out, log_sums].map(Tensor::from_dispatch)
    }

    /// `saved`: the first argument and the results of [`attention`].
    pub fn attention_backward(
        saved: [Tensor<2>; 3],
        starts: Tensor<1, Int>,
        gradient: Tensor<2>,
        call: AttentionCall,
    ) -> Tensor<2> {
        let ([qkv, out, log_sums], starts) = (saved.map(Tensor::into_dispatch), starts.into_dispatch());
        let gradient = gradient.into_dispatch();
        Tensor::from_dispatch(Dispatch::packed_attention_backward(qkv, starts, out, log_sums, gradient, call))
    }

    pub fn norm(x: Tensor<2>, weight: Tensor<1>, bias: Option<Tensor<1>>, epsilon: f32) -> [Tensor<2>; 2] {
        let biased = bias.is_some();
        let bias = bias.unwrap_or_else(|| weight.clone()).into_dispatch();
        let (out, statistics) = Dispatch::row_norm(x.into_dispatch(), weight.into_dispatch(), bias, biased, epsilon);
        [out, statistics].map(Tensor::from_dispatch)
    }

    pub fn norm_backward(x: Tensor<2>, weight: Tensor<1>, statistics: Tensor<2>, gradient: Tensor<2>) -> Tensor<2> {
        let [x, statistics, gradient] = [x, statistics, gradient].map(Tensor::into_dispatch);
        Tensor::from_dispatch(Dispatch::row_norm_backward(x, weight.into_dispatch(), statistics, gradient))
    }

    pub fn norm_param_sums(x: Tensor<2>, statistics: Tensor<2>, gradient: Tensor<2>, slices: usize) -> Tensor<2> {
        let [x, statistics, gradient] = [x, statistics, gradient].map(Tensor::into_dispatch);
        Tensor::from_dispatch(Dispatch::row_norm_param_sums(x, statistics, gradient, slices))
    }

    pub fn softmax(scores: Tensor<4>, scale: f32) -> Tensor<4> {
        Tensor::from_dispatch(Dispatch::row_softmax(scores.into_dispatch(), scale))
    }

    pub fn dropped<const D: usize>(x: Option<Tensor<D>>, branch: Tensor<D>, mask: DropoutMask) -> Tensor<D> {
        let adds = x.is_some();
        let x = x.unwrap_or_else(|| branch.clone()).into_dispatch();
        Tensor::from_dispatch(Dispatch::dropped(x, branch.into_dispatch(), adds, mask))
    }
}
