//! The samples of two rows of MCUs, of which the older are written over.

use super::frame::{Component, Frame};

pub(super) struct Planes {
    planes: Vec<Plane>,
    /// Interpolated rows, one for each component.
    pub(super) rows: Vec<Vec<u8>>,
    /// Sums of two rows while they are interpolated.
    sums: Vec<u16>,
}

/// The samples of one component.
pub(super) struct Plane {
    /// Samples from one row to the next.
    stride: usize,
    /// Rows that are kept.
    rows: usize,
    data: Vec<u8>,
}

impl Planes {
    pub(super) fn new(frame: &Frame) -> Self {
        let widest = frame.components.iter().map(|component| component.width + 2).max().unwrap_or_default();
        Self {
            planes: frame.components.iter().map(|component| Plane::new(component, frame.mcu_columns)).collect(),
            rows: frame.components.iter().map(|_| vec![0; frame.width + 8]).collect(),
            sums: vec![0; widest],
        }
    }

    pub(super) fn plane(&self, index: usize) -> &Plane {
        &self.planes[index]
    }

    /// What rows are interpolated from and into: the plane of component `index`, its row of pixels, and sums.
    pub(super) fn parts(&mut self, index: usize) -> (&Plane, &mut [u8], &mut [u16]) {
        (&self.planes[index], &mut self.rows[index], &mut self.sums)
    }

    /// The samples of component `index` from row `row` on, and the samples from row to row.
    pub(super) fn rows_from(&mut self, index: usize, row: usize) -> (&mut [u8], usize) {
        let plane = &mut self.planes[index];
        (&mut plane.data[row % plane.rows * plane.stride..], plane.stride)
    }
}

impl Plane {
    fn new(component: &Component, mcu_columns: usize) -> Self {
        let stride = mcu_columns * component.horizontal * component.side;
        let rows = 2 * component.vertical * component.side;
        Self { stride, rows, data: vec![0; stride * rows] }
    }

    /// The samples of row `row`, which has to be among those kept.
    pub(super) fn row(&self, row: usize) -> &[u8] {
        let at = row % self.rows * self.stride;
        &self.data[at..at + self.stride]
    }
}
