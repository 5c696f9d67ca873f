//! The marker segments of a JPEG (ITU-T T.81, annex B): what the decoder does not say.

use crate::images::decode::orientation::{from_exif, from_xmp};

/// What the segments of a JPEG tell.
#[derive(Default)]
pub(crate) struct Segments {
    /// Whether an end-of-image marker was found. A search for the two bytes would find that of a thumbnail.
    pub(crate) has_end: bool,
    /// Width and height of the first frame.
    pub(crate) frame: Option<(u32, u32)>,
    /// Whether the first frame has several scans: its decoder holds the coefficients of the whole image.
    pub(crate) has_several_scans: bool,
    /// Components of the first frame.
    components: u8,
    exif: Vec<u8>,
    xmp: Option<Vec<u8>>,
}

impl Segments {
    /// The orientation by EXIF or, where EXIF has none, by XMP; 1 where neither has one.
    pub(crate) fn orientation(&self) -> u32 {
        from_exif(&self.exif).or_else(|| from_xmp(self.xmp.as_deref()?)).unwrap_or(1)
    }

    /// Walks over all segments of a JPEG.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        const TEM: u8 = 0x01;
        const RESTARTS_AND_START: std::ops::RangeInclusive<u8> = 0xD0..=0xD8;
        const END: u8 = 0xD9;
        const SCAN: u8 = 0xDA;
        let mut found = Self::default();
        let (mut at, mut in_header) = (0, true);
        loop {
            // In a scan, everything before a marker is data. Between segments, a marker follows immediately.
            match position_of_ff(&bytes[at..]) {
                Some(before) => at += before + 1,
                None => return found,
            }
            let Some(&marker) = bytes.get(at) else { return found };
            match marker {
                END => {
                    found.has_end = true;
                    return found;
                }
                // Fill bytes repeat 0xFF.
                0xFF => {}
                // A stuffed zero means data. These markers have no segment.
                0 | TEM => at += 1,
                _ if RESTARTS_AND_START.contains(&marker) => at += 1,
                _ => {
                    let Some(&[high, low]) = bytes.get(at + 1..at + 3).and_then(|len| len.first_chunk()) else {
                        return found;
                    };
                    let len = usize::from(u16::from_be_bytes([high, low])).max(2);
                    if marker == SCAN && in_header && bytes.get(at + 3).is_some_and(|&count| count < found.components) {
                        found.has_several_scans = true;
                    }
                    // Pillow reads metadata up to the first scan.
                    in_header &= marker != SCAN;
                    if let Some(payload) = bytes.get(at + 3..at + 1 + len)
                        && in_header
                    {
                        found.note(marker, payload);
                    }
                    at += 1 + len;
                    if at >= bytes.len() {
                        return found;
                    }
                }
            }
        }
    }

    fn note(&mut self, marker: u8, payload: &[u8]) {
        const EXIF: &[u8] = b"Exif\0\0";
        const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
        match (marker, payload) {
            (0xE1, _) if payload.starts_with(EXIF) => self.exif.extend_from_slice(&payload[EXIF.len()..]),
            (0xE1, _) if payload.starts_with(XMP) => self.xmp = Some(payload[XMP.len()..].to_vec()),
            // The start of a frame; 0xC4, 0xC8 and 0xCC are other segments.
            (0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF, &[_, h1, h0, w1, w0, ..])
                if self.frame.is_none() =>
            {
                self.frame = Some((u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into()));
                self.has_several_scans = matches!(marker, 0xC2 | 0xC6 | 0xCA | 0xCE);
                self.components = payload.get(5).copied().unwrap_or(0);
            }
            _ => {}
        }
    }
}

/// The position of the first 0xFF. Most blocks of a scan have none, and are compared as a vector.
fn position_of_ff(bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 32;
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    let without = |block: &&[u8; BLOCK]| block.iter().fold(true, |all, &byte| all & (byte != 0xFF));
    let start = blocks.iter().take_while(without).count() * BLOCK;
    bytes[start..].iter().position(|&byte| byte == 0xFF).map(|at| start + at)
}

#[cfg(test)]
mod tests {
    use super::position_of_ff;

    #[test]
    fn first_of_several_is_found_at_every_distance() {
        for len in 0..100 {
            let mut bytes = vec![0xFE; len];
            assert_eq!(position_of_ff(&bytes), None);
            for at in (0..len).rev() {
                bytes[at] = 0xFF;
                assert_eq!(position_of_ff(&bytes), Some(at), "of {len}");
            }
        }
    }
}
