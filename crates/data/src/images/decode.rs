//! Encoded bytes to 8-bit RGB, within limits, as Pillow and the reference's `load_image` give it: rotated as EXIF
//! says, transparency composited on white.

use std::io::Cursor;

use ::image::{DynamicImage, ImageDecoder, ImageFormat};

use crate::error::ImageError;
use crate::images::rgb_image::RgbImage;
use crate::panics::catch_panic;

/// What a decoder may use. Checked on the header, before pixels are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest side in pixels.
    pub max_side_px: u32,
    /// Largest number of pixels.
    pub max_pixels: u64,
    /// Most bytes a decoder may allocate.
    pub max_alloc_bytes: u64,
}

impl Default for Limits {
    /// 16,384 pixels a side, 64 Mpx, 256 MiB: several times what cameras give, and far below what bombs announce.
    fn default() -> Self {
        Self { max_side_px: 16_384, max_pixels: 64 << 20, max_alloc_bytes: 256 << 20 }
    }
}

/// Decodes a jpeg, png, webp or gif (the first frame), whatever its name says.
///
/// EXIF orientation is applied. Alpha is composited on white with the arithmetic of Pillow's `Image.alpha_composite`.
/// Sixteen-bit colour keeps its high byte, as Pillow does; sixteen-bit grey becomes the nearest 8-bit level, where
/// Pillow's `convert("RGB")` would clip nearly all of it to white. CMYK is taken as Adobe's inverted CMYK, as Pillow does.
///
/// # Errors
/// [`ImageError`]; never a panic, whatever the bytes.
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
    // The decoders are fuzzed upstream, but one panic must not end a run of millions of images.
    catch_panic(|| decode_as(bytes, format, name, limits)).unwrap_or_else(|message| {
        Err(ImageError::Damaged { format: name, reason: format!("its decoder panicked: {message}") })
    })
}

fn decode_as(bytes: &[u8], format: ImageFormat, name: &'static str, limits: &Limits) -> Result<RgbImage, ImageError> {
    let damaged = |error: ::image::ImageError| ImageError::Damaged { format: name, reason: error.to_string() };
    let mut decoder_limits = ::image::Limits::no_limits();
    decoder_limits.max_alloc = Some(limits.max_alloc_bytes);
    let mut reader = ::image::ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(decoder_limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    // The decoder fills what is missing with grey; Pillow refuses such a file.
    if format == ImageFormat::Jpeg && !has_end_of_image(bytes) {
        return Err(ImageError::Damaged { format: name, reason: "it is truncated: no end-of-image marker".to_owned() });
    }

    let (width, height) = decoder.dimensions();
    let too_large = |limit: String| Err(ImageError::TooLarge { width, height, limit });
    if width > limits.max_side_px || height > limits.max_side_px {
        return too_large(format!("{} a side", limits.max_side_px));
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return too_large(format!("{} in all", limits.max_pixels));
    }
    if decoder.total_bytes() > limits.max_alloc_bytes {
        return too_large(format!("{} bytes of memory", limits.max_alloc_bytes));
    }
    if width == 0 || height == 0 {
        return Err(ImageError::Damaged { format: name, reason: format!("it has {width}x{height} pixels") });
    }
    // A malformed EXIF block is no reason to lose the image; Pillow ignores it too.
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(to_rgb(image))
}

/// Walks the marker segments of a JPEG (ITU-T T.81, annex B) to its end-of-image marker. A search for the two bytes
/// alone would find that of an embedded thumbnail.
fn has_end_of_image(bytes: &[u8]) -> bool {
    const TEM: u8 = 0x01;
    const RESTARTS_AND_START: std::ops::RangeInclusive<u8> = 0xD0..=0xD8;
    const END: u8 = 0xD9;
    let mut at = 0;
    loop {
        // In a scan everything up to a marker is data; between segments a marker follows at once.
        match bytes[at..].iter().position(|&byte| byte == 0xFF) {
            Some(found) => at += found + 1,
            None => return false,
        }
        let Some(&marker) = bytes.get(at) else { return false };
        match marker {
            END => return true,
            // Fill bytes repeat 0xFF.
            0xFF => {}
            // A stuffed zero stands for data; these markers have no segment.
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

/// 65535 = 257 * 255, so this is the nearest level.
const fn nearest_level(value: u16) -> u8 {
    ((value as u32 + 128) / 257) as u8
}

fn on_white(pixels: &[[u8; 4]]) -> Vec<u8> {
    pixels.iter().flat_map(|&[r, g, b, a]| [over_white(r, a), over_white(g, a), over_white(b, a)]).collect()
}

/// One sample over opaque white, in the integer arithmetic of Pillow's `AlphaComposite.c`: 7 extra bits, and the
/// division by 255 as two shifts.
const fn over_white(value: u8, alpha: u8) -> u8 {
    const PRECISION_BITS: u32 = 7;
    if alpha == 0 {
        return 255;
    }
    // With the background's alpha at 255 the general weights reduce to these.
    let weight = (alpha as u32) << PRECISION_BITS;
    let white = (255 << PRECISION_BITS) - weight;
    let sum = value as u32 * weight + 255 * white + (0x80 << PRECISION_BITS);
    ((((sum >> 8) + sum) >> 8) >> PRECISION_BITS) as u8
}

/// What bytes that are no image appear to be, for the message.
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
