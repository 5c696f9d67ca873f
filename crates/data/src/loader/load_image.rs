//! One image from disk to the input of an image tower.

use crate::error::DataError;
use crate::image_processor::ImageProcessor;
use crate::images::augment::View;
use crate::images::decode::decode_held;
use crate::images::location::ImageRef;

/// Reads, decodes and processes one image to `[3, height, width]`, flat.
///
/// # Errors
/// [`DataError::Image`] if it cannot be read or decoded.
pub fn load_pixels(image: &ImageRef, processor: &ImageProcessor) -> Result<Vec<f32>, DataError> {
    load_view(image, processor, None)
}

/// Like [`load_pixels`], for a random view of the image.
///
/// # Errors
/// [`DataError::Image`] if it cannot be read or decoded.
pub fn load_view(image: &ImageRef, processor: &ImageProcessor, view: Option<View>) -> Result<Vec<f32>, DataError> {
    decode_view(&image.read()?, image, processor, view)
}

/// Like [`load_view`], for an image that was already read to `bytes`; `image` names it in errors.
///
/// # Errors
/// [`DataError::Image`] if it cannot be decoded.
pub fn decode_view(
    bytes: &[u8],
    image: &ImageRef,
    processor: &ImageProcessor,
    view: Option<View>,
) -> Result<Vec<f32>, DataError> {
    // A view is cropped from the whole image.
    let may_reduce = processor.decodes_fast() && view.is_none();
    let target = |width: u32, height: u32| processor.resized(width, height);
    let held = decode_held(bytes, processor.limits(), may_reduce.then_some(&target)).map_err(|it| image.fail(it))?;
    Ok(match view {
        Some(view) => processor.process_view(&held.image, view),
        None => processor.process(&held.image),
    })
}
