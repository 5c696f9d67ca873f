//! The ids of many rows at once. [`blake3::hash`] of a single row of a few KB leaves most lanes of the processor's
//! vectors idle: here each lane has a row of its own.

use std::array::from_fn;

use blake3::IncrementCounter;
use blake3::platform::{MAX_SIMD_DEGREE, Platform};

use crate::loader::feature_lookup::{ContentId, content_id};

/// Bytes of a block, of a chunk, and of a hash (BLAKE3, section 2.1).
const BLOCK: usize = 64;
const CHUNK: usize = 1024;
const HASH: usize = 32;

/// Bytes of which the chunks fill a vector by themselves.
const FILLS_VECTORS: usize = CHUNK * MAX_SIMD_DEGREE;

/// Flags of blocks (BLAKE3, table 3).
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 1 << 1;
const PARENT: u8 = 1 << 2;
const ROOT: u8 = 1 << 3;

/// The key of hashes without a key (BLAKE3, table 1).
const IV: [u32; 8] =
    [0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A, 0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19];

/// One hash per row; only the first rows count.
type Hashes = [[u8; HASH]; MAX_SIMD_DEGREE];

/// Hashes chunks of equal length, one of each row, from the number of the chunk in its row, and [`ROOT`] or 0.
type OfChunks = fn(Platform, &[&[u8]], u64, u8) -> Hashes;

/// By the number of blocks, less one.
const OF_CHUNKS: [OfChunks; CHUNK / BLOCK] = [
    of_chunks::<64>,
    of_chunks::<128>,
    of_chunks::<192>,
    of_chunks::<256>,
    of_chunks::<320>,
    of_chunks::<384>,
    of_chunks::<448>,
    of_chunks::<512>,
    of_chunks::<576>,
    of_chunks::<640>,
    of_chunks::<704>,
    of_chunks::<768>,
    of_chunks::<832>,
    of_chunks::<896>,
    of_chunks::<960>,
    of_chunks::<CHUNK>,
];

/// The [`ContentId`] of the blake3 hash of each row of `len` bytes.
pub(crate) fn row_ids(rows: &[u8], len: usize) -> Vec<ContentId> {
    if len == 0 || !len.is_multiple_of(BLOCK) {
        return rows.chunks_exact(len.max(1)).map(id_of).collect();
    }
    let platform = Platform::detect();
    let mut ids = Vec::with_capacity(rows.len() / len);
    for rows in rows.chunks(len * MAX_SIMD_DEGREE) {
        if rows.len() < len * platform.simd_degree() && len >= FILLS_VECTORS {
            ids.extend(rows.chunks_exact(len).map(id_of));
            continue;
        }
        let mut each: [&[u8]; MAX_SIMD_DEGREE] = [&[]; MAX_SIMD_DEGREE];
        each.iter_mut().zip(rows.chunks_exact(len)).for_each(|(each, row)| *each = row);
        let count = rows.len() / len;
        ids.extend(of_tree(platform, &each[..count], 0, ROOT)[..count].iter().map(content_id));
    }
    ids
}

fn id_of(row: &[u8]) -> ContentId {
    content_id(blake3::hash(row).as_bytes())
}

/// Hashes parts of equal length, which start at chunk `first` of each row (BLAKE3, section 2.1, the tree). `root`:
/// [`ROOT`] for whole rows, else 0.
fn of_tree(platform: Platform, parts: &[&[u8]], first: u64, root: u8) -> Hashes {
    let len = parts.first().map_or(BLOCK, |part| part.len());
    if len <= CHUNK {
        return OF_CHUNKS[len / BLOCK - 1](platform, parts, first, root);
    }
    // The left subtree is the largest whole one that leaves something to the right.
    let left_len = CHUNK * len.div_ceil(CHUNK).next_power_of_two() / 2;
    let (mut left, mut right) = ([&[][..]; MAX_SIMD_DEGREE], [&[][..]; MAX_SIMD_DEGREE]);
    for ((left, right), part) in left.iter_mut().zip(&mut right).zip(parts) {
        (*left, *right) = part.split_at(left_len);
    }
    let left = of_tree(platform, &left[..parts.len()], first, 0);
    let right = of_tree(platform, &right[..parts.len()], first + (left_len / CHUNK) as u64, 0);
    let blocks: [[u8; BLOCK]; MAX_SIMD_DEGREE] = from_fn(|row| {
        let mut block = [0; BLOCK];
        block[..HASH].copy_from_slice(&left[row]);
        block[HASH..].copy_from_slice(&right[row]);
        block
    });
    let blocks: [&[u8; BLOCK]; MAX_SIMD_DEGREE] = from_fn(|row| &blocks[row]);
    let mut hashes = Hashes::default();
    let out = hashes.as_flattened_mut();
    platform.hash_many(&blocks[..parts.len()], &IV, 0, IncrementCounter::No, PARENT | root, 0, 0, out);
    hashes
}

fn of_chunks<const LEN: usize>(platform: Platform, chunks: &[&[u8]], number: u64, root: u8) -> Hashes {
    let zeros = [0; LEN];
    let whole: [&[u8; LEN]; MAX_SIMD_DEGREE] =
        from_fn(|row| chunks.get(row).and_then(|chunk| chunk.first_chunk()).unwrap_or(&zeros));
    let mut hashes = Hashes::default();
    let (last, out) = (CHUNK_END | root, hashes.as_flattened_mut());
    platform.hash_many(&whole[..chunks.len()], &IV, number, IncrementCounter::No, 0, CHUNK_START, last, out);
    hashes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths in blocks: every last chunk, and trees of up to 5 chunks, of 9 and of 17; counts that fill no vector.
    #[test]
    fn ids_are_those_of_single_rows() {
        let values: Vec<u8> = (0..37 * 17 * CHUNK).map(|at| (at * at / 7 + at / 251) as u8).collect();
        let lengths =
            (1..=5 * CHUNK / BLOCK).map(|blocks| blocks * BLOCK).chain([9 * CHUNK, 17 * CHUNK, 4, 60, 68, 1028, 2044]);
        for len in lengths {
            for count in [0, 1, 3, 16, 37] {
                let rows = &values[..count * len];
                let expected: Vec<_> = rows.chunks(len).map(id_of).collect();
                assert_eq!(row_ids(rows, len), expected, "{count} rows of {len} bytes");
            }
        }
    }
}
