//! Which images have cached features: the loader reads and decodes only the others. The cache itself is the caller's.

use std::fmt::Debug;

/// BLAKE3 hash of the content of an image file.
pub type ContentHash = [u8; 32];

/// A cache of image features, as the loader sees it: images with cached features need no pixels.
///
/// `image` is an index in [`crate::Dataset::images`], and `view` is less than [`crate::LoaderOptions::views`].
pub trait FeatureLookup: Debug + Send + Sync {
    /// Whether this view of the image is known to be cached. If so, the loader does not read the file.
    fn knows(&self, image: usize, view: u64) -> bool;

    /// Looks up the features by the content of the image file, and remembers the image if they are found.
    ///
    /// # Errors
    /// The hash of the content if nothing is cached: the loader decodes the image and returns the hash with its pixels.
    fn find(&self, image: usize, view: u64, bytes: &[u8]) -> Result<(), ContentHash>;
}
