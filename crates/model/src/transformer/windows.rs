//! Feature maps partitioned into square windows, shifted in every other block (Swin, Liu et al., 2021, sec. 3.2).

use burn::tensor::{Bool, Device, Tensor, TensorData};
use dualenc_kernels::RowGather;

use crate::transformer::sequence_layout::SequenceLayout;

/// The same reordering of the `count` rows of each of `batch` images. `sources` holds the source row of each output
/// row, or `None` for zeros.
pub(crate) fn gather_in_each_image(
    sources: &[Option<usize>],
    count: usize,
    batch: usize,
    device: &Device,
) -> RowGather {
    let of_image = |image: usize| sources.iter().map(move |row| row.map(|row| image * count + row));
    let rows: Vec<Option<usize>> = (0..batch).flat_map(of_image).collect();
    RowGather::new(&rows, batch * count, device)
}

/// The partition of a batch of feature maps into windows.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    /// One sequence per window.
    pub layout: SequenceLayout,
    /// From tokens of the map to tokens of windows.
    pub partition: RowGather,
    /// From tokens of windows back to tokens of the map.
    pub merge: RowGather,
    /// Attention mask, `[windows, 1, area, area]`: true where two tokens of a shifted window come from opposite edges
    /// of the map.
    pub mask: Option<Tensor<4, Bool>>,
}

impl Windows {
    /// Windows of `side` tokens over `batch` maps of `grid` `[rows, columns]` tokens, rolled up and left by `shift`. A
    /// map that does not divide is padded with zeros at the bottom and right. The padding is attended to, as in the
    /// reference.
    pub fn new(batch: usize, grid: [usize; 2], side: usize, shift: usize, device: &Device) -> Self {
        let padded = grid.map(|length| length.next_multiple_of(side));
        let windows = padded.map(|length| length / side);
        let area = side * side;
        // The row and column, in the rolled and padded map, of each token of each window.
        let position = |token: usize| {
            let (window, within) = (token / area, token % area);
            let row = window / windows[1] * side + within / side;
            let column = window % windows[1] * side + within % side;
            [row, column]
        };
        let unrolled = |at: usize, axis: usize| (at + shift) % padded[axis];
        let tokens = windows[0] * windows[1] * area;
        let mut partition = vec![None; tokens];
        let mut merge = vec![None; grid[0] * grid[1]];
        for (n, source) in partition.iter_mut().enumerate() {
            let [row, column] = position(n);
            let (row, column) = (unrolled(row, 0), unrolled(column, 1));
            if row < grid[0] && column < grid[1] {
                *source = Some(row * grid[1] + column);
                merge[row * grid[1] + column] = Some(n);
            }
        }
        let region =
            |at: usize, axis: usize| usize::from(at >= padded[axis] - side) + usize::from(at >= padded[axis] - shift);
        let mask = (shift > 0).then(|| {
            let regions: Vec<[usize; 2]> =
                (0..tokens).map(position).map(|[row, column]| [region(row, 0), region(column, 1)]).collect();
            let pairs = regions
                .chunks_exact(area)
                .flat_map(|window| window.iter().flat_map(move |query| window.iter().map(move |key| query != key)));
            let values: Vec<bool> = pairs.collect();
            let shape = [tokens / area, 1, area, area];
            Tensor::<4, Bool>::from_data(TensorData::new(values, shape), device).repeat(&[batch, 1, 1, 1])
        });
        Self {
            layout: SequenceLayout::uniform(batch * tokens / area, area),
            partition: gather_in_each_image(&partition, grid[0] * grid[1], batch, device),
            merge: gather_in_each_image(&merge, tokens, batch, device),
            mask,
        }
    }
}
