//! Rows of a table, and the gradient of a table of which few rows were read.

use burn::tensor::{Int, Tensor, TensorData, module};

/// The rows of `table` `[rows, width]` that `indices` name: `[indices, width]`.
pub fn embedding(table: Tensor<2>, indices: Vec<u32>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::record::is_fused(&table)
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

    use crate::buffer::{by_rows, fill_rows};
    use crate::record::{Input, record, tensor};
    use crate::simd::vectorised;

    pub fn embedding(table: &Tensor<2>, indices: &[u32]) -> Option<Tensor<2>> {
        let shape @ [_, width] = table.dims();
        let indices: Arc<[u32]> = indices.into();
        let rows = indices.len();
        let forward = |[table]: &[crate::record::Values; 1], _| {
            let table = table.get();
            let values = by_rows(rows, width, |first, out| {
                let indices = &indices[first..][..out.len() / width];
                let mut indices = indices.iter();
                fill_rows(out, width, || &table[indices.next().map_or(0, |&index| index as usize) * width..][..width])
            });
            (tensor(values, [rows, width]), (indices, shape))
        };
        Some(record([Input::of(table.clone())?], forward, |(indices, shape), gradient, _| {
            // Fresh zeros come from the system without being written: rows that were not read cost nothing.
            let mut values = vec![0.0; shape[0] * shape[1]];
            add_rows(&mut values, &indices, gradient.get(), shape[1]);
            [Some(tensor(values, shape))]
        }))
    }

    vectorised! {
        fn add_rows(table: &'a mut [f32], indices: &'a [u32], rows: &'a [f32], width: usize) {
            for (&index, row) in indices.iter().zip(rows.chunks_exact(width)) {
                let sums = &mut table[index as usize * width..][..width];
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
    }
}
