//! Feature maps partitioned into square windows, shifted in every other block (Swin, Liu et al., 2021, sec. 3.2).

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::transformer::sequence_layout::SequenceLayout;

/// A reordering of rows that may insert rows of zeros.
#[derive(Debug, Clone)]
pub(crate) struct RowGather {
    /// The source row of each output row; one past the last for zeros.
    rows: Tensor<1, Int>,
    padded: bool,
}

impl RowGather {
    /// The same reordering of the `count` rows of each of `batch` images. `sources` holds the source row of each output
    /// row, or `None` for zeros.
    pub fn new(sources: &[Option<usize>], count: usize, batch: usize, device: &Device) -> Self {
        let zeros = batch * count;
        let of_image =
            |image: usize| sources.iter().map(move |row| row.map_or(zeros, |row| image * count + row) as i32);
        let rows: Vec<i32> = (0..batch).flat_map(of_image).collect();
        let shape = [rows.len()];
        Self { rows: Tensor::from_data(TensorData::new(rows, shape), device), padded: sources.contains(&None) }
    }

    /// Maps `[batch * count, width]` to `[batch * sources, width]`.
    pub fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        let x = if self.padded {
            let [_, width] = x.dims();
            let zeros = Tensor::<2>::zeros([1, width], &x.device().without_autodiff()).cast(x.dtype());
            Tensor::cat(vec![x, zeros], 0)
        } else {
            x
        };
        x.select(0, self.rows.clone())
    }
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
            partition: RowGather::new(&partition, grid[0] * grid[1], batch, device),
            merge: RowGather::new(&merge, tokens, batch, device),
            mask,
        }
    }
}
