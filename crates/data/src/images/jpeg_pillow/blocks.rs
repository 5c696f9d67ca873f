//! Coefficients of a row of MCUs or, where a file has several scans, of the whole image.

use super::frame::{File, Frame};
use super::inverse_dct::Block;
use super::tables::Quantisation;

/// Coefficients of all components.
pub(super) struct Blocks {
    pub(super) components: Vec<ComponentBlocks>,
}

/// Coefficients of one component.
pub(super) struct ComponentBlocks {
    /// Blocks from row to row.
    pub(super) columns: usize,
    pub(super) blocks: Vec<Block>,
    /// That of the first scan with this component.
    pub(super) table: Option<Quantisation>,
    /// Bits that each coefficient lacks; `None` before it is read.
    pub(super) missing: [Option<u32>; 64],
}

impl Blocks {
    /// Blocks for `mcu_rows` rows of MCUs.
    pub(super) fn new(frame: &Frame, mcu_rows: usize) -> Self {
        let components = frame.components.iter().map(|component| {
            let columns = frame.mcu_columns * component.horizontal;
            let blocks = vec![[0; 64]; columns * mcu_rows * component.vertical];
            ComponentBlocks { columns, blocks, table: None, missing: [None; 64] }
        });
        Self { components: components.collect() }
    }

    /// Blocks for one row of MCUs of a file that has its tables; `None` if one is missing.
    pub(super) fn of_row(file: &File<'_>, frame: &Frame) -> Option<Self> {
        let mut blocks = Self::new(frame, 1);
        for (blocks, component) in blocks.components.iter_mut().zip(&frame.components) {
            blocks.table = Some(file.quantisation[component.table]?);
        }
        Some(blocks)
    }

    /// The blocks of component `index` in row `row` of MCUs, and their number in each of its `vertical` rows.
    #[inline(always)]
    pub(super) fn of(&mut self, index: usize, vertical: usize, row: usize) -> (&mut [Block], usize) {
        let ComponentBlocks { columns, blocks, .. } = &mut self.components[index];
        let len = vertical * *columns;
        (&mut blocks[row * len..(row + 1) * len], *columns)
    }

    /// The quantisation table of component `index`.
    pub(super) fn table(&self, index: usize) -> Option<Quantisation> {
        self.components[index].table
    }
}
