//! Decodes images to 8-bit RGB, within limits, equal to Pillow and the reference's `load_image`: EXIF orientation is
//! applied, and transparency is composited on white.
//!
//! This file has [`decode`]. The others do its parts:
//! - `limits`: how many pixels an image may have, and the gate between its header and its pixels
//! - `budget`: how much memory large images may take together
//! - `whole`: what an image was before it was reduced
//! - `raster`: JPEG, and the formats of the `image` crate
//! - `tiff`, with `tiff_directory`, and `pnm`: the other formats
//! - `jpeg`: the segments of a JPEG
//! - `orientation`: which way up an image is
//! - `truncation`: whether a file ends too early
//! - `pixels`: from samples to upright RGB

mod budget;
mod jpeg;
pub(crate) mod limits;
mod orientation;
mod pixels;
mod pnm;
mod raster;
mod tiff;
mod tiff_directory;
mod truncation;
pub(crate) mod whole;

use crate::error::ImageError;
use crate::images::decode::budget::Permit;
use crate::images::decode::limits::{Gate, Limits};
use crate::images::decode::whole::{MayReduce, Whole};
use crate::images::rgb_image::RgbImage;
use crate::look_at::{ImageFormat, what_is};
use crate::panics::catch_quietly;

/// An image with its share of the memory that large images may take together. It is dropped after its pixels are used.
pub(crate) struct Held {
    pub(crate) image: RgbImage,
    /// What it was before it was reduced while it was decoded; `None` if it was not.
    pub(crate) whole: Option<Whole>,
    _permit: Option<Permit>,
}

/// Decodes a JPEG, PNG, WebP, GIF, BMP, TIFF, QOI or PNM (its first frame or page). The format is that of the bytes,
/// not of a file name.
///
/// The orientation in EXIF or, without one there, in XMP is applied. Alpha is composited on white with the arithmetic
/// of Pillow's `Image.alpha_composite`. Of 16-bit colour the high byte remains, as in Pillow. 16-bit grey becomes the
/// nearest 8-bit level; Pillow's `convert("RGB")` would clip most levels to white. The CMYK of a JPEG is read as
/// Adobe's inverted CMYK, as in Pillow.
///
/// Threads that decode images of more than 64 MiB wait for each other, so that these together take at most 1 GiB of
/// memory or, if that is more, 128 MiB per CPU core. Others, such as those of up to 22 megapixels, never wait.
///
/// # Errors
/// [`ImageError::Empty`] without bytes, [`ImageError::UnknownFormat`] for another format, [`ImageError::TooLarge`]
/// above `limits`, [`ImageError::Unsupported`] for a rare variant of a format, [`ImageError::Damaged`] if the decoder
/// fails. It does not panic, whatever the bytes.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    decode_held(bytes, limits, &|_, _| false).map(|held| held.image)
}

/// Like [`decode`], for pixels that are in use for a while. A JPEG is decoded at the smallest size that `may_reduce`
/// grants: an eighth, a quarter or a half of its own.
pub(crate) fn decode_held(bytes: &[u8], limits: &Limits, may_reduce: MayReduce<'_>) -> Result<Held, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let Some(format) = ImageFormat::of(bytes) else {
        return Err(ImageError::UnknownFormat { looks_like: looks_like(bytes) });
    };
    let name = format.name();
    // The decoders are fuzzed upstream, but a panic must not end a run over millions of images.
    let decoded = catch_quietly(|| {
        let mut gate = Gate { limits, permit: None };
        let raw = match format {
            ImageFormat::Tiff => tiff::read(bytes, &mut gate),
            ImageFormat::Pnm => pnm::read(bytes, &mut gate),
            _ => raster::read(bytes, format, &mut gate, may_reduce),
        }?;
        let (color, whole) = (raw.color, raw.whole);
        let image = raw
            .into_rgb()
            .ok_or_else(|| ImageError::Unsupported { format: name, reason: format!("its colours are {color:?}") })?;
        Ok(Held { image, whole, _permit: gate.permit })
    });
    let decoded = decoded.unwrap_or_else(|panic| {
        Err(ImageError::Damaged { format: name, reason: format!("its decoder panicked: {}", panic.message) })
    });
    decoded.map_err(|error| match error {
        // Decoders end some of their messages with a line feed.
        ImageError::Damaged { format, reason } => ImageError::Damaged { format, reason: on_one_line(&reason) },
        ImageError::Unsupported { format, reason } => ImageError::Unsupported { format, reason: on_one_line(&reason) },
        error => error,
    })
}

/// A text with a single space in the place of white space.
fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What bytes in an unknown format look like, for the error message.
fn looks_like(bytes: &[u8]) -> String {
    /// Letters of a text that the message quotes.
    const QUOTED: usize = 60;
    if let Some(content) = what_is(bytes) {
        return format!("looks like {content}");
    }
    let line = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    match std::str::from_utf8(&line[..line.len().min(4 * QUOTED)]) {
        Ok(text) if text.len() > 2 && !text.chars().any(char::is_control) => {
            let start: String = text.chars().take(QUOTED).collect();
            format!("is a text that starts with `{start}`")
        }
        _ => {
            let start: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("starts with the bytes {}", start.join(" "))
        }
    }
}
