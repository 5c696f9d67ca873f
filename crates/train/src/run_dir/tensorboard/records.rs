//! TFRecord, the frame of each message in an event file: its length, a checksum of the length, the message, a checksum
//! of the message. A reader stops at a frame that is incomplete, and tries again later.

/// Added to a rotated CRC, so that a checksum of data that hold checksums stays useful (`kMaskDelta` in TensorFlow's
/// `crc32c.h`).
const MASK_DELTA: u32 = 0xa282_ead8;

/// Appends the frame of `message`.
pub(super) fn push_record(out: &mut Vec<u8>, message: &[u8]) {
    let length = (message.len() as u64).to_le_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc(&length).to_le_bytes());
    out.extend_from_slice(message);
    out.extend_from_slice(&masked_crc(message).to_le_bytes());
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(MASK_DELTA)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first record of an event file that TensorFlow wrote, without its wall time.
    #[test]
    fn frame_is_tensorflows() {
        let mut record = Vec::new();
        push_record(&mut record, b"\x1a\rbrain.Event:2");
        assert_eq!(record[..8], 15u64.to_le_bytes());
        assert_eq!(&record[12..27], b"\x1a\rbrain.Event:2");
        assert_eq!(record.len(), 31);
        // CRC-32C of RFC 3720, appendix B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked_crc(&[0; 32]), 0x8a91_36aau32.rotate_left(17).wrapping_add(0xa282_ead8));
    }
}
