//! Which way up an image is, read as Pillow's `ImageOps.exif_transpose` does: the orientation in EXIF counts, whatever
//! its value; where EXIF has none, that in XMP.

/// The orientation in an EXIF block: a TIFF header and its first directory. `None` if it has no such entry.
pub(crate) fn from_exif(block: &[u8]) -> Option<u32> {
    const ORIENTATION: u16 = 0x0112;
    // Some writers repeat the prefix.
    let prefix: &[u8] = b"Exif\0\0";
    let block = block.strip_prefix(prefix).unwrap_or(block);
    let block = block.strip_prefix(prefix).unwrap_or(block);
    let is_little = match block.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = *block.get(at..)?.first_chunk()?;
        Some(if is_little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes = *block.get(at..)?.first_chunk()?;
        Some(if is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = long(4)? as usize;
    for entry in 0..usize::from(short(directory)?) {
        let at = directory.checked_add(2 + 12 * entry)?;
        if short(at)? != ORIENTATION {
            continue;
        }
        return match (short(at + 2)?, long(at + 4)?) {
            // BYTE, SHORT and LONG, and their signed forms.
            (1 | 6, 1) => block.get(at + 8).map(|&value| value.into()),
            (3 | 8, 1) => short(at + 8).map(u32::from),
            (4 | 9, 1) => long(at + 8),
            // Present, but no orientation: Pillow does not look at XMP then.
            _ => Some(0),
        };
    }
    None
}

/// The orientation in an XMP packet, by Pillow's pattern `tiff:Orientation(="|>)([0-9])`.
pub(crate) fn from_xmp(packet: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut rest = packet;
    while let Some(at) = rest.windows(NAME.len()).position(|window| window == NAME) {
        rest = &rest[at + NAME.len()..];
        if let Some(&[digit @ b'0'..=b'9', ..]) = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">")) {
            return Some(u32::from(digit - b'0'));
        }
    }
    None
}

/// The orientation of a PNG, by its chunks `eXIf` and `iTXt`, before or after the pixels. `inflated` is the XMP packet
/// if the decoder had to inflate it.
pub(crate) fn from_png(bytes: &[u8], inflated: impl FnOnce() -> Option<Vec<u8>>) -> u32 {
    const XMP: &[u8] = b"XML:com.adobe.xmp\0";
    let (mut exif, mut xmp, mut is_compressed) = (None, None, false);
    for (kind, data) in png_chunks(bytes) {
        match (kind, data.strip_prefix(XMP)) {
            (b"eXIf", _) => exif = Some(data),
            // Flags of the compression, then the language and the translated keyword, each up to a zero.
            (b"iTXt", Some([0, _, rest @ ..])) => xmp = rest.splitn(3, |&byte| byte == 0).nth(2),
            (b"iTXt", Some(_)) => is_compressed = true,
            _ => {}
        }
    }
    let by_xmp = || match xmp {
        Some(packet) => from_xmp(packet),
        None if is_compressed => from_xmp(&inflated()?),
        None => None,
    };
    exif.and_then(from_exif).or_else(by_xmp).unwrap_or(1)
}

/// The kinds and data of a PNG's chunks, up to the first that is cut off.
pub(crate) fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first_chunk()?;
        let (kind, after) = after.split_first_chunk()?;
        let len = u32::from_be_bytes(*len) as usize;
        let data = after.get(..len)?;
        rest = after.get(len.checked_add(4)?..)?;
        Some((kind, data))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_matching_element_counts() {
        assert_eq!(from_xmp(b"tiff:Orientation='6' tiff:Orientation=\"8\""), Some(8));
        assert_eq!(from_xmp(b"<tiff:Orientation>3</tiff:Orientation>"), Some(3));
        assert_eq!(from_xmp(b"tiff:Orientation=\"x\""), None);
        assert_eq!(from_xmp(b"tiff:Orientation"), None);
    }

    #[test]
    fn every_cut_block_is_read() {
        let block = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";
        assert_eq!(from_exif(block), Some(6));
        assert_eq!(from_exif(&[b"Exif\0\0Exif\0\0", &block[..]].concat()), Some(6));
        for len in 0..block.len() - 2 {
            assert_eq!(from_exif(&block[..len]), None, "{len}");
        }
        let as_text = b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\x006\0\0\0";
        assert_eq!(from_exif(as_text), Some(0));
    }
}
