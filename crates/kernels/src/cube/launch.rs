//! How the kernels are launched.
//!
//! - `many`: launches that take several parameters.
//! - `columns`: launches for matrices side by side, and for sums over slices.
//! - `support`: what launches have in common.

mod columns;
mod many;
pub(crate) mod support;

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::{CubeCount, CubeDim};

use crate::arguments::adamw_step::AdamWStep;
use crate::arguments::dropout_mask::DropoutMask;
use crate::cube::bundle::Bundle;
use crate::cube::extension::{AttentionCall, BundleLayout, ControlCall, DeviceKernels};
use crate::cube::kernels::attention::{attention_backward, attention_forward};
use crate::cube::kernels::dropout::dropout_values;
use crate::cube::kernels::heads::{merge_values, split_values};
use crate::cube::kernels::row_sums::{sum_adjacent_rows, sum_listed_rows};
use crate::cube::kernels::rows::{norm_backward, norm_forward, softmax_rows};
use crate::cube::launch::support::{VALUE_UNITS, elem, empty_like, grid, mask_launch, row_launch};

impl AttentionCall {
    fn launch(&self, qkv: &CubeTensor) -> (CubeCount, CubeDim, f32) {
        // One more cube for the rows after all sequences; a unit for each row, in whole planes, or fewer units where
        // a cube has no room for them (CubeCL's CPU runtime: as many as cores).
        let hardware = &qkv.client.properties().hardware;
        let most = hardware.max_units_per_cube.min(hardware.max_cube_dim.0);
        let units = (self.longest.next_multiple_of(32).min(128) as u32).min(most);
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
        let (client, dtype, (count, dim, scale)) = (qkv.client.clone(), elem(&qkv), call.launch(&qkv));
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
        let (client, dtype, (count, dim, scale)) = (qkv.client.clone(), elem(&qkv), call.launch(&qkv));
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

    fn split_heads(qkv: CubeTensor, heads: usize, seq: usize, padded: usize) -> (CubeTensor, CubeTensor, CubeTensor) {
        let qkv = into_contiguous(qkv);
        let [rows, triple] = qkv.meta.shape().dims::<2>();
        let dim = triple / 3 / heads;
        let [query, key, value] = [(); 3].map(|()| empty_like(&qkv, &[rows / seq, heads, padded, dim], qkv.dtype));
        let (client, dtype) = (qkv.client.clone(), elem(&qkv));
        // SAFETY: the kernel reads and writes within the shapes that it is passed.
        unsafe {
            split_values::launch_unchecked(
                &client,
                grid((rows / seq * padded * triple).div_ceil(VALUE_UNITS as usize)),
                CubeDim::new_1d(VALUE_UNITS),
                qkv.into_tensor_arg(),
                query.clone().into_tensor_arg(),
                key.clone().into_tensor_arg(),
                value.clone().into_tensor_arg(),
                heads,
                seq,
                padded,
                dim,
                dtype,
            );
        }
        (query, key, value)
    }

    fn merge_heads(x: CubeTensor, seq: usize) -> CubeTensor {
        let x = into_contiguous(x);
        let [batch, heads, padded, dim] = x.meta.shape().dims::<4>();
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
                padded,
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
        slices: usize,
        adds: bool,
    ) -> (CubeTensor, CubeTensor) {
        let [x, weight, statistics, gradient] = [x, weight, statistics, gradient].map(into_contiguous);
        let [rows, width] = x.meta.shape().dims::<2>();
        let of_x = empty_like(&x, &[rows, width], x.dtype);
        let sums = empty_like(&x, &[if adds { slices } else { 1 }, 2 * width], DType::F32);
        let (client, dtype, (count, dim, per_unit)) = (x.client.clone(), elem(&x), row_launch(&x, slices, width));
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
                sums.clone().into_tensor_arg(),
                width,
                rows,
                rows.div_ceil(slices),
                per_unit,
                adds,
                dtype,
            );
        }
        (of_x, sums)
    }

    fn row_softmax(scores: CubeTensor, valid: usize, scale: f32) -> CubeTensor {
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
                valid,
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

    fn adamw(
        values: Bundle<Self>,
        gradients: Bundle<Self>,
        firsts: Bundle<Self>,
        seconds: Bundle<Self>,
        control: CubeTensor,
        layout: BundleLayout,
        step: AdamWStep,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        many::adamw([values, gradients, firsts, seconds], control, layout, step)
    }

    fn join_values(values: Bundle<Self>, layout: BundleLayout) -> CubeTensor {
        many::join_values(values, layout)
    }

    fn step_control(numbers: CubeTensor, before: CubeTensor, call: ControlCall) -> CubeTensor {
        many::step_control(numbers, before, call)
    }

    fn join_columns(first: CubeTensor, second: CubeTensor, third: CubeTensor) -> CubeTensor {
        columns::join_columns(first, second, third)
    }

    fn part_columns(x: CubeTensor) -> (CubeTensor, CubeTensor, CubeTensor) {
        columns::part_columns(x)
    }

    fn sum_slices(first: CubeTensor, second: CubeTensor) -> (CubeTensor, CubeTensor) {
        columns::sum_slices(first, second)
    }

    fn sums_of_squares(values: Bundle<Self>, layout: BundleLayout, span: usize) -> CubeTensor {
        many::sums_of_squares(values, layout, span)
    }
}
