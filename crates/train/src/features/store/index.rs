//! The index of a feature store, on disk and in memory: which row holds the feature of which content.
//!
//! On disk, the index has one record of 32 bytes per row. In memory, the same entries are one vector of 25 bytes each,
//! and `hashbrown`'s table maps names to row numbers at 5 bytes a slot: two allocations, however many entries there
//! are.

use dualenc_data::ContentHash;
use hashbrown::HashTable;

/// Bytes of a content's blake3 that name it. With 128 bits, two of ten million contents collide in one of 10^24 stores.
const NAME_BYTES: usize = 16;

/// Bytes of a row's blake3, and of a record's.
const CHECKSUM_BYTES: usize = 8;

/// Bytes of a record on disk: name, checksum of the row, checksum of the record.
pub(crate) const RECORD_BYTES: usize = NAME_BYTES + 2 * CHECKSUM_BYTES;

/// The number of a row.
pub(crate) type Row = u32;

/// The first bytes of a row's blake3.
pub(crate) type Checksum = [u8; CHECKSUM_BYTES];

type Name = [u8; NAME_BYTES];

/// The checksum of `bytes`.
pub(crate) fn checksum(bytes: &[u8]) -> Checksum {
    first_bytes(&blake3::hash(bytes))
}

fn first_bytes<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    let mut first = [0; N];
    first.copy_from_slice(&hash.as_bytes()[..N]);
    first
}

/// Whether the values of a row are what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// This process has not read them yet.
    Unchecked,
    Valid,
    /// The values or the record are damaged, or a value is not finite.
    Invalid,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    name: Name,
    checksum: Checksum,
    state: State,
}

/// Which row holds the feature of which content.
#[derive(Debug, Default)]
pub(crate) struct FeatureIndex {
    /// One entry per row.
    entries: Vec<Entry>,
    /// The newest row of each name, by the name's first bytes: a name is a hash itself.
    rows: HashTable<Row>,
}

impl FeatureIndex {
    /// Reserves memory for `more` rows.
    pub fn reserve(&mut self, more: usize) {
        let Self { entries, rows } = self;
        if entries.is_empty() {
            entries.reserve_exact(more);
        } else {
            // Grows by doubling, because other processes may add a few rows at a time, often.
            entries.reserve(more);
        }
        rows.reserve(more, |&row| hash_of(&entries[row as usize].name));
    }

    /// Number of rows, in any state.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The newest row of a content and its state, unless it is invalid.
    pub fn find(&self, content: &ContentHash) -> Option<(Row, State)> {
        let name = name_of(content);
        let row = *self.rows.find(hash_of(&name), |&row| self.entries[row as usize].name == name)?;
        let state = self.entries[row as usize].state;
        (state != State::Invalid).then_some((row, state))
    }

    /// The checksum that the values of a row must have.
    pub fn checksum(&self, row: Row) -> Option<Checksum> {
        self.entries.get(row as usize).map(|entry| entry.checksum)
    }

    /// Sets the state of a row.
    pub fn mark(&mut self, row: Row, state: State) {
        if let Some(entry) = self.entries.get_mut(row as usize) {
            entry.state = state;
        }
    }

    /// Adds the next row.
    pub fn push(&mut self, content: &ContentHash, checksum: Checksum, state: State) -> Row {
        self.add(Entry { name: name_of(content), checksum, state })
    }

    /// Adds the next row from its record. A damaged record makes an invalid row.
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

    /// Adds the next row. It replaces an older row of the same name, which this or another process found invalid.
    fn add(&mut self, entry: Entry) -> Row {
        let Self { entries, rows } = self;
        let row = entries.len() as Row;
        entries.push(entry);
        let is_same = |&row: &Row| entries[row as usize].name == entry.name;
        rows.entry(hash_of(&entry.name), is_same, |&row| hash_of(&entries[row as usize].name)).insert(row);
        row
    }
}

/// The record of the row of a content.
pub(crate) fn record_of(
    content: &ContentHash,
    checksum: Checksum,
    row: usize,
    key: &blake3::Hash,
) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..NAME_BYTES].copy_from_slice(&name_of(content));
    record[NAME_BYTES..NAME_BYTES + CHECKSUM_BYTES].copy_from_slice(&checksum);
    let own = record_checksum(&record[..NAME_BYTES + CHECKSUM_BYTES], row, key);
    record[NAME_BYTES + CHECKSUM_BYTES..].copy_from_slice(&own);
    record
}

fn name_of(content: &ContentHash) -> Name {
    let mut name = [0; NAME_BYTES];
    name.copy_from_slice(&content[..NAME_BYTES]);
    name
}

fn hash_of(name: &Name) -> u64 {
    name.iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

/// Keyed with the store's key and the row's number: a record that was moved, or belongs to another store, is invalid.
fn record_checksum(content: &[u8], row: usize, key: &blake3::Hash) -> Checksum {
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(content).update(&(row as u64).to_le_bytes());
    first_bytes(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(number: u64) -> ContentHash {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    #[test]
    fn finds_the_newest_row() {
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
    fn record_rejects_other_row_or_store() {
        let key = blake3::hash(b"store");
        let record = record_of(&content(1), [3; 8], 0, &key);
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
    fn finds_each_of_many_entries() {
        const ENTRIES: u64 = 300_000;
        // Names that share the bytes of the table's hash in groups of three, and differ after them.
        let content = |number: u64| {
            let mut content = [0; 32];
            content[..8].copy_from_slice(&(number / 3).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
            content[8..16].copy_from_slice(&number.to_be_bytes());
            content
        };
        let check = |number: u64| number.to_le_bytes();
        let (mut grown, mut reserved) = (FeatureIndex::default(), FeatureIndex::default());
        reserved.reserve(ENTRIES as usize);
        for index in [&mut grown, &mut reserved] {
            (0..ENTRIES).for_each(|number| {
                index.push(&content(number), check(number), State::Unchecked);
            });
            // A newer row for every seventh.
            (0..ENTRIES).step_by(7).for_each(|number| {
                index.push(&content(number), check(number), State::Valid);
            });
            let mut next = ENTRIES as Row;
            for number in 0..ENTRIES {
                let expected = if number % 7 == 0 { (next, State::Valid) } else { (number as Row, State::Unchecked) };
                next += Row::from(number % 7 == 0);
                assert_eq!(index.find(&content(number)), Some(expected), "{number}");
                assert_eq!(index.checksum(expected.0), Some(check(number)), "{number}");
            }
            assert!((ENTRIES..2 * ENTRIES).all(|number| index.find(&content(number)).is_none()));
            assert_eq!(index.len(), next as usize);
        }
    }
}
