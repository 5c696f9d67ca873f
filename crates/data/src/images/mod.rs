//! Pixels: where an image's bytes are, decoding, resizing, and random views for training. It knows no model and no
//! normalisation; that is `image_processor`.
//!
//! - `location`: [`location::ImageRef`], a file, a tar entry or a cell of a table
//! - `disk`: reads bytes, again after an error that may pass
//! - `rgb_image`: an 8-bit RGB image in memory
//! - `decode/`: encoded bytes to an RGB image, within limits
//! - `jpeg_pillow`: decoding of JPEGs, equal to Pillow
//! - `header`: the size of an image from the start of its file
//! - `filter`: the resampling filters
//! - `resize_pillow`: resizing of bytes, equal to Pillow
//! - `resize_torch`: resizing of floats, equal to torch
//! - `resize_geometry`: target sizes and centre crops
//! - `augment`: random views: `[data.augment]`
//! - `rand_augment`: the operations of RandAugment
//! - `pixel_ops`: flip, colour and histogram operations on pixels

pub(crate) mod augment;
pub(crate) mod decode;
pub(crate) mod disk;
pub(crate) mod filter;
pub(crate) mod header;
mod jpeg_pillow;
pub(crate) mod location;
mod pixel_ops;
mod rand_augment;
pub(crate) mod resize_geometry;
pub(crate) mod resize_pillow;
pub(crate) mod resize_torch;
pub(crate) mod rgb_image;
