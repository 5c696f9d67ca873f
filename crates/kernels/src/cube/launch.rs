//! How the kernels are launched.

use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::{CubeCount, CubeDim, OwnedTensor, SequenceArg};

use crate::arguments::adamw_step::AdamWStep;
use crate::arguments::dropout_mask::DropoutMask;
use crate::cube::bundle::Bundle;
use crate::cube::extension::{AttentionCall, BundleLayout, DeviceKernels};
use crate::cube::kernels::attention::{attention_backward, attention_forward};
use crate::cube::kernels::columns::{join_values, part_values};
use crate::cube::kernels::dropout::{MaskLaunch, dropout_values};
use crate::cube::kernels::heads::{merge_values, split_values};
use crate::cube::kernels::row_sums::{sum_adjacent_rows, sum_listed_rows};
use crate::cube::kernels::rows::{norm_backward, norm_forward, norm_param_sums, softmax_rows};
use crate::cube::kernels::update::{AdamWConstantsLaunch, adamw_values, square_sums};

/// Units of a cube in which each plane computes a row.
const ROW_UNITS: u32 = 256;

/// Units of a cube in which each unit computes a value.
pub(crate) const VALUE_UNITS: u32 = 256;

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

/// The first `count` tensors of a bundle.
fn contiguous(bundle: Bundle<CubeBackend>, count: usize) -> Vec<CubeTensor> {
    bundle.into_first(count).into_iter().map(into_contiguous).collect()
}

fn arguments(tensors: Vec<CubeTensor>) -> SequenceArg<OwnedTensor<f32>> {
    tensors.into_iter().map(CubeTensor::into_tensor_arg).collect()
}

fn mask_launch(mask: Option<DropoutMask>) -> MaskLaunch {
    match mask {
        Some(DropoutMask { seed: [low, high], threshold, keep_scale }) => {
            MaskLaunch::new(low, high, threshold, keep_scale)
        }
        None => MaskLaunch::new(0, 0, 0, 1.0),
    }
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
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
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
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
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

    fn split_heads(qkv: CubeTensor, heads: usize, seq: usize) -> (CubeTensor, CubeTensor, CubeTensor) {
        let qkv = into_contiguous(qkv);
        let [rows, triple] = qkv.meta.shape().dims::<2>();
        let dim = triple / 3 / heads;
        let [query, key, value] = [(); 3].map(|()| empty_like(&qkv, &[rows / seq, heads, seq, dim], qkv.dtype));
        let (client, dtype) = (qkv.client.clone(), elem(&qkv));
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
        unsafe {
            split_values::launch_unchecked(
                &client,
                grid((rows * triple).div_ceil(VALUE_UNITS as usize)),
                CubeDim::new_1d(VALUE_UNITS),
                qkv.into_tensor_arg(),
                query.clone().into_tensor_arg(),
                key.clone().into_tensor_arg(),
                value.clone().into_tensor_arg(),
                heads,
                seq,
                dim,
                dtype,
            );
        }
        (query, key, value)
    }

    fn merge_heads(x: CubeTensor) -> CubeTensor {
        let x = into_contiguous(x);
        let [batch, heads, seq, dim] = x.meta.shape().dims::<4>();
        let out = empty_like(&x, &[batch * seq, heads * dim], x.dtype);
        let (client, dtype) = (x.client.clone(), elem(&x));
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
        unsafe {
            merge_values::launch_unchecked(
                &client,
                grid((batch * heads * seq * dim).div_ceil(VALUE_UNITS as usize)),
                CubeDim::new_1d(VALUE_UNITS),
                x.into_tensor_arg(),
                out.clone().into_tensor_arg(),
                heads,
                seq,
                dim,
                dtype,
            );
        }
        out
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
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
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
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
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

    fn row_norm_param_sums(x: CubeTensor, statistics: CubeTensor, gradient: CubeTensor, slices: usize) -> CubeTensor {
        let [x, statistics, gradient] = [x, statistics, gradient].map(into_contiguous);
        let [rows, width] = x.meta.shape().dims::<2>();
        let sums = empty_like(&x, &[slices, 2 * width], DType::F32);
        let units = VALUE_UNITS.min(width.next_multiple_of(32) as u32);
        let count = CubeCount::Static(width.div_ceil(units as usize) as u32, slices as u32, 1);
        let (client, dtype) = (x.client.clone(), elem(&x));
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
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
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
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
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
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

    fn adamw(
        values: Bundle<Self>,
        gradients: Bundle<Self>,
        firsts: Bundle<Self>,
        seconds: Bundle<Self>,
        layout: BundleLayout,
        step: AdamWStep,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let inputs = [values, gradients, firsts, seconds];
        let [values, gradients, firsts, seconds] = inputs.map(|bundle| contiguous(bundle, layout.count));
        let [new_values, new_firsts, new_seconds] =
            [(); 3].map(|()| empty_like(&values[0], &[layout.total], DType::F32));
        let client = values[0].client.clone();
        let [beta1, beta2] = step.betas;
        let constants = AdamWConstantsLaunch::new(
            beta1 as f32,
            beta2 as f32,
            (1.0 - beta1) as f32,
            (1.0 - beta2) as f32,
            step.epsilon as f32,
            step.clip as f32,
            step.decay_factor as f32,
            step.rate as f32,
            step.second_root as f32,
        );
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
        unsafe {
            adamw_values::launch_unchecked(
                &client,
                grid(layout.total / VALUE_UNITS as usize),
                CubeDim::new_1d(VALUE_UNITS),
                arguments(values),
                arguments(gradients),
                arguments(firsts),
                arguments(seconds),
                new_values.clone().into_tensor_arg(),
                new_firsts.clone().into_tensor_arg(),
                new_seconds.clone().into_tensor_arg(),
                constants,
            );
        }
        (new_values, new_firsts, new_seconds)
    }

    fn join_columns(first: CubeTensor, second: CubeTensor, third: CubeTensor) -> CubeTensor {
        let [first, second, third] = [first, second, third].map(into_contiguous);
        let [rows, width] = first.meta.shape().dims::<2>();
        let out = empty_like(&first, &[rows, 3 * width], first.dtype);
        let (client, dtype) = (first.client.clone(), elem(&first));
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
        unsafe {
            join_values::launch_unchecked(
                &client,
                grid((3 * rows * width).div_ceil(VALUE_UNITS as usize)),
                CubeDim::new_1d(VALUE_UNITS),
                first.into_tensor_arg(),
                second.into_tensor_arg(),
                third.into_tensor_arg(),
                out.clone().into_tensor_arg(),
                width,
                dtype,
            );
        }
        out
    }

    fn part_columns(x: CubeTensor) -> (CubeTensor, CubeTensor, CubeTensor) {
        let x = into_contiguous(x);
        let [rows, triple] = x.meta.shape().dims::<2>();
        let width = triple / 3;
        let [first, second, third] = [(); 3].map(|()| empty_like(&x, &[rows, width], x.dtype));
        let (client, dtype) = (x.client.clone(), elem(&x));
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
        unsafe {
            part_values::launch_unchecked(
                &client,
                grid((rows * triple).div_ceil(VALUE_UNITS as usize)),
                CubeDim::new_1d(VALUE_UNITS),
                x.into_tensor_arg(),
                first.clone().into_tensor_arg(),
                second.clone().into_tensor_arg(),
                third.clone().into_tensor_arg(),
                width,
                dtype,
            );
        }
        (first, second, third)
    }

    fn row_sums(x: CubeTensor, order: CubeTensor, chunks: CubeTensor, table: CubeTensor) -> CubeTensor {
        let [x, order, chunks, table] = [x, order, chunks, table].map(into_contiguous);
        let [_, width] = x.meta.shape().dims::<2>();
        let [num_chunks, num_rows] = [&chunks, &table].map(|starts| starts.meta.shape().dims::<1>()[0] - 1);
        let partial = empty_like(&x, &[num_chunks.max(1), width], DType::F32);
        let out = empty_like(&x, &[num_rows, width], x.dtype);
        let (client, dtype) = (x.client.clone(), elem(&x));
        let units = 128.min(width.next_multiple_of(32) as u32);
        let count = |rows: usize| CubeCount::Static(rows as u32, width.div_ceil(units as usize) as u32, 1);
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
        unsafe {
            if num_chunks > 0 {
                sum_listed_rows::launch_unchecked(
                    &client,
                    count(num_chunks),
                    CubeDim::new_1d(units),
                    x.into_tensor_arg(),
                    order.into_tensor_arg(),
                    chunks.into_tensor_arg(),
                    partial.clone().into_tensor_arg(),
                    width,
                    dtype,
                );
            }
            sum_adjacent_rows::launch_unchecked(
                &client,
                count(num_rows),
                CubeDim::new_1d(units),
                partial.into_tensor_arg(),
                table.into_tensor_arg(),
                out.clone().into_tensor_arg(),
                width,
                dtype,
            );
        }
        out
    }

    fn sums_of_squares(values: Bundle<Self>, layout: BundleLayout, span: usize) -> CubeTensor {
        let values = contiguous(values, layout.count);
        let sums = empty_like(&values[0], &[layout.total], DType::F32);
        let client = values[0].client.clone();
        let (count, dim, _) = row_launch(&values[0], layout.total, span);
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
        unsafe {
            square_sums::launch_unchecked(&client, count, dim, arguments(values), sums.clone().into_tensor_arg(), span);
        }
        sums
    }
}
