//! Unpacks the bytes of a page, into exactly the length that its header says.

use crate::parquet::thrift::Parsed;

pub(crate) const UNCOMPRESSED: i64 = 0;
pub(crate) const SNAPPY: i64 = 1;
#[cfg(feature = "parquet")]
const GZIP: i64 = 2;
#[cfg(feature = "parquet")]
const LZ4_HADOOP: i64 = 5;
#[cfg(feature = "parquet")]
const ZSTD: i64 = 6;
#[cfg(feature = "parquet")]
const LZ4_RAW: i64 = 7;

/// Most bytes that snappy makes of one: a copy of 64 bytes takes 3 (its format description).
#[cfg(feature = "parquet")]
const SNAPPY_RATIO: usize = 22;

/// Most bytes that LZ4 makes of one: a length byte of 255.
#[cfg(feature = "parquet")]
const LZ4_RATIO: usize = 255;

/// Largest window that every zstd decoder should take (RFC 8878, section 3.1.1.1.2).
#[cfg(feature = "parquet")]
const MIN_ZSTD_WINDOW: u64 = 8 << 20;

/// The `len` bytes that `packed` holds.
pub(crate) fn unpack(codec: i64, packed: &[u8], len: usize) -> Parsed<Vec<u8>> {
    let bytes = match codec {
        UNCOMPRESSED => packed.to_vec(),
        #[cfg(feature = "parquet")]
        SNAPPY => snappy(packed, len)?,
        #[cfg(feature = "parquet")]
        GZIP => gzip(packed, len)?,
        #[cfg(feature = "parquet")]
        LZ4_HADOOP => lz4_hadoop(packed, len).or_else(|_| lz4(packed, len))?,
        #[cfg(feature = "parquet")]
        ZSTD => zstd(packed, len)?,
        #[cfg(feature = "parquet")]
        LZ4_RAW => lz4(packed, len)?,
        other => {
            let name = match other {
                3 => "LZO".to_owned(),
                4 => "Brotli".to_owned(),
                other => format!("number {other}"),
            };
            return Err(format!(
                "the compression {name} is not supported; write the file with snappy, zstd, gzip, lz4 or none"
            ));
        }
    };
    if bytes.len() == len { Ok(bytes) } else { Err(damaged("a page", bytes.len(), len)) }
}

fn damaged(what: &str, found: usize, expected: usize) -> String {
    format!("{what} is damaged: it unpacks to {found} bytes, its header says {expected}; download or write it again")
}

#[cfg(feature = "parquet")]
fn snappy(packed: &[u8], len: usize) -> Parsed<Vec<u8>> {
    let fail = |error: snap::Error| format!("a snappy page is damaged: {error}; download or write it again");
    let found = snap::raw::decompress_len(packed).map_err(fail)?;
    if found != len || len / SNAPPY_RATIO > packed.len() {
        return Err(damaged("a snappy page", found, len));
    }
    snap::raw::Decoder::new().decompress_vec(packed).map_err(fail)
}

#[cfg(feature = "parquet")]
fn gzip(packed: &[u8], len: usize) -> Parsed<Vec<u8>> {
    read(flate2::read::MultiGzDecoder::new(packed), "gzip", len)
}

/// Reads `len` bytes, or one more to find out that there are more.
#[cfg(feature = "parquet")]
fn read(reader: impl std::io::Read, name: &str, len: usize) -> Parsed<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = std::io::Read::read_to_end(&mut reader.take(len as u64 + 1), &mut bytes);
    read.map_err(|error| format!("a {name} page is damaged: {error}; download or write it again"))?;
    Ok(bytes)
}

/// A frame with a larger window than the page is refused, so that memory grows with what is there: blocks are handed on
/// once they leave the window.
#[cfg(feature = "parquet")]
fn zstd(packed: &[u8], len: usize) -> Parsed<Vec<u8>> {
    let window = (len as u64).max(MIN_ZSTD_WINDOW);
    let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(packed, window);
    let decoder = decoder.map_err(|error| format!("a zstd page is damaged: {error}; download or write it again"))?;
    read(decoder, "zstd", len)
}

#[cfg(feature = "parquet")]
fn lz4(packed: &[u8], len: usize) -> Parsed<Vec<u8>> {
    if len / LZ4_RATIO > packed.len() {
        return Err(damaged("an lz4 page", 0, len));
    }
    let mut bytes = vec![0; len];
    let found = lz4_flex::block::decompress_into(packed, &mut bytes);
    let found = found.map_err(|error| format!("an lz4 page is damaged: {error}; download or write it again"))?;
    bytes.truncate(found);
    Ok(bytes)
}

/// LZ4 as Hadoop frames it: blocks, each after its two lengths.
#[cfg(feature = "parquet")]
fn lz4_hadoop(packed: &[u8], len: usize) -> Parsed<Vec<u8>> {
    let (mut rest, mut bytes) = (packed, Vec::new());
    let number = |rest: &mut &[u8]| {
        let (number, after) = rest.split_first_chunk::<4>().ok_or("an lz4 block ends early")?;
        *rest = after;
        Ok::<_, String>(u32::from_be_bytes(*number) as usize)
    };
    while bytes.len() < len {
        let (unpacked, size) = (number(&mut rest)?, number(&mut rest)?);
        let (block, after) = rest.split_at_checked(size).ok_or("an lz4 block ends early")?;
        if unpacked > len - bytes.len() || unpacked == 0 {
            return Err(damaged("an lz4 block", unpacked, len - bytes.len()));
        }
        bytes.extend(lz4(block, unpacked)?);
        rest = after;
    }
    if rest.is_empty() { Ok(bytes) } else { Err(damaged("an lz4 page", bytes.len(), len)) }
}

#[cfg(all(test, feature = "parquet"))]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked() {
        let text = b"caption caption caption caption".repeat(20);
        let hadoop =
            |block: &[u8]| [&(text.len() as u32).to_be_bytes(), &(block.len() as u32).to_be_bytes(), block].concat();
        let lz4 = lz4_flex::block::compress(&text);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &text).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(&text[..], ruzstd::encoding::CompressionLevel::Fastest);
        let cases = [
            (UNCOMPRESSED, text.clone()),
            (SNAPPY, snap::raw::Encoder::new().compress_vec(&text).unwrap()),
            (GZIP, gzip.finish().unwrap()),
            (LZ4_HADOOP, hadoop(&lz4)),
            (LZ4_HADOOP, lz4.clone()),
            (ZSTD, zstd),
            (LZ4_RAW, lz4),
        ];
        for (number, (codec, packed)) in cases.into_iter().enumerate() {
            assert_eq!(unpack(codec, &packed, text.len()).unwrap(), text, "{number}");
            for len in [0, text.len() - 1, text.len() + 1, 1 << 30] {
                let error = unpack(codec, &packed, len).unwrap_err();
                assert!(error.contains("damaged") && error.contains("download"), "{number}: {error}");
            }
            let error = unpack(codec, &packed[..packed.len() - 2], text.len()).unwrap_err();
            assert!(error.contains("damaged"), "{number}: {error}");
        }
        assert!(unpack(4, b"", 1).unwrap_err().contains("Brotli is not supported; write the file with snappy"));
    }
}
