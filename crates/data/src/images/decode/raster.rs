//! The formats that the `image` crate decodes: PNG, WebP, GIF, BMP, QOI, and the JPEGs that `jpeg_pillow` leaves.

use std::io::Cursor;

use ::image::codecs::bmp::BmpDecoder;
use ::image::error::ImageError as Failure;
use ::image::{ColorType, ImageDecoder, ImageReader};

use crate::error::ImageError;
use crate::images::decode::jpeg::Segments;
use crate::images::decode::limits::Gate;
use crate::images::decode::orientation::{from_exif, from_png, from_xmp};
use crate::images::decode::pixels::Raw;
use crate::images::decode::truncation::{cut_metadata, truncation};
use crate::images::decode::whole::{MayReduce, Whole};
use crate::images::jpeg_pillow::{self, Decoded, Reduction};
use crate::look_at::ImageFormat;

/// Decodes the first frame, a JPEG at the smallest size that `may_reduce` grants.
///
/// # Errors
/// [`ImageError::TooLarge`] above the limits of `gate`; [`ImageError::Damaged`] and [`ImageError::Unsupported`] from
/// the decoder.
pub(crate) fn read(
    bytes: &[u8],
    format: ImageFormat,
    gate: &mut Gate<'_>,
    may_reduce: MayReduce<'_>,
) -> Result<Raw, ImageError> {
    let failed = |error: Failure| describe(error, bytes, format);
    // The decoder of PNG reserves memory for the image when it opens a file.
    if let Some(dimensions) = png_dimensions(bytes).filter(|_| format == ImageFormat::Png) {
        gate.check(format.name(), dimensions)?;
    }
    let mut decoder = open(bytes, format, gate.limits.max_alloc_bytes()).map_err(failed)?;
    let segments = if format == ImageFormat::Jpeg { Segments::of(bytes) } else { Segments::default() };
    // The decoder fills missing rows with grey; Pillow refuses such a file.
    if format == ImageFormat::Jpeg && !segments.has_end {
        let reason = format!("truncated: its {} bytes have no end-of-image marker", bytes.len());
        return Err(ImageError::Damaged { format: format.name(), reason });
    }
    if let Some(reason) = cut_metadata(bytes, format) {
        return Err(ImageError::Damaged { format: format.name(), reason });
    }
    // Pillow ignores a malformed EXIF block too.
    let orientation = match format {
        ImageFormat::Jpeg => segments.orientation(),
        ImageFormat::Png => from_png(bytes, || decoder.xmp_metadata().ok()?),
        ImageFormat::WebP => {
            let exif = decoder.exif_metadata().ok().flatten().and_then(|block| from_exif(&block));
            exif.or_else(|| from_xmp(&decoder.xmp_metadata().ok()??)).unwrap_or(1)
        }
        _ => 1,
    };
    let (width, height) = decoder.dimensions();
    let sample_bytes = u64::from(decoder.color_type().bytes_per_pixel());
    // What the decoder holds beside its output: coefficients, planes of another colour space, the frame of a canvas.
    let inside = match format {
        ImageFormat::Jpeg if segments.has_several_scans => 6,
        ImageFormat::WebP | ImageFormat::Gif => 4,
        _ => 0,
    };
    let is_turned = (5..=8).contains(&orientation);
    let turned = if is_turned { 3 } else { 0 };
    gate.admit(format.name(), (width, height), sample_bytes.max(3) + inside.max(turned))?;

    if format == ImageFormat::Jpeg {
        let upright = |(width, height)| if is_turned { (height, width) } else { (width, height) };
        let full = (width, height);
        // The last column and row of a reduced image are of the picture in part. Turned or mirrored, they would not be
        // the last.
        let fits = |side: u32, reduction: &Reduction| orientation <= 1 || side.is_multiple_of(reduction.per_pixel());
        let is_granted = |reduction: &Reduction| {
            fits(width, reduction) && fits(height, reduction) && may_reduce(upright(full), upright(reduction.of(full)))
        };
        let reduction = Reduction::SMALLEST_FIRST.into_iter().find(is_granted).unwrap_or(Reduction::None);
        if let Some(Decoded { width, height, is_grey, data }) = jpeg_pillow::decode(bytes, reduction) {
            let color = if is_grey { ColorType::L8 } else { ColorType::Rgb8 };
            let per_pixel = reduction.per_pixel();
            let whole = (per_pixel > 1).then(|| Whole { size: upright(full), per_pixel });
            return Ok(Raw { width, height, data, color, orientation, whole });
        }
    }
    let color = decoder.color_type();
    let pixels = width as usize * height as usize;
    let sample_bytes = usize::from(color.bytes_per_pixel());
    // One buffer for the samples and, after them, for RGB.
    let mut data = vec![0; pixels * sample_bytes.max(3)];
    decoder.read_image_boxed(&mut data[..pixels * sample_bytes]).map_err(failed)?;
    if format == ImageFormat::Bmp {
        round_down_16_bit(bytes, &mut data);
    }
    Ok(Raw { width, height, data, color, orientation, whole: None })
}

fn open<'a>(bytes: &'a [u8], format: ImageFormat, max_alloc: u64) -> Result<Box<dyn ImageDecoder + 'a>, Failure> {
    use ::image::ImageFormat as Known;
    let mut limits = ::image::Limits::no_limits();
    limits.max_alloc = Some(if format == ImageFormat::Png { png_bytes(bytes) } else { max_alloc });
    let known = match format {
        ImageFormat::Jpeg => Known::Jpeg,
        ImageFormat::Png => Known::Png,
        ImageFormat::WebP => Known::WebP,
        ImageFormat::Gif => Known::Gif,
        ImageFormat::Qoi => Known::Qoi,
        ImageFormat::Dib => return Ok(Box::new(BmpDecoder::new_without_file_header(Cursor::new(bytes))?)),
        // The other two have readers of their own.
        ImageFormat::Bmp | ImageFormat::Tiff | ImageFormat::Pnm => Known::Bmp,
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), known);
    reader.limits(limits);
    Ok(Box::new(reader.into_decoder()?))
}

/// Spreads the channels of a 16-bit BMP over a byte as Pillow does. Pillow rounds down, and the decoder to the nearest.
fn round_down_16_bit(bytes: &[u8], rgb: &mut [u8]) {
    const MASK_OF_6_BITS: &[u8] = &[0xE0, 0x07, 0, 0];
    // Bits per pixel, the compression, and the mask of green if the compression says that there are masks.
    let has_masks = bytes.get(30) == Some(&3);
    if bytes.get(28..30) != Some(&[16, 0]) || !(has_masks || bytes.get(30) == Some(&0)) {
        return;
    }
    let has_6_green = has_masks && bytes.get(58..62) == Some(MASK_OF_6_BITS);
    let table = |largest: u32| {
        let mut table: [u8; 256] = std::array::from_fn(|level| level as u8);
        for value in 0..=largest {
            let nearest = (value * 510 + largest) / (2 * largest);
            table[nearest as usize] = (value * 255 / largest) as u8;
        }
        table
    };
    let tables = [table(31), table(if has_6_green { 63 } else { 31 }), table(31)];
    for pixel in rgb.as_chunks_mut::<3>().0 {
        for (value, table) in pixel.iter_mut().zip(&tables) {
            *value = table[usize::from(*value)];
        }
    }
}

/// What the decoder of a PNG may allocate: 8 bytes per pixel of its header, and the inflated colour profile.
fn png_bytes(bytes: &[u8]) -> u64 {
    /// The default of the `png` crate.
    const PROFILE_BYTES: u64 = 64 << 20;
    let pixels = png_dimensions(bytes).map_or(0, |(width, height)| u64::from(width) * u64::from(height));
    pixels.saturating_mul(8).saturating_add(PROFILE_BYTES)
}

/// Width and height in the header, which is the first chunk of a PNG.
fn png_dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let side = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    if bytes.get(12..16) == Some(b"IHDR") { side(16).zip(side(20)) } else { None }
}

fn describe(error: Failure, bytes: &[u8], format: ImageFormat) -> ImageError {
    let name = format.name();
    match error {
        Failure::Unsupported(error) => ImageError::Unsupported { format: name, reason: error.to_string() },
        error => {
            let reason = truncation(bytes, format).unwrap_or_else(|| error.to_string());
            ImageError::Damaged { format: name, reason }
        }
    }
}
