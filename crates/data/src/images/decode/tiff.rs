//! TIFF: the first page, in the colours that Pillow reads, and grey of 16 bits as its nearest 8-bit level.

use std::io::Cursor;

use ::image::ColorType;
use ::tiff::ColorType as Samples;
use ::tiff::decoder::{Decoder, DecodingResult, Limits as TiffLimits};
use ::tiff::tags::{CompressionMethod, ExtraSamples, PhotometricInterpretation, Tag};

use crate::error::ImageError;
use crate::images::decode::jpeg::Segments;
use crate::images::decode::limits::Gate;
use crate::images::decode::orientation::from_xmp;
use crate::images::decode::pixels::{Raw, nearest_level, on_white, over_white};
use crate::images::decode::tiff_directory::{as_grey, check};

const FORMAT: &str = "tiff";

/// Decodes the first page.
///
/// # Errors
/// [`ImageError::Unsupported`] for colours or compressions that the decoder lacks, and for the thumbnail at the start
/// of a raw photo; [`ImageError::Damaged`]; [`ImageError::TooLarge`] above the limits of `gate`.
pub(crate) fn read(bytes: &[u8], gate: &mut Gate<'_>) -> Result<Raw, ImageError> {
    if bytes.get(8..10) == Some(b"CR") {
        return Err(unsupported("it is a Canon raw photo".to_owned()));
    }
    check(bytes)?;
    let mut page = Page::open(bytes)?;
    page.refuse_thumbnail()?;
    let palette = page.palette()?;
    let orientation = page.orientation();
    let compression = page.number(Tag::Compression)?.unwrap_or(1);
    let dimensions = page.decoder.dimensions().map_err(|error| describe(&error))?;
    // The decoder's output, RGB, and a strip or tile on the way.
    gate.admit(FORMAT, dimensions, 12)?;

    // The decoder refuses palettes, but reads their indices as grey.
    let grey = palette.as_ref().and_then(|_| as_grey(bytes));
    if let Some(grey) = &grey {
        page = Page::open(grey)?;
    }
    let samples = page.decoder.colortype().map_err(|error| describe(&error))?;
    page.check_support(samples, compression)?;
    page.check_chunks(bytes, compression, dimensions)?;
    let limits = &mut TiffLimits::default();
    limits.decoding_buffer_size = usize::try_from(gate.limits.max_alloc_bytes()).unwrap_or(usize::MAX);
    limits.intermediate_buffer_size = limits.decoding_buffer_size;
    limits.ifd_value_size = bytes.len();
    let alpha = page.alpha()?;
    let mut decoder = page.decoder.with_limits(limits.clone());
    let mut buffer = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut buffer).map_err(|error| describe(&error))?;
    if buffer.as_buffer(0).byte_len() < layout.complete_len {
        return Err(unsupported(format!("{samples:?} in planes, over the limit of memory")));
    }
    let (width, height) = dimensions;
    let pixels = width as usize * height as usize;
    // Of 16-bit colour the high byte counts, as in Pillow.
    let mut data: Vec<u8> = match (buffer, samples) {
        (DecodingResult::U8(data), _) => data,
        (DecodingResult::I8(data), _) => data.into_iter().map(|value| value as u8).collect(),
        (DecodingResult::U16(data), Samples::Gray(_)) => data.into_iter().map(nearest_level).collect(),
        (DecodingResult::U16(data), _) => data.into_iter().map(|value| (value >> 8) as u8).collect(),
        _ => return Err(unsupported(format!("samples of {} bits", samples.bit_depth()))),
    };
    let channels = usize::from(samples.num_samples());
    if layout.planes > 1 {
        let plane = data.len() / channels;
        data = (0..plane)
            .flat_map(|at| (0..channels).map(move |channel| (at, channel)))
            .map(|(at, channel)| data[channel * plane + at])
            .collect();
    }
    let rgb: Vec<u8> = match samples {
        Samples::Gray(bits @ (1 | 2 | 4 | 8)) => {
            let levels = unpacked(&data, width as usize, height as usize, bits);
            match palette {
                Some(palette) => levels.flat_map(|index| palette[usize::from(index)]).collect(),
                // 255, 85 and 17 spread the levels of 1, 2 and 4 bits over a byte.
                None => levels.flat_map(|level| [(255 / ((1u16 << bits) - 1)) as u8 * level; 3]).collect(),
            }
        }
        Samples::Gray(_) => data.iter().flat_map(|&level| [level; 3]).collect(),
        Samples::RGB(_) => data,
        Samples::RGBA(_) => data.as_chunks().0.iter().flat_map(|&pixel| alpha.flatten(pixel)).collect(),
        Samples::Multiband { .. } => {
            data.as_chunks().0.iter().flat_map(|&[v, a]| [alpha.flatten([v, v, v, a])[0]; 3]).collect()
        }
        Samples::CMYK(_) => data.as_chunks().0.iter().flat_map(|&pixel| rgb_of_cmyk(pixel)).collect(),
        _ => data.as_chunks().0.iter().flat_map(|&pixel| rgb_of_ycbcr(pixel)).collect(),
    };
    if rgb.len() != pixels * 3 {
        return Err(damaged(format!("it has {} bytes of pixels; expected {}", rgb.len(), pixels * 3)));
    }
    Ok(Raw { width, height, data: rgb, color: ColorType::Rgb8, orientation, whole: None })
}

/// How the fourth channel of RGBA counts.
#[derive(Clone, Copy)]
enum Alpha {
    Ignored,
    Straight,
    /// The colours are multiplied by it.
    Associated,
}

impl Alpha {
    /// A pixel over opaque white.
    fn flatten(self, [r, g, b, a]: [u8; 4]) -> [u8; 3] {
        match self {
            Self::Ignored => [r, g, b],
            Self::Straight => on_white([r, g, b, a]),
            // Pillow divides by alpha when it reads, and rounds down.
            Self::Associated if a > 0 => {
                [r, g, b].map(|value| over_white((u32::from(value) * 255 / u32::from(a)).min(255) as u8, a))
            }
            Self::Associated => [255; 3],
        }
    }
}

/// The first page, before its pixels are read.
struct Page<'a> {
    decoder: Decoder<Cursor<&'a [u8]>>,
}

impl<'a> Page<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let decoder = Decoder::new(Cursor::new(bytes)).map_err(|error| describe(&error))?;
        Ok(Self { decoder })
    }

    fn number(&mut self, tag: Tag) -> Result<Option<u32>, ImageError> {
        self.decoder.find_tag_unsigned(tag).map_err(|error| describe(&error))
    }

    /// Raw photos are TIFF files that start with a thumbnail.
    fn refuse_thumbnail(&mut self) -> Result<(), ImageError> {
        const DNG_VERSION: Tag = Tag::Unknown(50_706);
        const REDUCED: u32 = 1;
        let is_raw = self.decoder.find_tag(DNG_VERSION).is_ok_and(|tag| tag.is_some());
        if is_raw || self.number(Tag::NewSubfileType)?.unwrap_or(0) & REDUCED != 0 {
            return Err(unsupported("its first page is a thumbnail, as in raw photos".to_owned()));
        }
        Ok(())
    }

    /// The orientation of the page, or that in its XMP packet.
    fn orientation(&mut self) -> u32 {
        const XMP: Tag = Tag::Unknown(700);
        match self.decoder.find_tag_unsigned(Tag::Orientation) {
            Ok(Some(orientation)) => orientation,
            Ok(None) => self.decoder.get_tag_u8_vec(XMP).ok().and_then(|packet| from_xmp(&packet)).unwrap_or(1),
            Err(_) => 1,
        }
    }

    /// The colours of a palette image.
    fn palette(&mut self) -> Result<Option<Vec<[u8; 3]>>, ImageError> {
        let photometric = self.number(Tag::PhotometricInterpretation)?;
        if photometric != Some(PhotometricInterpretation::RGBPalette.to_u16().into()) {
            return Ok(None);
        }
        let bits = self.number(Tag::BitsPerSample)?.unwrap_or(1);
        if !matches!(bits, 1 | 2 | 4 | 8) || self.number(Tag::SamplesPerPixel)?.unwrap_or(1) != 1 {
            return Err(unsupported(format!("a palette with {bits} bits per sample, or with alpha")));
        }
        let map = self.decoder.get_tag_u16_vec(Tag::ColorMap).map_err(|error| describe(&error))?;
        let colors = 1 << bits;
        if map.len() < 3 * colors {
            return Err(damaged(format!("its palette has {} numbers; expected {}", map.len(), 3 * colors)));
        }
        // A palette may have more colours than the bits can name.
        let stride = map.len() / 3;
        let color = |index: usize| [0, 1, 2].map(|channel| (map[channel * stride + index] >> 8) as u8);
        Ok(Some((0..colors).map(color).collect()))
    }

    fn alpha(&mut self) -> Result<Alpha, ImageError> {
        const UNSPECIFIED: u16 = ExtraSamples::Unspecified.to_u16();
        const ASSOCIATED: u16 = ExtraSamples::AssociatedAlpha.to_u16();
        let extra = self.decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).map_err(|error| describe(&error))?;
        Ok(match extra.as_deref() {
            Some([UNSPECIFIED, ..]) => Alpha::Ignored,
            Some([ASSOCIATED, ..]) => Alpha::Associated,
            // Alpha is the usual fourth channel of RGB.
            _ => Alpha::Straight,
        })
    }

    fn check_support(&mut self, samples: Samples, compression: u32) -> Result<(), ImageError> {
        const SIGNED_BYTES: (u32, u8) = (2, 8);
        let known = match samples {
            Samples::Gray(bits) => matches!(bits, 1 | 2 | 4 | 8 | 16),
            Samples::RGB(bits) | Samples::RGBA(bits) | Samples::CMYK(bits) => matches!(bits, 8 | 16),
            Samples::Multiband { bit_depth: 8, num_samples: 2 } => true,
            Samples::YCbCr(8) => is_jpeg(compression),
            _ => false,
        };
        if !known {
            let bits = samples.bit_depth();
            return Err(unsupported(format!("{samples:?} samples of {bits} bits with compression {compression}")));
        }
        let formats = self.decoder.find_tag_unsigned_vec::<u32>(Tag::SampleFormat).map_err(|error| describe(&error))?;
        for format in formats.unwrap_or_default() {
            if format != 1 && (format, samples.bit_depth()) != SIGNED_BYTES {
                return Err(unsupported("its samples are signed numbers or floating-point numbers".to_owned()));
            }
        }
        if self.number(Tag::FillOrder)?.unwrap_or(1) != 1 {
            return Err(unsupported("the bits of its bytes are in reverse order".to_owned()));
        }
        let extra = self.number(Tag::SamplesPerPixel)?.unwrap_or(1) != u32::from(samples.num_samples());
        // The decoder would take differences between channels of neighbouring pixels that it has dropped.
        if extra && self.number(Tag::Predictor)?.unwrap_or(1) != 1 {
            return Err(unsupported("more channels than its colours, with a predictor".to_owned()));
        }
        Ok(())
    }

    /// Compressed strips and tiles lie inside the file, and a JPEG among them is whole and no larger than its place:
    /// its decoder fills what is missing with grey.
    fn check_chunks(&mut self, bytes: &[u8], compression: u32, (width, height): (u32, u32)) -> Result<(), ImageError> {
        if compression == 1 {
            return Ok(());
        }
        let mut list = |strips: Tag, tiles: Tag| {
            let tag = if self.decoder.find_tag(strips)?.is_some() { strips } else { tiles };
            self.decoder.find_tag_unsigned_vec::<u64>(tag)
        };
        let offsets = list(Tag::StripOffsets, Tag::TileOffsets).map_err(|error| describe(&error))?.unwrap_or_default();
        let lens = list(Tag::StripByteCounts, Tag::TileByteCounts).map_err(|error| describe(&error))?;
        let most_pixels = {
            let (tile_width, tile_height) = self.decoder.chunk_dimensions();
            u64::from(tile_width.max(width)) * u64::from(tile_height.min(height).max(1)) + 64 * 64
        };
        for (offset, len) in offsets.into_iter().zip(lens.unwrap_or_default()) {
            let end = offset.saturating_add(len);
            let Some(chunk) = usize::try_from(offset).ok().zip(usize::try_from(end).ok()) else {
                return Err(damaged(format!("a strip ends at byte {end}")));
            };
            let Some(chunk) = bytes.get(chunk.0..chunk.1) else {
                return Err(damaged(format!("truncated: it has {} of {end} bytes", bytes.len())));
            };
            if is_jpeg(compression) {
                let segments = Segments::of(chunk);
                let pixels = segments.frame.map_or(0, |(width, height)| u64::from(width) * u64::from(height));
                if !segments.has_end || pixels > most_pixels {
                    return Err(damaged("a JPEG inside it is truncated or larger than its place".to_owned()));
                }
            }
        }
        Ok(())
    }
}

fn is_jpeg(compression: u32) -> bool {
    compression == u32::from(CompressionMethod::ModernJPEG.to_u16())
}

/// The samples of packed rows, each padded to whole bytes.
fn unpacked(data: &[u8], width: usize, height: usize, bits: u8) -> impl Iterator<Item = u8> {
    let per_byte = 8 / usize::from(bits);
    let row_bytes = width.div_ceil(per_byte).max(1);
    let mask = (0xFF_u16 >> (8 - bits)) as u8;
    data.chunks_exact(row_bytes).take(height).flat_map(move |row| {
        (0..width).map(move |x| row[x / per_byte] >> (8 - usize::from(bits) * (x % per_byte + 1)) & mask)
    })
}

/// Pillow's conversion, with its division by 255 in two shifts.
fn rgb_of_cmyk([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let white = 255 - u32::from(k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * white + 128;
        (white - (((product >> 8) + product) >> 8).min(white)) as u8
    })
}

/// The conversion of JFIF (ITU-T T.871, clause 7).
fn rgb_of_ycbcr([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    [y + 1.402 * cr, y - 0.344_136_3 * cb - 0.714_136_3 * cr, y + 1.772 * cb].map(|value| (value + 0.5) as u8)
}

fn describe(error: &::tiff::TiffError) -> ImageError {
    match error {
        ::tiff::TiffError::UnsupportedError(error) => unsupported(error.to_string()),
        ::tiff::TiffError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            damaged("truncated: it ends within its pixels or its directory".to_owned())
        }
        error => damaged(error.to_string()),
    }
}

fn damaged(reason: String) -> ImageError {
    ImageError::Damaged { format: FORMAT, reason }
}

fn unsupported(reason: String) -> ImageError {
    ImageError::Unsupported { format: FORMAT, reason }
}
