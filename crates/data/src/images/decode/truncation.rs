//! Whether a file ends before its image does: an interrupted download, a full disk.

use crate::images::decode::orientation::png_chunks;
use crate::look_at::ImageFormat;

/// Says that a file is cut off where its pixels may be whole, but metadata after them are missing. Pillow refuses such
/// a file too.
pub(crate) fn cut_metadata(bytes: &[u8], format: ImageFormat) -> Option<String> {
    const END_CHUNK: &[u8] = b"\0\0\0\0IEND\xaeB`\x82";
    match format {
        ImageFormat::WebP => truncation(bytes, format),
        ImageFormat::Png => {
            let whole: usize = png_chunks(bytes).map(|(_, data)| 12 + data.len()).sum();
            let rest = bytes.get(8 + whole..)?;
            let has_end = png_chunks(bytes).any(|(kind, _)| kind == b"IEND");
            // A lost end chunk loses nothing.
            (!has_end && !END_CHUNK.starts_with(rest)).then(|| truncation(bytes, format)).flatten()
        }
        _ => None,
    }
}

/// Says that a file is cut off, and where, if its own structure shows it.
pub(crate) fn truncation(bytes: &[u8], format: ImageFormat) -> Option<String> {
    let found = bytes.len() as u64;
    let of = |expected: u64| (found < expected).then(|| format!("truncated: it has {found} of {expected} bytes"));
    let long = |at: usize| Some(u64::from(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?)));
    match format {
        ImageFormat::Png => {
            let has_end = png_chunks(bytes).any(|(kind, _)| kind == b"IEND");
            (!has_end).then(|| format!("truncated: its {found} bytes have no end chunk"))
        }
        // The length of a RIFF file leaves out its first 8 bytes.
        ImageFormat::WebP => of(long(4)? + 8),
        ImageFormat::Gif => {
            (bytes.last() != Some(&0x3B)).then(|| format!("truncated: its {found} bytes have no trailer"))
        }
        // The file header has the length of the file; some writers leave zero.
        ImageFormat::Bmp => of(long(2)?),
        ImageFormat::Qoi => {
            let has_end = bytes.ends_with(&[0, 0, 0, 0, 0, 0, 0, 1]);
            (!has_end).then(|| format!("truncated: its {found} bytes have no end marker"))
        }
        ImageFormat::Jpeg | ImageFormat::Dib | ImageFormat::Tiff | ImageFormat::Pnm => None,
    }
}
