//! An image in memory.

/// An 8-bit RGB image, with rows from top to bottom and pixels from left to right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `[height, width, 3]`, flat.
    pub data: Vec<u8>,
}

impl RgbImage {
    /// An all-black image.
    pub(crate) fn black(width: u32, height: u32) -> Self {
        Self { width, height, data: vec![0; width as usize * height as usize * 3] }
    }
}
