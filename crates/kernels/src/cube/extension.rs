//! The kernels as operations of Burn's backend, outside of the graph.

#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "fusion")]
use burn::tensor::{DType, Shape};
use burn::tensor::{Int, Tensor};

use crate::arguments::adamw_step::AdamWStep;
use crate::arguments::dropout_mask::DropoutMask;
use crate::cube::bundle::Bundle;
#[cfg(feature = "fusion")]
use crate::cube::bundle::BundleMetadata;
use crate::cube::kernels::attention::Form;

/// What attention takes beside its tensors.
#[derive(Debug, Clone)]
pub struct AttentionCall {
    pub sequences: usize,
    pub heads: usize,
    pub longest: usize,
    pub form: Form,
    pub dropout: Option<DropoutMask>,
}

/// The tensors of a bundle, and where each begins in what is written for all of them.
#[derive(Debug, Clone)]
pub struct BundleLayout {
    /// Tensors that count.
    pub count: usize,
    /// Values of the results of all of them.
    pub total: usize,
}

/// What [`step_control`](crate::step_control) takes beside its tensors.
#[derive(Debug, Clone, Copy)]
pub struct ControlCall {
    /// Numbers that have to be finite; they come first.
    pub num_checked: usize,
    /// The first of the sums of squares; they come last.
    pub first_sum: usize,
    pub limit: f32,
    pub epsilon: f32,
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

    #[fusion(meta = head_outputs)]
    fn split_heads(
        qkv: FloatTensor<Self>,
        heads: usize,
        seq: usize,
        padded: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(meta = merged_heads)]
    fn merge_heads(x: FloatTensor<Self>, seq: usize) -> FloatTensor<Self>;

    #[fusion(meta = norm_outputs)]
    fn row_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(meta = norm_gradients)]
    fn row_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        slices: usize,
        adds: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(dtype = scores, shape = scores)]
    fn row_softmax(scores: FloatTensor<Self>, valid: usize, scale: f32) -> FloatTensor<Self>;

    #[fusion(dtype = branch, shape = branch)]
    fn dropped(x: FloatTensor<Self>, branch: FloatTensor<Self>, adds: bool, mask: DropoutMask) -> FloatTensor<Self>;

    #[fusion(meta = adamw_outputs)]
    fn adamw(
        #[extension_type] values: Bundle<Self>,
        #[extension_type] gradients: Bundle<Self>,
        #[extension_type] firsts: Bundle<Self>,
        #[extension_type] seconds: Bundle<Self>,
        control: FloatTensor<Self>,
        layout: BundleLayout,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(meta = all_values)]
    fn join_values(#[extension_type] values: Bundle<Self>, layout: BundleLayout) -> FloatTensor<Self>;

    #[fusion(dtype = before, shape = before)]
    fn step_control(numbers: FloatTensor<Self>, before: FloatTensor<Self>, call: ControlCall) -> FloatTensor<Self>;

    #[fusion(meta = joined)]
    fn join_columns(first: FloatTensor<Self>, second: FloatTensor<Self>, third: FloatTensor<Self>)
    -> FloatTensor<Self>;

    #[fusion(meta = parted)]
    fn part_columns(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(dtype = x, shape = table_shape(x, table))]
    fn row_sums(
        x: FloatTensor<Self>,
        order: IntTensor<Self>,
        chunks: IntTensor<Self>,
        table: IntTensor<Self>,
    ) -> FloatTensor<Self>;

    #[fusion(meta = slice_sums)]
    fn sum_slices(first: FloatTensor<Self>, second: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(meta = square_sums)]
    fn sums_of_squares(#[extension_type] values: Bundle<Self>, layout: BundleLayout, span: usize) -> FloatTensor<Self>;
}

#[cfg(feature = "fusion")]
fn table_shape(x: &Shape, table: &Shape) -> Shape {
    Shape::new([table[0] - 1, x[1]])
}

#[cfg(feature = "fusion")]
fn attention_outputs(qkv: &TensorSpec, _: &TensorSpec, call: &AttentionCall) -> (TensorSpec, TensorSpec) {
    let [rows, triple] = [qkv.shape[0], qkv.shape[1]];
    let of = |columns, dtype| TensorSpec { shape: Shape::new([rows, columns]), dtype };
    (of(triple / 3, qkv.dtype), of(call.heads, DType::F32))
}

#[cfg(feature = "fusion")]
fn adamw_outputs(
    _: &BundleMetadata,
    _: &BundleMetadata,
    _: &BundleMetadata,
    _: &BundleMetadata,
    _: &TensorSpec,
    layout: &BundleLayout,
    _: &AdamWStep,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let all = TensorSpec { shape: Shape::new([layout.total]), dtype: DType::F32 };
    (all.clone(), all.clone(), all)
}

#[cfg(feature = "fusion")]
fn square_sums(_: &BundleMetadata, layout: &BundleLayout, _: &usize) -> TensorSpec {
    TensorSpec { shape: Shape::new([layout.total]), dtype: DType::F32 }
}

#[cfg(feature = "fusion")]
fn all_values(_: &BundleMetadata, layout: &BundleLayout) -> TensorSpec {
    TensorSpec { shape: Shape::new([layout.total]), dtype: DType::F32 }
}

#[cfg(feature = "fusion")]
fn slice_sums(first: &TensorSpec, second: &TensorSpec) -> (TensorSpec, TensorSpec) {
    let sums = |slices: &TensorSpec| TensorSpec { shape: Shape::new([slices.shape[1]]), dtype: first.dtype };
    (sums(first), sums(second))
}

#[cfg(feature = "fusion")]
fn joined(first: &TensorSpec, _: &TensorSpec, _: &TensorSpec) -> TensorSpec {
    let [rows, width] = [first.shape[0], first.shape[1]];
    TensorSpec { shape: Shape::new([rows, 3 * width]), dtype: first.dtype }
}

#[cfg(feature = "fusion")]
fn parted(x: &TensorSpec) -> (TensorSpec, TensorSpec, TensorSpec) {
    let [rows, triple] = [x.shape[0], x.shape[1]];
    let part = TensorSpec { shape: Shape::new([rows, triple / 3]), dtype: x.dtype };
    (part.clone(), part.clone(), part)
}

#[cfg(feature = "fusion")]
fn head_outputs(qkv: &TensorSpec, heads: &usize, seq: &usize, padded: &usize) -> (TensorSpec, TensorSpec, TensorSpec) {
    let [rows, triple] = [qkv.shape[0], qkv.shape[1]];
    let shape = Shape::new([rows / seq, *heads, *padded, triple / 3 / heads]);
    let part = TensorSpec { shape, dtype: qkv.dtype };
    (part.clone(), part.clone(), part)
}

#[cfg(feature = "fusion")]
fn merged_heads(x: &TensorSpec, seq: &usize) -> TensorSpec {
    TensorSpec { shape: Shape::new([x.shape[0] * seq, x.shape[1] * x.shape[3]]), dtype: x.dtype }
}

#[cfg(feature = "fusion")]
fn norm_outputs(x: &TensorSpec, _: &TensorSpec, _: &TensorSpec, _: &bool, _: &f32) -> (TensorSpec, TensorSpec) {
    (x.clone(), TensorSpec { shape: Shape::new([x.shape[0], 2]), dtype: DType::F32 })
}

#[cfg(feature = "fusion")]
fn norm_gradients(
    x: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    _: &TensorSpec,
    slices: &usize,
    adds: &bool,
) -> (TensorSpec, TensorSpec) {
    let slices = if *adds { *slices } else { 1 };
    (x.clone(), TensorSpec { shape: Shape::new([slices, 2 * x.shape[1]]), dtype: DType::F32 })
}

/// [`DeviceKernels`] over Burn's tensors, which are outside of the graph.
pub mod ops {
    use super::{
        AdamWStep, AttentionCall, Bundle, BundleLayout, ControlCall, DeviceKernels, Dispatch, DropoutMask, Int, Tensor,
    };

    fn bundle(tensors: &[Tensor<1>]) -> Bundle<Dispatch> {
        let tensors: Vec<_> = tensors.iter().map(|tensor| tensor.clone().into_dispatch()).collect();
        Bundle::new(&tensors)
    }

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

    /// `padded`: rows of a head, of which those after `seq` are 0.
    pub fn split_heads(qkv: Tensor<2>, heads: usize, seq: usize, padded: usize) -> [Tensor<4>; 3] {
        let (query, key, value) = Dispatch::split_heads(qkv.into_dispatch(), heads, seq, padded);
        [query, key, value].map(Tensor::from_dispatch)
    }

    /// `seq`: rows of a head that count.
    pub fn merge_heads(x: Tensor<4>, seq: usize) -> Tensor<2> {
        Tensor::from_dispatch(Dispatch::merge_heads(x.into_dispatch(), seq))
    }

    pub fn norm(x: Tensor<2>, weight: Tensor<1>, bias: Option<Tensor<1>>, epsilon: f32) -> [Tensor<2>; 2] {
        let biased = bias.is_some();
        let bias = bias.unwrap_or_else(|| weight.clone()).into_dispatch();
        let (out, statistics) = Dispatch::row_norm(x.into_dispatch(), weight.into_dispatch(), bias, biased, epsilon);
        [out, statistics].map(Tensor::from_dispatch)
    }

    /// The gradient of `x`, and with `adds` sums over slices of rows for those of weight and bias, `[slices, 2 *
    /// width]`.
    pub fn norm_backward(
        saved: [Tensor<2>; 2],
        weight: Tensor<1>,
        gradient: Tensor<2>,
        slices: usize,
        adds: bool,
    ) -> [Tensor<2>; 2] {
        let ([x, statistics], gradient) = (saved.map(Tensor::into_dispatch), gradient.into_dispatch());
        let weight = weight.into_dispatch();
        let (of_x, sums) = Dispatch::row_norm_backward(x, weight, statistics, gradient, slices, adds);
        [of_x, sums].map(Tensor::from_dispatch)
    }

    /// `valid`: scores of a row that count; the result is 0 after them.
    pub fn softmax(scores: Tensor<4>, valid: usize, scale: f32) -> Tensor<4> {
        Tensor::from_dispatch(Dispatch::row_softmax(scores.into_dispatch(), valid, scale))
    }

    pub fn dropped<const D: usize>(x: Option<Tensor<D>>, branch: Tensor<D>, mask: DropoutMask) -> Tensor<D> {
        let adds = x.is_some();
        let x = x.unwrap_or_else(|| branch.clone()).into_dispatch();
        Tensor::from_dispatch(Dispatch::dropped(x, branch.into_dispatch(), adds, mask))
    }

    /// `inputs`: values, gradients, first and second moments.
    pub fn adamw(
        inputs: [&[Tensor<1>]; 4],
        control: Tensor<1>,
        layout: BundleLayout,
        step: AdamWStep,
    ) -> [Tensor<1>; 3] {
        let ([values, gradients, firsts, seconds], control) = (inputs.map(bundle), control.into_dispatch());
        let (values, firsts, seconds) = Dispatch::adamw(values, gradients, firsts, seconds, control, layout, step);
        [values, firsts, seconds].map(Tensor::from_dispatch)
    }

    pub fn join_values(parts: &[Tensor<1>], layout: BundleLayout) -> Tensor<1> {
        Tensor::from_dispatch(Dispatch::join_values(bundle(parts), layout))
    }

    pub fn step_control(numbers: Tensor<1>, before: Tensor<1>, call: ControlCall) -> Tensor<1> {
        Tensor::from_dispatch(Dispatch::step_control(numbers.into_dispatch(), before.into_dispatch(), call))
    }

    pub fn join_columns(parts: [Tensor<2>; 3]) -> Tensor<2> {
        let [first, second, third] = parts.map(Tensor::into_dispatch);
        Tensor::from_dispatch(Dispatch::join_columns(first, second, third))
    }

    pub fn part_columns(x: Tensor<2>) -> [Tensor<2>; 3] {
        let (first, second, third) = Dispatch::part_columns(x.into_dispatch());
        [first, second, third].map(Tensor::from_dispatch)
    }

    pub fn sum_slices(slices: [Tensor<2>; 2]) -> [Tensor<1>; 2] {
        let [first, second] = slices.map(Tensor::into_dispatch);
        let (first, second) = Dispatch::sum_slices(first, second);
        [first, second].map(Tensor::from_dispatch)
    }

    /// `plan`: the rows in order, the starts of chunks among them, and the first chunk of each row of the result.
    pub fn row_sums(x: Tensor<2>, plan: [Tensor<1, Int>; 3]) -> Tensor<2> {
        let [order, chunks, table] = plan.map(Tensor::into_dispatch);
        Tensor::from_dispatch(Dispatch::row_sums(x.into_dispatch(), order, chunks, table))
    }

    pub fn square_sums(values: &[Tensor<1>], layout: BundleLayout, span: usize) -> Tensor<1> {
        Tensor::from_dispatch(Dispatch::sums_of_squares(bundle(values), layout, span))
    }
}
