//! The feature cache: what a locked tower gave for an image, kept under the hash of everything it depends on.
//!
//! A file a (tower, processing) pair, named by their hash; records are appended and carry their own checksum, so that a
//! kill while it fills costs at most the last record. A record is found by the blake3 of the image's bytes: a changed
//! image has no entry, and an unchanged one has it in every later run, wherever the file lies.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::TrainError;

const MAGIC: &[u8; 16] = b"dualenc-feature1";

/// blake3 of the bytes that a feature was computed from.
pub(crate) type ContentHash = [u8; 32];

/// Bytes of a record's checksum: the start of the blake3 of what comes before it.
const CHECKSUM_BYTES: usize = 8;

/// Features of one tower under one processing, in memory and on disk.
#[derive(Debug)]
pub(crate) struct FeatureStore {
    path: PathBuf,
    width: usize,
    rows: HashMap<ContentHash, usize>,
    values: Vec<f32>,
}

impl FeatureStore {
    /// Opens the store of `key` in `dir`, or begins it. What was torn is cut off and will be computed again.
    pub fn open(dir: &Path, key: &blake3::Hash, width: usize) -> Result<Self, TrainError> {
        fs::create_dir_all(dir).map_err(TrainError::write(dir))?;
        let path = dir.join(format!("{}.features", &key.to_hex()[..32]));
        let mut store = Self { path, width, rows: HashMap::new(), values: Vec::new() };
        let mut file = store.locked_file()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(TrainError::read(&store.path))?;
        let valid = store.take_records(&bytes);
        if valid < bytes.len() || bytes.is_empty() {
            let reset = || {
                file.set_len(valid as u64)?;
                file.seek(SeekFrom::Start(valid as u64))?;
                if valid == 0 { file.write_all(&store.header()) } else { Ok(()) }
            };
            let mut reset = reset;
            reset().map_err(TrainError::write(&store.path))?;
        }
        Ok(store)
    }

    /// The feature of the content with this hash.
    pub fn get(&self, hash: &ContentHash) -> Option<&[f32]> {
        self.rows.get(hash).map(|row| &self.values[row * self.width..][..self.width])
    }

    /// All hashes that have a feature.
    pub fn hashes(&self) -> impl Iterator<Item = &ContentHash> {
        self.rows.keys()
    }

    /// Keeps features, in memory and on disk.
    pub fn insert(&mut self, entries: &[(ContentHash, Vec<f32>)]) -> Result<(), TrainError> {
        let mut bytes = Vec::with_capacity(entries.len() * self.record_bytes());
        for (hash, feature) in entries {
            let start = bytes.len();
            bytes.extend_from_slice(hash);
            bytes.extend(feature.iter().flat_map(|value| value.to_le_bytes()));
            let checksum = blake3::hash(&bytes[start..]);
            bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
            self.remember(*hash, feature.iter().copied());
        }
        let mut file = self.locked_file()?;
        file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(&bytes)).map_err(TrainError::write(&self.path))
    }

    /// The file, held against other processes until it is dropped.
    fn locked_file(&self) -> Result<File, TrainError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path);
        file.and_then(|file| file.lock().map(|()| file)).map_err(TrainError::write(&self.path))
    }

    fn header(&self) -> Vec<u8> {
        [MAGIC.as_slice(), &(self.width as u64).to_le_bytes()].concat()
    }

    fn record_bytes(&self) -> usize {
        size_of::<ContentHash>() + self.width * size_of::<f32>() + CHECKSUM_BYTES
    }

    /// Reads records up to the first that is not whole; gives the bytes they take.
    fn take_records(&mut self, bytes: &[u8]) -> usize {
        let header = self.header();
        if !bytes.starts_with(&header) {
            return 0;
        }
        let mut valid = header.len();
        for record in bytes[header.len()..].chunks_exact(self.record_bytes()) {
            let (content, checksum) = record.split_at(record.len() - CHECKSUM_BYTES);
            if &blake3::hash(content).as_bytes()[..CHECKSUM_BYTES] != checksum {
                break;
            }
            let (hash, feature) = content.split_at(size_of::<ContentHash>());
            if let Ok(hash) = hash.try_into() {
                self.remember(hash, feature.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
            }
            valid += record.len();
        }
        valid
    }

    fn remember(&mut self, hash: ContentHash, feature: impl Iterator<Item = f32>) {
        let row = self.values.len() / self.width.max(1);
        self.values.extend(feature);
        self.rows.insert(hash, row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u8) -> (ContentHash, Vec<f32>) {
        ([number; 32], vec![f32::from(number), 0.5, -1.0])
    }

    #[test]
    fn a_torn_or_flipped_record_is_computed_again_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let key = blake3::hash(b"tower and processing");
        let mut store = FeatureStore::open(dir.path(), &key, 3).unwrap();
        store.insert(&[entry(1), entry(2)]).unwrap();
        store.insert(&[entry(3)]).unwrap();
        let path = store.path.clone();
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let mut store = FeatureStore::open(dir.path(), &key, 3).unwrap();
            let kept = (1..=3).take_while(|&number| store.get(&entry(number).0).is_some()).count();
            assert_eq!(kept, end.saturating_sub(24) / 52, "cut at {end}");
            store.insert(&[entry(9)]).unwrap();
            let again = FeatureStore::open(dir.path(), &key, 3).unwrap();
            assert_eq!(again.get(&entry(9).0), Some(entry(9).1.as_slice()));
            assert_eq!(again.hashes().count(), kept + 1);
        }
        let mut flipped = whole.clone();
        flipped[24 + 52 + 40] ^= 1;
        fs::write(&path, flipped).unwrap();
        let store = FeatureStore::open(dir.path(), &key, 3).unwrap();
        assert_eq!(store.get(&entry(1).0), Some(entry(1).1.as_slice()));
        assert_eq!(store.get(&entry(2).0), None);
    }

    #[test]
    fn another_tower_or_processing_has_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = FeatureStore::open(dir.path(), &blake3::hash(b"a"), 3).unwrap();
        store.insert(&[entry(1)]).unwrap();
        assert!(FeatureStore::open(dir.path(), &blake3::hash(b"b"), 3).unwrap().get(&entry(1).0).is_none());
    }
}
