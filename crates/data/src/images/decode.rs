//! Decodes images to 8-bit RGB, within limits, equal to Pillow and the reference's `load_image`: EXIF orientation is
//! applied, and transparency is composited on white.

use std::io::Cursor;

use ::image::{DynamicImage, ImageDecoder, ImageFormat};

use crate::error::ImageError;
use crate::images::rgb_image::RgbImage;
use crate::panics::catch_quietly;

/// Limits of a decoder, checked on the header before pixels are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum width and height, in pixels.
    pub max_side_px: u32,
    /// Maximum number of pixels.
    pub max_pixels: u64,
    /// Maximum size of the decoded image and of what the decoder allocates, in bytes.
    pub max_alloc_bytes: u64,
}

impl Default for Limits {
    /// 16,384 pixels per side, 64 megapixels, 256 MiB: several times the images of cameras, far below those of
    /// decompression bombs.
    fn default() -> Self {
        Self { max_side_px: 16_384, max_pixels: 64 << 20, max_alloc_bytes: 256 << 20 }
    }
}

/// Decodes a jpeg, png, webp or gif (its first frame). The format is that of the bytes, not of a file name.
///
/// EXIF orientation is applied. Alpha is composited on white with the arithmetic of Pillow's `Image.alpha_composite`.
/// Of 16-bit colour the high byte remains, as in Pillow. 16-bit grey becomes the nearest 8-bit level; Pillow's
/// `convert("RGB")` would clip most of it to white. CMYK is read as Adobe's inverted CMYK, as in Pillow.
///
/// # Errors
/// [`ImageError::Empty`] without bytes, [`ImageError::UnknownFormat`] for another format, [`ImageError::TooLarge`]
/// above `limits`, [`ImageError::Damaged`] if the decoder fails. It does not panic, whatever the bytes.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let (format, name) = match ::image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => (ImageFormat::Jpeg, "jpeg"),
        Ok(ImageFormat::Png) => (ImageFormat::Png, "png"),
        Ok(ImageFormat::WebP) => (ImageFormat::WebP, "webp"),
        Ok(ImageFormat::Gif) => (ImageFormat::Gif, "gif"),
        _ => return Err(ImageError::UnknownFormat { looks_like: looks_like(bytes) }),
    };
    // The decoders are fuzzed upstream, but a panic must not end a run over millions of images.
    catch_quietly(|| decode_as(bytes, format, name, limits)).unwrap_or_else(|panic| {
        Err(ImageError::Damaged { format: name, reason: format!("its decoder panicked: {}", panic.message) })
    })
}

fn decode_as(bytes: &[u8], format: ImageFormat, name: &'static str, limits: &Limits) -> Result<RgbImage, ImageError> {
    let damaged = |error: ::image::ImageError| ImageError::Damaged { format: name, reason: error.to_string() };
    let mut decoder_limits = ::image::Limits::no_limits();
    decoder_limits.max_alloc = Some(limits.max_alloc_bytes);
    let mut reader = ::image::ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(decoder_limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    // The decoder fills missing rows with grey; Pillow refuses such a file.
    if format == ImageFormat::Jpeg && !has_end_of_image(bytes) {
        return Err(ImageError::Damaged { format: name, reason: "truncated: no end-of-image marker".to_owned() });
    }

    let (width, height) = decoder.dimensions();
    let too_large = |limit: String| Err(ImageError::TooLarge { width, height, limit });
    if width > limits.max_side_px || height > limits.max_side_px {
        return too_large(format!("{} per side", limits.max_side_px));
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return too_large(format!("{} in total", limits.max_pixels));
    }
    if decoder.total_bytes() > limits.max_alloc_bytes {
        return too_large(format!("{} bytes of memory", limits.max_alloc_bytes));
    }
    if width == 0 || height == 0 {
        return Err(ImageError::Damaged { format: name, reason: format!("it has {width}x{height} pixels") });
    }
    // Pillow ignores a malformed EXIF block too.
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(to_rgb(image))
}

/// Whether a JPEG has an end-of-image marker, by a walk over its marker segments (ITU-T T.81, annex B). A search for
/// the two bytes would find the marker of an embedded thumbnail.
fn has_end_of_image(bytes: &[u8]) -> bool {
    const TEM: u8 = 0x01;
    const RESTARTS_AND_START: std::ops::RangeInclusive<u8> = 0xD0..=0xD8;
    const END: u8 = 0xD9;
    let mut at = 0;
    loop {
        // In a scan, everything before a marker is data. Between segments, a marker follows immediately.
        match bytes[at..].iter().position(|&byte| byte == 0xFF) {
            Some(found) => at += found + 1,
            None => return false,
        }
        let Some(&marker) = bytes.get(at) else { return false };
        match marker {
            END => return true,
            // Fill bytes repeat 0xFF.
            0xFF => {}
            // A stuffed zero means data. These markers have no segment.
            0 | TEM => at += 1,
            _ if RESTARTS_AND_START.contains(&marker) => at += 1,
            _ => {
                let Some(&[high, low]) = bytes.get(at + 1..at + 3).and_then(|len| len.first_chunk()) else {
                    return false;
                };
                at += 1 + usize::from(u16::from_be_bytes([high, low])).max(2);
                if at >= bytes.len() {
                    return false;
                }
            }
        }
    }
}

fn to_rgb(image: DynamicImage) -> RgbImage {
    let (width, height) = (image.width(), image.height());
    let grey = |samples: &[u8]| samples.iter().flat_map(|&v| [v, v, v]).collect();
    let data = match image {
        DynamicImage::ImageRgb8(pixels) => pixels.into_raw(),
        DynamicImage::ImageLuma8(pixels) => grey(&pixels),
        DynamicImage::ImageRgba8(pixels) => on_white(pixels.as_chunks().0),
        DynamicImage::ImageLumaA8(pixels) => {
            pixels.as_chunks().0.iter().flat_map(|&[v, a]| [over_white(v, a); 3]).collect()
        }
        DynamicImage::ImageRgb16(pixels) => pixels.iter().map(|&v| high_byte(v)).collect(),
        DynamicImage::ImageLuma16(pixels) => pixels.iter().flat_map(|&v| [nearest_level(v); 3]).collect(),
        DynamicImage::ImageRgba16(pixels) => {
            let pixels: Vec<u8> = pixels.iter().map(|&v| high_byte(v)).collect();
            on_white(pixels.as_chunks().0)
        }
        DynamicImage::ImageLumaA16(pixels) => {
            pixels.as_chunks().0.iter().flat_map(|&[v, a]| [over_white(high_byte(v), high_byte(a)); 3]).collect()
        }
        other => other.into_rgb8().into_raw(),
    };
    RgbImage { width, height, data }
}

const fn high_byte(value: u16) -> u8 {
    (value >> 8) as u8
}

/// The nearest 8-bit level: 65535 = 257 * 255.
const fn nearest_level(value: u16) -> u8 {
    ((value as u32 + 128) / 257) as u8
}

fn on_white(pixels: &[[u8; 4]]) -> Vec<u8> {
    pixels.iter().flat_map(|&[r, g, b, a]| [over_white(r, a), over_white(g, a), over_white(b, a)]).collect()
}

/// One sample over opaque white, in the integer arithmetic of Pillow's `AlphaComposite.c`: 7 extra bits, and a division
/// by 255 in two shifts.
const fn over_white(value: u8, alpha: u8) -> u8 {
    const PRECISION_BITS: u32 = 7;
    if alpha == 0 {
        return 255;
    }
    // The general weights reduce to these for a background with alpha 255.
    let weight = (alpha as u32) << PRECISION_BITS;
    let white = (255 << PRECISION_BITS) - weight;
    let sum = value as u32 * weight + 255 * white + (0x80 << PRECISION_BITS);
    ((((sum >> 8) + sum) >> 8) >> PRECISION_BITS) as u8
}

/// What bytes in an unknown format look like, for the error message.
fn looks_like(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(512)];
    let text = String::from_utf8_lossy(head).trim_start_matches('\u{feff}').trim_start().to_lowercase();
    let known: [(&str, bool); 9] = [
        (
            "looks like an HTML page, as servers send for a missing image",
            text.starts_with("<!doctype html") || text.starts_with("<html") || text.starts_with("<head"),
        ),
        (
            "looks like an SVG drawing; rasterise it first",
            text.starts_with("<svg") || text.starts_with("<?xml") && text.contains("<svg"),
        ),
        ("looks like XML, as servers send for a missing image", text.starts_with("<?xml")),
        ("looks like JSON", text.starts_with('{')),
        (
            "looks like a Git LFS pointer; fetch the real file with `git lfs pull`",
            text.starts_with("version https://git-lfs"),
        ),
        ("looks like a PDF", text.starts_with("%pdf")),
        ("looks like a TIFF; convert it to png", head.starts_with(b"II*\0") || head.starts_with(b"MM\0*")),
        ("looks like a BMP; convert it to png", head.starts_with(b"BM")),
        ("looks like AVIF or HEIC; convert it to jpeg or png", head.get(4..8) == Some(b"ftyp")),
    ];
    if let Some((what, _)) = known.iter().find(|(_, matches)| *matches) {
        return (*what).to_owned();
    }
    let start: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("starts with the bytes {}", start.join(" "))
}
