//! Relative positions of tokens in a grid: which row of a table stands for which offset (BEiT, Bao et al., 2022; Swin,
//! Liu et al., 2021).

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::vision::position_interpolation::Interpolation;

/// Number of rows of BEiT's relative position table for a `grid` of patches: one per offset, and three for the class
/// token.
pub(crate) fn beit_table_rows(grid: [usize; 2]) -> usize {
    let [rows, columns] = offsets_per_side(grid);
    rows * columns + 3
}

/// Number of different offsets between two positions of a `grid`, per side.
pub(crate) fn offsets_per_side(grid: [usize; 2]) -> [usize; 2] {
    grid.map(|side| 2 * side - 1)
}

/// The row of BEiT's table for each pair of tokens, class token first, `[tokens * tokens]`. The rows are, in the order
/// of the reference: offsets between patches; class token to patch; patch to class token; class token to itself.
pub(crate) fn beit_rows(grid: [usize; 2], device: &Device) -> Tensor<1, Int> {
    let first_special = beit_table_rows(grid) - 3;
    let row = |query: usize, key: usize| match (query, key) {
        (0, 0) => first_special + 2,
        (0, _) => first_special,
        (_, 0) => first_special + 1,
        _ => offset_row(query - 1, key - 1, grid[1], grid),
    };
    pair_rows(1 + grid[0] * grid[1], row, device)
}

/// The row for each pair of tokens of a `grid` without a class token, `[tokens * tokens]`, in a table for grids of up
/// to `largest`.
pub(crate) fn offset_rows(grid: [usize; 2], largest: [usize; 2], device: &Device) -> Tensor<1, Int> {
    pair_rows(grid[0] * grid[1], |query, key| offset_row(query, key, grid[1], largest), device)
}

/// The row for two positions of a grid with `columns` columns: by row offset, then by column offset.
fn offset_row(query: usize, key: usize, columns: usize, largest: [usize; 2]) -> usize {
    let offset = |query: usize, key: usize, axis: usize| query + largest[axis] - 1 - key;
    let [_, column_offsets] = offsets_per_side(largest);
    offset(query / columns, key / columns, 0) * column_offsets + offset(query % columns, key % columns, 1)
}

fn pair_rows(count: usize, row: impl Fn(usize, usize) -> usize, device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i32> = (0..count * count).map(|pair| row(pair / count, pair % count) as i32).collect();
    Tensor::from_data(TensorData::new(rows, [count * count]), device)
}

/// Interpolates BEiT's table for a grid of `own` to one for `grid`, `[rows, own rows]`. The class token's rows are
/// copied.
pub(crate) fn beit_table_resize(own: [usize; 2], grid: [usize; 2], device: &Device) -> Tensor<2> {
    let map = Interpolation::Bilinear.matrix(offsets_per_side(own), offsets_per_side(grid), device);
    let [new, old] = map.dims();
    let special = Tensor::eye(3, device);
    let above = Tensor::cat(vec![map, Tensor::zeros([new, 3], device)], 1);
    let below = Tensor::cat(vec![Tensor::zeros([3, old], device), special], 1);
    Tensor::cat(vec![above, below], 0)
}
