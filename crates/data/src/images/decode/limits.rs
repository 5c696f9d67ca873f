//! How large a decoded image may be.

use crate::error::ImageError;
use crate::images::decode::budget::Permit;

/// Limits of a decoder, checked on the header before pixels are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of pixels.
    pub max_pixels: u64,
}

impl Limits {
    /// Twice Pillow's `Image.MAX_IMAGE_PIXELS`: above it, Pillow raises `DecompressionBombError`.
    pub const DEFAULT_MAX_PIXELS: u64 = 178_956_970;

    /// Maximum size of what a decoder allocates, in bytes: 8 bytes per pixel, those of 16-bit RGBA.
    pub(crate) fn max_alloc_bytes(&self) -> u64 {
        self.max_pixels.saturating_mul(8)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pixels: Self::DEFAULT_MAX_PIXELS }
    }
}

/// What every decoder passes between the header and the pixels.
pub(crate) struct Gate<'a> {
    pub(crate) limits: &'a Limits,
    /// The share of the process-wide budget, from [`Self::admit`] on.
    pub(crate) permit: Option<Permit>,
}

impl Gate<'_> {
    /// Checks the dimensions in the header, and waits until `bytes_per_pixel` of memory may be used.
    ///
    /// # Errors
    /// [`ImageError::Damaged`] without pixels, [`ImageError::TooLarge`] above the limit.
    pub(crate) fn admit(
        &mut self,
        format: &'static str,
        (width, height): (u32, u32),
        bytes_per_pixel: u64,
    ) -> Result<(), ImageError> {
        self.check(format, (width, height))?;
        self.permit = Some(Permit::acquire(u64::from(width) * u64::from(height) * bytes_per_pixel));
        Ok(())
    }

    /// Checks the dimensions in the header.
    ///
    /// # Errors
    /// As for [`Self::admit`].
    pub(crate) fn check(&self, format: &'static str, (width, height): (u32, u32)) -> Result<(), ImageError> {
        if width == 0 || height == 0 {
            return Err(ImageError::Damaged { format, reason: format!("it has {width}x{height} pixels") });
        }
        if u64::from(width) * u64::from(height) > self.limits.max_pixels {
            return Err(ImageError::TooLarge { width, height, limit: self.limits.max_pixels });
        }
        Ok(())
    }
}
