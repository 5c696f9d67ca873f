//! Fewer patch tokens: the mean of each cell of a coarser grid.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};

/// The matrix `[side * side, height * width]` that maps a grid of `[height, width]` tokens, row by row, to the means of
/// `side` times `side` cells (PyTorch's `adaptive_avg_pool2d`: where a side does not divide the grid, neighbouring
/// cells share tokens).
pub(crate) fn cell_means([height, width]: [usize; 2], side: usize, device: &Device) -> Tensor<2> {
    let mut matrix = vec![0.0f32; side * side * height * width];
    for (cell, row) in matrix.chunks_exact_mut(height * width).enumerate() {
        let (rows, columns) = (span(cell / side, side, height), span(cell % side, side, width));
        let share = 1.0 / (rows.len() * columns.len()) as f32;
        for at in rows {
            row[at * width..][columns.clone()].fill(share);
        }
    }
    Tensor::from_data(TensorData::new(matrix, [side * side, height * width]), device)
}

/// The tokens of cell `cell` of `cells` along a side of `tokens`.
fn span(cell: usize, cells: usize, tokens: usize) -> Range<usize> {
    cell * tokens / cells..((cell + 1) * tokens).div_ceil(cells)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::weights::weight_files::read_safetensors;

    #[test]
    fn cell_means_match_pytorch() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/token_heads/grid.safetensors");
        let golden = read_safetensors(&golden).unwrap();
        let device = Device::flex();
        for (name, grid, side) in [("even", [4, 8], 4), ("uneven", [5, 7], 3), ("one", [5, 7], 1)] {
            let of = |what: &str| golden[&format!("{name}.{what}")].clone();
            let (x, expected) = (of("x"), of("y"));
            let x = Tensor::<2>::from_data(TensorData::new(x.values, x.shape), &device);
            let found: Vec<f32> = cell_means(grid, side, &device).matmul(x).into_data().try_into_vec().unwrap();
            assert_eq!(found.len(), expected.values.len(), "{name}");
            for (found, expected) in found.iter().zip(expected.values) {
                assert!((found - expected).abs() < 1e-6, "{name}: {found}, expected {expected}");
            }
        }
    }
}
