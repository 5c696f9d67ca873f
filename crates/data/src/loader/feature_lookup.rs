//! Which images have cached features: the loader reads and decodes only the others. The cache itself is the caller's.

use std::fmt::Debug;

/// BLAKE3 hash of the content of an image file.
pub type ContentHash = [u8; 32];

/// The first bytes of a [`ContentHash`]: images with the same number have the same content.
pub type ContentId = u64;

/// The [`ContentId`] of a content.
#[must_use]
pub fn content_id(hash: &ContentHash) -> ContentId {
    hash[..8].iter().rev().fold(0, |id, &byte| id << 8 | u64::from(byte))
}

/// A cache of image features, as the loader sees it: images with cached features need no pixels.
///
/// `image` is an index in [`crate::Dataset::images`], and `view` is less than [`crate::LoaderOptions::views`].
pub trait FeatureLookup: Debug + Send + Sync {
    /// The content of the image, if this view is known to be cached: the loader does not read the file then.
    fn known(&self, image: usize, view: u64) -> Option<ContentId>;

    /// Looks up the features by the content of the image file, and remembers the image if they are found.
    ///
    /// # Errors
    /// The hash to cache the features under if nothing is cached: the loader decodes the image and returns the hash
    /// with its pixels.
    fn find(&self, image: usize, view: u64, content: &ContentHash) -> Result<(), ContentHash>;
}
