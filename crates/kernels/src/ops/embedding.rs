//! Embedding lookup, with a gradient that touches only the rows that were read.

use burn::tensor::{Int, Tensor, TensorData, module};

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
    let count = indices.len();
    let indices: Vec<i32> = indices.into_iter().map(|index| index as i32).collect();
    let device = table.device().without_autodiff();
    let indices = Tensor::<2, Int>::from_data(TensorData::new(indices, [1, count]), &device);
    module::embedding(table, indices).squeeze_dim(0)
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
