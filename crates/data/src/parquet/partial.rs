//! Unpacks a part of a snappy page. Encoders of snappy compress blocks of 64 KiB on their own, so unpacking can start
//! at each of them: <https://github.com/google/snappy/blob/main/format_description.txt>.

/// Bytes of a block, unpacked.
const BLOCK_BYTES: usize = 1 << 16;

/// A step of unpacking: bytes of the packed page, or of what was unpacked.
enum Element {
    /// Start and length in the packed bytes.
    Literal(usize, usize),
    /// Distance back, and length.
    Copy(usize, usize),
}

/// The element at `at`, and where the next one starts; `None` if it ends early.
fn element(packed: &[u8], at: usize) -> Option<(Element, usize)> {
    let tag = usize::from(*packed.get(at)?);
    let number = |len: usize| {
        let bytes = packed.get(at + 1..at + 1 + len)?;
        Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    };
    let (element, next) = match tag & 3 {
        0 => {
            let (len, start) = match (tag >> 2).checked_sub(59) {
                None | Some(0) => (tag >> 2, at + 1),
                Some(extra) => (number(extra)?, at + 1 + extra),
            };
            (Element::Literal(start, len + 1), start + len + 1)
        }
        1 => (Element::Copy((tag >> 5) << 8 | number(1)?, (tag >> 2 & 7) + 4), at + 2),
        2 => (Element::Copy(number(2)?, (tag >> 2) + 1), at + 3),
        _ => (Element::Copy(number(4)?, (tag >> 2) + 1), at + 5),
    };
    (next <= packed.len()).then_some((element, next))
}

/// The positions at which unpacking can start, each unpacked and packed, and the end; `None` if the page is not
/// snappy's.
pub(crate) fn starts(packed: &[u8]) -> Option<Vec<(u32, u32)>> {
    // The length comes first, in 7 bits a byte.
    let mut at = packed.iter().position(|byte| *byte < 0x80)? + 1;
    let (mut unpacked, mut starts) = (0usize, Vec::new());
    while at < packed.len() {
        if unpacked.is_multiple_of(BLOCK_BYTES) {
            starts.push((u32::try_from(unpacked).ok()?, u32::try_from(at).ok()?));
        }
        let (element, next) = element(packed, at)?;
        let (Element::Literal(_, len) | Element::Copy(_, len)) = element;
        (at, unpacked) = (next, unpacked.checked_add(len)?);
    }
    starts.push((u32::try_from(unpacked).ok()?, u32::try_from(at).ok()?));
    Some(starts)
}

/// Unpacks `len` bytes from elements that start at a block; `None` if they refer to an earlier one, or are fewer.
pub(crate) fn unpack_part(packed: &[u8], len: usize) -> Option<Vec<u8>> {
    let (mut at, mut bytes) = (0, Vec::new());
    while bytes.len() < len {
        let (element, next) = element(packed, at)?;
        match element {
            Element::Literal(start, count) => bytes.extend_from_slice(packed.get(start..start + count)?),
            Element::Copy(back, count) => {
                let from = bytes.len().checked_sub(back).filter(|_| back > 0)?;
                // The copy may overlap its own result.
                for index in from..from + count {
                    bytes.push(*bytes.get(index)?);
                }
            }
        }
        at = next;
    }
    bytes.truncate(len);
    Some(bytes)
}

#[cfg(all(test, feature = "parquet"))]
mod tests {
    use super::*;
    use crate::random::mix;

    #[test]
    fn parts_equal_whole() {
        // Stretches of noise, of one letter and of words, so that there are literals and copies of every kind.
        let mut whole: Vec<u8> = Vec::new();
        for stretch in 0..60u64 {
            let noise = (0..5000).map(|at| mix(stretch, &[at]) as u8);
            match stretch % 3 {
                0 => whole.extend(noise),
                1 => whole.extend([stretch as u8].repeat(7000)),
                _ => whole.extend(noise.flat_map(|byte| [b"red cat ", b"old dog "][usize::from(byte & 1)].to_owned())),
            }
        }
        let packed = snap::raw::Encoder::new().compress_vec(&whole).unwrap();
        let starts = starts(&packed).unwrap();
        assert_eq!(starts.len(), whole.len().div_ceil(BLOCK_BYTES) + 1);
        assert_eq!(starts.last().unwrap(), &(whole.len() as u32, packed.len() as u32));
        for pair in starts.windows(2) {
            let [(from, packed_from), (to, packed_to)] = [pair[0], pair[1]].map(|(a, b)| (a as usize, b as usize));
            let part = unpack_part(&packed[packed_from..packed_to], to - from).unwrap();
            assert!(part == whole[from..to], "bytes {from} to {to}");
            assert!(unpack_part(&packed[packed_from..packed_to], to - from + 1).is_none());
        }
        // A copy from before the start.
        assert_eq!(unpack_part(&[0, b'x', 0b1 | 3 << 2, 1], 8).unwrap(), b"xxxxxxxx");
        assert!(unpack_part(&[0, b'x', 0b1, 2], 5).is_none());
        assert!(unpack_part(&[0, b'x', 0b1, 0], 5).is_none());
        for seed in 0..2000 {
            let noise: Vec<u8> = (0..40).map(|at| mix(seed, &[at]) as u8).collect();
            let _ = (super::starts(&noise), unpack_part(&noise, 1000));
        }
    }
}
