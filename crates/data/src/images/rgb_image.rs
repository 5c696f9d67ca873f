//! An image in memory.

/// An 8-bit RGB image, rows from the top, pixels from the left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `[height, width, 3]`, flat.
    pub data: Vec<u8>,
}

impl RgbImage {
    pub(crate) fn black(width: u32, height: u32) -> Self {
        Self { width, height, data: vec![0; width as usize * height as usize * 3] }
    }
}
