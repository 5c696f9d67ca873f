//! Sums of the rows with equal index, planned on the host, which knows the indices.

use burn::tensor::{Int, IntDType, Tensor, TensorData};

use crate::cube::extension::ops;
use crate::cube::support::{has_addresses, properties};
use crate::portable::transfers::upload;

/// Rows that a cube adds up, at most.
const CHUNK: usize = 64;

/// [`sum_rows_by_index`](crate::portable::row_sums::sum_rows_by_index); `None` unless the kernels take it.
pub(crate) fn sum_rows_by_index(x: &Tensor<2>, indices: &[u32], count: usize) -> Option<Tensor<2>> {
    let properties = properties(x)?;
    let [rows, width] = x.dims();
    if !has_addresses(rows.max(count) * width) {
        return None;
    }
    let plan = Plan::new(indices, count);
    if plan.chunks.len().max(plan.table.len()) > properties.hardware.max_cube_count.0 as usize {
        return None;
    }
    let device = x.device().without_autodiff();
    let on_device = |values: Vec<i32>| {
        let data = TensorData::new(values.clone(), [values.len()]);
        upload::<1, Int>(data, &device).cast(IntDType::I32)
    };
    let Plan { order, chunks, table } = plan;
    Some(ops::row_sums(x.clone(), [order, chunks, table].map(on_device)))
}

/// Which rows each step adds up. Each array ends with where the last entry ends.
struct Plan {
    /// The rows, sorted by index.
    order: Vec<i32>,
    /// The first place in `order` of each chunk of rows with equal index.
    chunks: Vec<i32>,
    /// The first chunk of each index below `count`.
    table: Vec<i32>,
}

impl Plan {
    fn new(indices: &[u32], count: usize) -> Self {
        let mut ends = vec![0; count + 1];
        indices.iter().for_each(|&index| ends[index as usize + 1] += 1);
        let (mut chunks, mut table) = (Vec::new(), Vec::with_capacity(count + 1));
        for index in 0..count {
            table.push(chunks.len() as i32);
            let (start, rows) = (ends[index], ends[index + 1]);
            chunks.extend((start..start + rows).step_by(CHUNK).map(|start| start as i32));
            ends[index + 1] += start;
        }
        table.push(chunks.len() as i32);
        chunks.push(indices.len() as i32);
        let mut order = vec![0; indices.len()];
        for (row, &index) in indices.iter().enumerate() {
            let place = &mut ends[index as usize];
            order[*place] = row as i32;
            *place += 1;
        }
        Self { order, chunks, table }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, Plan};

    #[test]
    fn rows_are_listed_by_index() {
        let Plan { order, chunks, table } = Plan::new(&[3, 0, 3, 1, 0, 3], 5);
        assert_eq!(order, [1, 4, 3, 0, 2, 5]);
        assert_eq!(chunks, [0, 2, 3, 6]);
        assert_eq!(table, [0, 1, 2, 2, 3, 3]);
        let Plan { chunks, table, .. } = Plan::new(&[0; 2 * CHUNK + 1], 1);
        assert_eq!(chunks, [0, CHUNK as i32, 2 * CHUNK as i32, 2 * CHUNK as i32 + 1]);
        assert_eq!(table, [0, 3]);
    }
}
