//! What a loader asks of a store of features, so that it reads and decodes only images that have none.

use std::fmt::Debug;

/// blake3 of the bytes that something was computed from.
pub type ContentHash = [u8; 32];

/// Something kept of images in place of their pixels. The data crate only asks; what is kept is the caller's.
///
/// A `view` is one of the ways in which an image is given, below [`crate::LoaderOptions::views`].
pub trait KeptImages: Debug + Send + Sync {
    /// Whether something is known to be kept of image `image` of the data set: its file is then not read.
    fn knows(&self, image: usize, view: u64) -> bool;

    /// Looks for what is kept of `bytes`, the content of image `image`, and from then on knows it. `Err`: nothing is kept,
    /// and this is the hash to keep it under.
    fn find(&self, image: usize, view: u64, bytes: &[u8]) -> Result<(), ContentHash>;
}
