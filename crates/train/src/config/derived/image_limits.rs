//! How large an image may be.

use dualenc_data::Limits;

use crate::config::schema::RunConfig;

impl RunConfig {
    /// The limits within which images are decoded.
    pub(crate) fn image_limits(&self) -> Limits {
        Limits { max_pixels: self.data.max_pixels }
    }
}
