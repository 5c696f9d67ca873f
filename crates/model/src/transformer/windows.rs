//! Maps cut into square windows that attend apart, shifted in every other block (Swin, Liu et al., 2021, sec. 3.2).

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::transformer::sequence_layout::SequenceLayout;

/// Rows put in another order, with rows of zeros between them.
#[derive(Debug, Clone)]
pub(crate) struct RowMap {
    /// The row that comes to each place; one beyond the last for zeros.
    rows: Tensor<1, Int>,
    padded: bool,
}

impl RowMap {
    /// For `count` rows an image, the same for each of `batch` images: which row comes to each place, `None` for zeros.
    pub fn new(places: &[Option<usize>], count: usize, batch: usize, device: &Device) -> Self {
        let beyond = batch * count;
        let of_image =
            |image: usize| places.iter().map(move |row| row.map_or(beyond, |row| image * count + row) as i32);
        let rows: Vec<i32> = (0..batch).flat_map(of_image).collect();
        let shape = [rows.len()];
        Self { rows: Tensor::from_data(TensorData::new(rows, shape), device), padded: places.contains(&None) }
    }

    /// `[batch * count, width]` to `[batch * places, width]`.
    pub fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        let x = match self.padded {
            true => {
                let [_, width] = x.dims();
                let zeros = Tensor::<2>::zeros([1, width], &x.device().without_autodiff()).cast(x.dtype());
                Tensor::cat(vec![x, zeros], 0)
            }
            false => x,
        };
        x.select(0, self.rows.clone())
    }
}

/// How the tokens of maps go to windows and back.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    /// Every window is a sequence.
    pub layout: SequenceLayout,
    /// Tokens to places of windows.
    pub cut: RowMap,
    /// Places of windows to tokens.
    pub join: RowMap,
    /// True where two places of a shifted window come from different ends of the map, `[windows, 1, area, area]`.
    pub apart: Option<Tensor<4, Bool>>,
}

impl Windows {
    /// For `batch` maps of this `grid` (rows, columns) and windows of `side`, rolled by `shift` to the top and left. Maps that
    /// do not divide are padded with zeros at the bottom and right, which are seen, as in the reference.
    pub fn new(batch: usize, grid: [usize; 2], side: usize, shift: usize, device: &Device) -> Self {
        let padded = grid.map(|length| length.next_multiple_of(side));
        let windows = padded.map(|length| length / side);
        let area = side * side;
        // Where each place of each window lies in the padded map, before it was rolled.
        let place = |place: usize| {
            let (window, within) = (place / area, place % area);
            let row = window / windows[1] * side + within / side;
            let column = window % windows[1] * side + within % side;
            [row, column]
        };
        let unrolled = |at: usize, axis: usize| (at + shift) % padded[axis];
        let places = windows[0] * windows[1] * area;
        let mut cut = vec![None; places];
        let mut join = vec![None; grid[0] * grid[1]];
        for (n, cut) in cut.iter_mut().enumerate() {
            let [row, column] = place(n);
            let (row, column) = (unrolled(row, 0), unrolled(column, 1));
            if row < grid[0] && column < grid[1] {
                *cut = Some(row * grid[1] + column);
                join[row * grid[1] + column] = Some(n);
            }
        }
        let region =
            |at: usize, axis: usize| usize::from(at >= padded[axis] - side) + usize::from(at >= padded[axis] - shift);
        let apart = (shift > 0).then(|| {
            let regions: Vec<[usize; 2]> =
                (0..places).map(place).map(|[row, column]| [region(row, 0), region(column, 1)]).collect();
            let pairs = regions
                .chunks_exact(area)
                .flat_map(|window| window.iter().flat_map(move |query| window.iter().map(move |key| query != key)));
            let values: Vec<bool> = pairs.collect();
            let shape = [places / area, 1, area, area];
            Tensor::<4, Bool>::from_data(TensorData::new(values, shape), device).repeat(&[batch, 1, 1, 1])
        });
        Self {
            layout: SequenceLayout::uniform(batch * places / area, area),
            cut: RowMap::new(&cut, grid[0] * grid[1], batch, device),
            join: RowMap::new(&join, places, batch, device),
            apart,
        }
    }
}
