//! Sums of the rows with equal index: the gradient of a table of which rows were read. A tree of gathers and sums, in
//! an order that depends on nothing but the indices.

use burn::tensor::Tensor;

use crate::portable::row_gather::Rows;

/// Rows that one step of the tree adds up. Words are mostly read once or twice, and padding to this many rows costs
/// memory traffic; frequent words are added up in more steps.
const FAN_IN: usize = 16;

/// `[count, width]`: row `n` is the sum of the rows of `x` `[indices.len(), width]` at which `indices` is `n`.
///
/// # Panics
///
/// If an index is not below `count`.
pub(crate) fn sum_rows_by_index(x: Tensor<2>, indices: &[u32], count: usize) -> Tensor<2> {
    let [rows, width] = x.dims();
    let device = x.device();
    assert_eq!(rows, indices.len(), "one index per row");
    #[cfg(feature = "cube")]
    if let Some(sums) = crate::cube::row_sums::sum_rows_by_index(&x, indices, count) {
        return sums;
    }
    // The rows that are left to add up, sorted by index: (index, row).
    let mut parts: Vec<(u32, usize)> = indices.iter().copied().zip(0..).collect();
    parts.sort_unstable();
    let mut sums = x;
    while parts.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        let groups: Vec<&[(u32, usize)]> =
            parts.chunk_by(|one, next| one.0 == next.0).flat_map(|equal| equal.chunks(FAN_IN)).collect();
        let widest = groups.iter().map(|group| group.len()).max().unwrap_or(1);
        let of_group = |group: &&[(u32, usize)]| {
            let rows: Vec<_> = group.iter().map(|&(_, row)| Some(row)).collect();
            rows.into_iter().chain(std::iter::repeat(None)).take(widest).collect::<Vec<_>>()
        };
        let sources: Vec<Option<usize>> = groups.iter().flat_map(of_group).collect();
        let gathered = Rows::new(&sources, &device).gather_or_zero(sums);
        sums = gathered.reshape([groups.len(), widest, width]).sum_dim(1).reshape([groups.len(), width]);
        parts = groups.iter().enumerate().map(|(sum, group)| (group[0].0, sum)).collect();
    }
    let mut sources = vec![None; count];
    parts.iter().for_each(|&(index, sum)| sources[index as usize] = Some(sum));
    Rows::new(&sources, &device).gather_or_zero(sums)
}
