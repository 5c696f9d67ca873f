//! The token sequences of a data set's captions, filled in as they are asked for.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::error::DataError;
use crate::text::tokenizer::Encoded;

/// Bytes that the sequences of one table may take. Two bytes a token and three of overhead: about four million captions
/// of 16 tokens. Captions beyond that are tokenised each time.
const MAX_BYTES: usize = 128 << 20;

/// Captions that a table has room to note, in 4 bytes each. It holds the sequences of about four million; those of
/// captions after these are tokenised each time, and not counted.
pub(crate) const MAX_NOTED: usize = 1 << 24;

/// Bytes that are allocated at once.
const BLOCK_BYTES: usize = 1 << 20;

/// Marks a caption that was tokenised and did not fit.
const NOT_KEPT: u32 = u32::MAX;

/// A byte with this bit has another one after it: LEB128, as in the DWARF standard, version 5, section 7.6.
const MORE: u8 = 0x80;

/// Token sequences by number, each computed when it is first asked for.
#[derive(Debug)]
pub(crate) struct LazyTokens {
    /// Of each caption: 0 if it was never asked for, [`NOT_KEPT`], or where its sequence starts, plus 1.
    starts: Vec<AtomicU32>,
    blocks: RwLock<Blocks>,
    max_bytes: usize,
    num_seen: AtomicUsize,
    num_cut: AtomicUsize,
}

/// Sequences in blocks. A block is never reallocated, so a table that grows is not copied.
#[derive(Debug, Default)]
struct Blocks {
    blocks: Vec<Vec<u8>>,
}

impl LazyTokens {
    /// A table of `len` captions, or of the first of them if they are too many.
    pub(crate) fn new(len: usize) -> Self {
        Self::with_limit(len.min(MAX_NOTED), MAX_BYTES)
    }

    fn with_limit(len: usize, max_bytes: usize) -> Self {
        Self {
            starts: (0..len).map(|_| AtomicU32::new(0)).collect(),
            blocks: RwLock::default(),
            max_bytes,
            num_seen: AtomicUsize::new(0),
            num_cut: AtomicUsize::new(0),
        }
    }

    /// Number of captions that were asked for so far, and how many of them were cut.
    pub(crate) fn counts(&self) -> (usize, usize) {
        // Cut captions are counted first, so that they are never more than the captions.
        let cut = self.num_cut.load(Ordering::Acquire);
        (self.num_seen.load(Ordering::Acquire), cut)
    }

    /// The tokens of caption `index`, which `encode` computes if they are not in the table.
    ///
    /// # Errors
    /// Those of `encode`.
    pub(crate) fn get(
        &self,
        index: usize,
        encode: impl FnOnce() -> Result<Encoded, DataError>,
    ) -> Result<Encoded, DataError> {
        let start = self.starts.get(index).map_or(NOT_KEPT, |start| start.load(Ordering::Acquire));
        if start != 0 && start != NOT_KEPT {
            // A writer leaves whole sequences behind, even if it panics.
            let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
            return Ok(blocks.read(start as usize - 1));
        }
        let encoded = encode()?;
        if start == 0 {
            self.keep(index, &encoded);
        }
        Ok(encoded)
    }

    fn keep(&self, index: usize, encoded: &Encoded) {
        let bytes = written(encoded);
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been faster.
        if self.starts[index].load(Ordering::Acquire) != 0 {
            return;
        }
        let start = blocks.push(&bytes, self.max_bytes).map_or(NOT_KEPT, |start| start as u32 + 1);
        self.starts[index].store(start, Ordering::Release);
        self.num_seen.fetch_add(1, Ordering::AcqRel);
        self.num_cut.fetch_add(usize::from(encoded.cut), Ordering::AcqRel);
    }
}

impl Blocks {
    /// Stores a sequence and returns where it starts; `None` if there is no room.
    fn push(&mut self, bytes: &[u8], max_bytes: usize) -> Option<usize> {
        let fits = |block: &Vec<u8>| block.len() + bytes.len() <= BLOCK_BYTES;
        if !self.blocks.last().is_some_and(fits) {
            if (self.blocks.len() + 1) * BLOCK_BYTES > max_bytes || bytes.len() > BLOCK_BYTES {
                return None;
            }
            self.blocks.push(Vec::with_capacity(BLOCK_BYTES));
        }
        let number = self.blocks.len() - 1;
        let block = &mut self.blocks[number];
        let start = number * BLOCK_BYTES + block.len();
        block.extend_from_slice(bytes);
        Some(start)
    }

    fn read(&self, start: usize) -> Encoded {
        let mut bytes = self.blocks[start / BLOCK_BYTES][start % BLOCK_BYTES..].iter().copied();
        let head = read_number(&mut bytes);
        let len = (head >> 2) as usize;
        let ids = (0..len).map(|_| read_number(&mut bytes) as u32).collect();
        let has_types = head & 1 == 1;
        let type_ids = (0..len).map(|_| if has_types { read_number(&mut bytes) as u32 } else { 0 }).collect();
        Encoded { ids, type_ids, cut: head & 2 == 2 }
    }
}

/// A sequence as bytes: its length with two flags, the ids, and the type ids unless all are 0.
fn written(Encoded { ids, type_ids, cut }: &Encoded) -> Vec<u8> {
    let has_types = type_ids.iter().any(|&id| id != 0);
    let mut bytes = Vec::with_capacity(3 * ids.len() + 2);
    write_number((ids.len() as u64) << 2 | u64::from(*cut) << 1 | u64::from(has_types), &mut bytes);
    let types = type_ids.iter().filter(|_| has_types);
    ids.iter().chain(types).for_each(|&id| write_number(id.into(), &mut bytes));
    bytes
}

fn write_number(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= u64::from(MORE) {
        bytes.push(number as u8 | MORE);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read_number(bytes: &mut impl Iterator<Item = u8>) -> u64 {
    let (mut number, mut shift) = (0, 0);
    for byte in bytes {
        number |= u64::from(byte & !MORE) << shift;
        if byte & MORE == 0 {
            break;
        }
        shift += 7;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(seed: u32, len: u32) -> Encoded {
        let ids = (0..len).map(|at| (seed + 1).wrapping_mul(2_654_435_761).rotate_left(at) >> (at % 32)).collect();
        let type_ids = (0..len).map(|at| u32::from(seed.is_multiple_of(3) && at > 2)).collect();
        Encoded { ids, type_ids, cut: seed.is_multiple_of(5) }
    }

    #[test]
    fn sequences_come_back() {
        let table = LazyTokens::new(500);
        for index in 0..500 {
            let expected = sequence(index, index % 40);
            assert_eq!(table.get(index as usize, || Ok(expected.clone())).unwrap(), expected);
            let again = table.get(index as usize, || unreachable!("it is known"));
            assert_eq!(again.unwrap(), expected);
        }
        assert_eq!(table.counts(), (500, 100));
    }

    #[test]
    fn full_table_counts_each_once() {
        let table = LazyTokens::with_limit(2000, 2 * BLOCK_BYTES);
        for _ in 0..2 {
            for index in 0..2000 {
                let expected = sequence(index, 900);
                assert_eq!(table.get(index as usize, || Ok(expected.clone())).unwrap(), expected);
            }
        }
        let blocks = table.blocks.read().unwrap();
        assert_eq!(blocks.blocks.len(), 2);
        assert!(blocks.blocks.iter().all(|block| block.capacity() == BLOCK_BYTES));
        assert_eq!(table.counts(), (2000, 400));
    }

    #[test]
    fn threads_share_a_table() {
        let table = LazyTokens::new(300);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let table = &table;
                scope.spawn(move || {
                    for at in 0..300 {
                        let index = (at * 7 + thread * 75) % 300;
                        let expected = sequence(index, 20);
                        assert_eq!(table.get(index as usize, || Ok(expected.clone())).unwrap(), expected);
                    }
                });
            }
        });
        assert_eq!(table.counts(), (300, 60));
    }

    #[test]
    fn captions_without_room_are_encoded_each_time() {
        let table = LazyTokens::with_limit(3, MAX_BYTES);
        for seed in [4, 5] {
            assert_eq!(table.get(3, || Ok(sequence(seed, 9))).unwrap(), sequence(seed, 9));
        }
        assert_eq!((table.counts(), table.starts.len()), ((0, 0), 3));
    }

    #[test]
    fn errors_are_not_counted() {
        let table = LazyTokens::new(1);
        let failed = table.get(0, || Err(DataError::Loader { reason: "no".to_owned() }));
        assert!(failed.is_err());
        assert_eq!(table.counts(), (0, 0));
        table.get(0, || Ok(sequence(1, 3))).unwrap();
        assert_eq!((table.counts(), table.starts.len()), ((1, 0), 1));
    }
}
