//! Embedding lookup, with a gradient that touches only the rows that were read.

use burn::tensor::{Int, Tensor, TensorData};

use crate::portable::graph::with_gradient;
use crate::portable::row_sums::sum_rows_by_index;
use crate::portable::transfers::upload;

/// The rows of `table` `[rows, width]` at `indices`, `[indices.len(), width]`.
///
/// # Panics
///
/// If an index is not below `rows`.
pub fn embedding(table: Tensor<2>, indices: Vec<u32>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::cpu::autograd::supports_fused(&table)
        && let Some(y) = fused::embedding(&table, &indices)
    {
        return y;
    }
    plain(table, indices)
}

/// The form in Burn's own operations. Burn's gradient of a lookup is a scatter, which a GPU runs on as many threads as
/// the table has columns.
pub(crate) fn plain(table: Tensor<2>, indices: Vec<u32>) -> Tensor<2> {
    let [rows, _] = table.dims();
    let on_device: Vec<i32> = indices.iter().map(|&index| index as i32).collect();
    let on_device = TensorData::new(on_device, [indices.len()]);
    let on_device = upload::<1, Int>(on_device, &table.device().without_autodiff());
    let backward = move |gradient| sum_rows_by_index(gradient, &indices, rows);
    with_gradient(table, |table| table.select(0, on_device.clone()), backward)
}

#[cfg(feature = "flex")]
mod fused {
    use std::sync::Arc;

    use burn::tensor::Tensor;

    use crate::cpu::autograd::{Input, Values, custom_op, flex_tensor};
    use crate::cpu::simd::vectorised;
    use crate::cpu::uninit::{par_rows, write_rows};

    pub fn embedding(table: &Tensor<2>, indices: &[u32]) -> Option<Tensor<2>> {
        let shape @ [_, width] = table.dims();
        let indices: Arc<[u32]> = indices.into();
        let rows = indices.len();
        let forward = |[table]: &[Values; 1], _| {
            let table = table.get();
            let values = par_rows(rows, width, |first, out| {
                let mut indices = indices[first..][..out.len() / width].iter();
                write_rows(out, width, || {
                    let Some(&index) = indices.next() else { unreachable!("as many indices as rows of the output") };
                    &table[index as usize * width..][..width]
                })
            });
            (flex_tensor(values, [rows, width]), (indices, shape))
        };
        Some(custom_op([Input::new(table.clone())?], forward, |(indices, shape @ [rows, width]), gradient, _| {
            // The system hands out zeroed pages without writing them: rows that were not read cost nothing.
            let mut values = vec![0.0; rows * width];
            add_rows(&mut values, &indices, gradient.get(), width);
            [Some(flex_tensor(values, shape))]
        }))
    }

    vectorised! {
        /// Adds each of `rows` to the row of `table` at its index.
        fn add_rows(table: &'a mut [f32], indices: &'a [u32], rows: &'a [f32], width: usize) {
            for (&index, row) in indices.iter().zip(rows.chunks_exact(width)) {
                let sums = &mut table[index as usize * width..][..width];
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
    }
}
