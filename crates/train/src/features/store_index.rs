//! The index of a feature store, on disk and in memory: which row holds the feature of which content.
//!
//! On disk a record of 32 bytes a row. In memory the same records in one vector, and one table of row numbers that is
//! searched by the content's name, itself a hash: two allocations, however many entries there are.

use dualenc_data::ContentHash;

/// The start of a content's blake3. With 128 bits, ten million contents meet by chance once in 10^24 stores.
const NAME_BYTES: usize = 16;

/// The start of a row's blake3, and of a record's.
const CHECKSUM_BYTES: usize = 8;

/// Bytes of a record on disk: name, checksum of the row, checksum of the record.
pub(crate) const RECORD_BYTES: usize = NAME_BYTES + 2 * CHECKSUM_BYTES;

/// A row's number.
pub(crate) type Row = u32;

/// The start of a row's blake3.
pub(crate) type Checksum = [u8; CHECKSUM_BYTES];

/// The checksum of `bytes`.
pub(crate) fn checksum(bytes: &[u8]) -> Checksum {
    start_of(&blake3::hash(bytes))
}

fn start_of<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    let mut start = [0; N];
    start.copy_from_slice(&hash.as_bytes()[..N]);
    start
}

/// What is known of a row's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody in this process has read them.
    Unchecked,
    /// They are what was written.
    Valid,
    /// They are not, or the record is not.
    Invalid,
}

/// What stands in one record.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: [u8; NAME_BYTES],
    checksum: Checksum,
    state: State,
}

/// Which row holds the feature of which content.
#[derive(Debug, Default)]
pub(crate) struct FeatureIndex {
    /// Of each row.
    entries: Vec<Entry>,
    /// Open addressing by the start of the name, with linear probing: the row's number and 1, or 0 where nothing stands. At
    /// least half of it is empty; its length is a power of two.
    table: Vec<u32>,
    named: usize,
}

impl FeatureIndex {
    /// Makes room for `more` rows at once.
    pub fn reserve(&mut self, more: usize) {
        match self.entries.is_empty() {
            true => self.entries.reserve_exact(more),
            // By doubling: others may add a few rows at a time, often.
            false => self.entries.reserve(more),
        }
        let slots = ((self.named + more) * 2).next_power_of_two();
        if slots > self.table.len() {
            self.rebuild(slots);
        }
    }

    /// How many rows there are, of any state.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The newest row of a content, unless it is invalid, and what is known of it.
    pub fn find(&self, content: &ContentHash) -> Option<(Row, State)> {
        let (_, row) = self.slot(&name_of(content))?;
        let state = self.entries[row as usize].state;
        (state != State::Invalid).then_some((row, state))
    }

    /// The checksum that a row's values must have.
    pub fn checksum(&self, row: Row) -> Option<Checksum> {
        self.entries.get(row as usize).map(|entry| entry.checksum)
    }

    /// Notes what was found out about a row.
    pub fn mark(&mut self, row: Row, state: State) {
        if let Some(entry) = self.entries.get_mut(row as usize) {
            entry.state = state;
        }
    }

    /// Adds the next row.
    pub fn push(&mut self, content: &ContentHash, checksum: Checksum, state: State) -> Row {
        self.add(Entry { name: name_of(content), checksum, state })
    }

    /// Adds the next row as its record says; one that is not what was written makes an invalid row.
    pub fn push_record(&mut self, record: &[u8; RECORD_BYTES], key: &blake3::Hash) {
        let row = self.entries.len();
        let (name, rest) = record.split_at(NAME_BYTES);
        let (row_checksum, own_checksum) = rest.split_at(CHECKSUM_BYTES);
        let mut entry = Entry { name: [0; NAME_BYTES], checksum: [0; CHECKSUM_BYTES], state: State::Unchecked };
        entry.name.copy_from_slice(name);
        entry.checksum.copy_from_slice(row_checksum);
        if record_checksum(&record[..NAME_BYTES + CHECKSUM_BYTES], row, key) == own_checksum {
            self.add(entry);
        } else {
            self.entries.push(Entry { state: State::Invalid, ..entry });
        }
    }

    /// The record of a row.
    pub fn record(&self, row: Row, key: &blake3::Hash) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        if let Some(entry) = self.entries.get(row as usize) {
            record[..NAME_BYTES].copy_from_slice(&entry.name);
            record[NAME_BYTES..NAME_BYTES + CHECKSUM_BYTES].copy_from_slice(&entry.checksum);
            let own = record_checksum(&record[..NAME_BYTES + CHECKSUM_BYTES], row as usize, key);
            record[NAME_BYTES + CHECKSUM_BYTES..].copy_from_slice(&own);
        }
        record
    }

    fn add(&mut self, entry: Entry) -> Row {
        let row = self.entries.len() as Row;
        self.entries.push(entry);
        match self.slot(&entry.name) {
            // Computed again since the older row was found invalid, here or by another process.
            Some((slot, _)) => self.table[slot] = row + 1,
            None => {
                if (self.named + 1) * 2 > self.table.len() {
                    self.rebuild(((self.named + 1) * 2).next_power_of_two());
                }
                self.put(row);
                self.named += 1;
            }
        }
        row
    }

    /// Where a name stands in the table, and its row.
    fn slot(&self, name: &[u8; NAME_BYTES]) -> Option<(usize, Row)> {
        let mut slots = probe(name, self.table.len());
        loop {
            let slot = slots.next()?;
            let row = self.table[slot].checked_sub(1)?;
            if self.entries[row as usize].name == *name {
                return Some((slot, row));
            }
        }
    }

    /// Puts a row whose name is not there yet into the table.
    fn put(&mut self, row: Row) {
        let empty = probe(&self.entries[row as usize].name, self.table.len()).find(|&slot| self.table[slot] == 0);
        if let Some(slot) = empty {
            self.table[slot] = row + 1;
        }
    }

    fn rebuild(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.table, vec![0; slots]);
        for row in old.into_iter().filter_map(|value| value.checked_sub(1)) {
            self.put(row);
        }
    }
}

/// The slots of a table of `len` (a power of two) in which a name may stand, in order.
fn probe(name: &[u8; NAME_BYTES], len: usize) -> impl Iterator<Item = usize> + use<> {
    let start = name.iter().take(8).fold(0u64, |start, &byte| start << 8 | u64::from(byte)) as usize;
    (0..len).map(move |step| start.wrapping_add(step) & (len - 1))
}

fn name_of(content: &ContentHash) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    name.copy_from_slice(&content[..NAME_BYTES]);
    name
}

/// Under the store's key and the row's number: a record that was moved, or is another store's, is invalid.
fn record_checksum(content: &[u8], row: usize, key: &blake3::Hash) -> Checksum {
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(content).update(&(row as u64).to_le_bytes());
    start_of(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(number: u64) -> ContentHash {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    #[test]
    fn every_content_is_found_and_no_other_and_the_newest_row_counts() {
        let mut index = FeatureIndex::default();
        for number in 0..5000 {
            assert_eq!(index.push(&content(number), [1; 8], State::Unchecked), number as Row);
        }
        for number in 0..5000 {
            assert_eq!(index.find(&content(number)), Some((number as Row, State::Unchecked)));
            assert_eq!(index.find(&content(number + 5000)), None);
        }
        index.mark(7, State::Invalid);
        assert_eq!(index.find(&content(7)), None);
        assert_eq!(index.push(&content(7), [2; 8], State::Valid), 5000);
        assert_eq!(index.find(&content(7)), Some((5000, State::Valid)));
        assert_eq!(index.checksum(5000), Some([2; 8]));
        assert_eq!(FeatureIndex::default().find(&content(7)), None);
    }

    #[test]
    fn a_record_is_valid_only_as_it_was_written_in_its_place_and_store() {
        let key = blake3::hash(b"store");
        let mut index = FeatureIndex::default();
        let row = index.push(&content(1), [3; 8], State::Valid);
        let record = index.record(row, &key);
        let read = |record: &[u8; RECORD_BYTES], row: usize, key: &blake3::Hash| {
            let mut index = FeatureIndex::default();
            for number in 0..row as u64 {
                index.push(&content(number + 10), [0; 8], State::Valid);
            }
            index.push_record(record, key);
            assert_eq!(index.len(), row + 1);
            index.find(&content(1)).and_then(|(row, _)| index.checksum(row))
        };
        assert_eq!(read(&record, 0, &key), Some([3; 8]));
        assert_eq!(read(&record, 1, &key), None);
        assert_eq!(read(&record, 0, &blake3::hash(b"another")), None);
        for byte in 0..RECORD_BYTES {
            let mut flipped = record;
            flipped[byte] ^= 4;
            assert_eq!(read(&flipped, 0, &key), None, "byte {byte}");
        }
    }

    #[test]
    fn a_million_entries_take_two_allocations() {
        let mut index = FeatureIndex::default();
        index.reserve(1_000_000);
        let before = (index.entries.as_ptr(), index.table.as_ptr());
        for number in 0..1_000_000u64 {
            let mut content = [0; 32];
            content[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
            index.push(&content, [0; 8], State::Unchecked);
        }
        assert_eq!(index.len(), 1_000_000);
        // Neither has moved, and neither holds a pointer.
        assert_eq!((index.entries.as_ptr(), index.table.as_ptr()), before);
        assert!(size_of::<Entry>() == 25 && index.table.len() == 1 << 21);
    }
}
