//! One image from disk to the input of an image tower.

use crate::error::DataError;
use crate::image_processor::ImageProcessor;
use crate::image_processor::processed::ProcessedImages;
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
    Ok(decode_view(&image.read()?, image, processor, view)?.into_values())
}

/// Like [`load_view`], for an image that was already read to `bytes`, as it waits for a tower; `image` names it in
/// errors.
///
/// # Errors
/// [`DataError::Image`] if it cannot be decoded.
pub fn decode_view(
    bytes: &[u8],
    image: &ImageRef,
    processor: &ImageProcessor,
    view: Option<View>,
) -> Result<ProcessedImages, DataError> {
    let may_reduce = |whole, reduced| processor.may_reduce(whole, reduced, view.as_ref());
    let held = decode_held(bytes, processor.limits(), &may_reduce).map_err(|source| image.fail(source))?;
    Ok(processor.process_decoded(&held.image, held.whole, view))
}
