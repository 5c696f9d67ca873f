//! The feature cache: what a locked tower gave for an input, kept under the hash of everything it depends on.
//!
//! Two files a (tower, processing), named by their hash: `.index`, a record a row, and `.values`, the rows. A row is written
//! before its record, both while the index is locked, so a kill at any byte costs at most what was being written; nothing
//! that was written whole is ever moved, so that several processes may fill one store. Opening reads the index alone. A row
//! is found by the hash of its content: a changed input has none, an unchanged one has it in every later run.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dualenc_data::ContentHash;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::config::CacheDtype;
use crate::error::TrainError;
use crate::features::store_index::{FeatureIndex, RECORD_BYTES, Row, State, checksum};

/// Part of every store's name: raised when the files change their form.
const FORMAT: &[u8] = b"dualenc features 2";

/// Features of one tower under one processing.
#[derive(Debug)]
pub(crate) struct FeatureStore {
    width: usize,
    dtype: CacheDtype,
    /// `None`: the rows are kept in memory and forgotten with the store.
    files: Option<Files>,
    state: Mutex<Contents>,
}

#[derive(Debug)]
struct Files {
    key: blake3::Hash,
    index_path: PathBuf,
    values_path: PathBuf,
    index: File,
    values: File,
}

#[derive(Debug, Default)]
struct Contents {
    index: FeatureIndex,
    /// Rows of a store without files.
    memory: Vec<f32>,
}

impl FeatureStore {
    /// A store that ends with the process.
    pub fn in_memory(width: usize) -> Self {
        Self { width, dtype: CacheDtype::F32, files: None, state: Mutex::default() }
    }

    /// Opens the store of `key` in `dir`, or begins it. What was torn is cut off and will be computed again.
    ///
    /// # Errors
    /// When the files cannot be read or written.
    pub fn open(dir: &Path, key: &blake3::Hash, width: usize, dtype: CacheDtype) -> Result<Self, TrainError> {
        fs::create_dir_all(dir).map_err(TrainError::write(dir))?;
        let mut name = blake3::Hasher::new();
        name.update(FORMAT).update(key.as_bytes()).update(&(width as u64).to_le_bytes());
        name.update(dtype.name().as_bytes());
        let key = name.finalize();
        let path = |extension| dir.join(format!("{}.{extension}", &key.to_hex()[..32]));
        let open = |path: &Path| {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            file.map_err(TrainError::write(path))
        };
        let (index_path, values_path) = (path("index"), path("values"));
        let (index, values) = (open(&index_path)?, open(&values_path)?);
        let files = Files { key, index_path, values_path, index, values };
        let mut contents = Contents::default();
        {
            let _lock = files.lock()?;
            files.catch_up(&mut contents.index)?;
            files.cut_torn(&contents.index, width * dtype.bytes())?;
        }
        Ok(Self { width, dtype, files: Some(files), state: Mutex::new(contents) })
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes of the values file, and where it is.
    pub fn size(&self) -> Option<(u64, &Path)> {
        let files = self.files.as_ref()?;
        let bytes = files.values.metadata().map_or(0, |metadata| metadata.len());
        Some((bytes, files.values_path.as_path()))
    }

    /// The row of a content. Its values are compared with their checksum once in a process; a row that is not what was
    /// written does not count.
    pub fn find(&self, content: &ContentHash) -> Option<Row> {
        let (row, state) = self.contents().index.find(content)?;
        match state {
            State::Unchecked => self.check(row).then_some(row),
            State::Valid => Some(row),
            State::Invalid => None,
        }
    }

    /// Keeps rows: `features` `[contents, width]`, flat. Gives the number of each; a content that is kept already, by
    /// another process too, keeps its row.
    ///
    /// # Errors
    /// When the files cannot be written, or a value is too large for the store's dtype.
    pub fn insert(&self, contents: &[ContentHash], features: &[f32]) -> Result<Vec<Row>, TrainError> {
        let bytes = self.encode(features)?;
        let row_bytes = self.row_bytes();
        let mut state = self.contents();
        let _lock = self.files.as_ref().map(Files::lock).transpose()?;
        if let Some(files) = &self.files {
            files.catch_up(&mut state.index)?;
        }
        let first = state.index.len();
        let mut new = Vec::new();
        let mut rows = Vec::with_capacity(contents.len());
        for (at, content) in contents.iter().enumerate() {
            let kept = match state.index.find(content) {
                Some((row, State::Unchecked)) => self.check_in(&mut state.index, row).then_some(row),
                Some((row, _)) => Some(row),
                None => None,
            };
            rows.push(match kept {
                Some(row) => row,
                None => {
                    let row = &bytes[at * row_bytes..][..row_bytes];
                    new.extend_from_slice(row);
                    if self.files.is_none() {
                        state.memory.extend_from_slice(&features[at * self.width..][..self.width]);
                    }
                    state.index.push(content, checksum(row), State::Valid)
                }
            });
        }
        if let Some(files) = &self.files {
            let records: Vec<u8> =
                (first..state.index.len()).flat_map(|row| state.index.record(row as Row, &files.key)).collect();
            let append = |file: &File, path: &Path, bytes: &[u8], size: usize| {
                file.write_all_at(bytes, first as u64 * size as u64).map_err(TrainError::write(path))
            };
            append(&files.values, &files.values_path, &new, row_bytes)?;
            append(&files.index, &files.index_path, &records, RECORD_BYTES)?;
        }
        Ok(rows)
    }

    /// Reads `rows` into `out` `[rows, width]`. Gives the places of those that cannot be read any more; they do not count
    /// from now on.
    ///
    /// By positioned reads and not through a memory map: a file that someone cuts would end the process with SIGBUS.
    pub fn read(&self, rows: &[Row], out: &mut [f32]) -> Vec<usize> {
        let mut scratch = Vec::new();
        let mut lost = Vec::new();
        for (at, (&row, out)) in rows.iter().zip(out.chunks_exact_mut(self.width)).enumerate() {
            if self.read_row(row, out, &mut scratch).is_err() {
                self.contents().index.mark(row, State::Invalid);
                lost.push(at);
            }
        }
        lost
    }

    fn read_row(&self, row: Row, out: &mut [f32], scratch: &mut Vec<f16>) -> std::io::Result<()> {
        let Some(files) = &self.files else {
            out.copy_from_slice(&self.contents().memory[row as usize * self.width..][..self.width]);
            return Ok(());
        };
        let at = u64::from(row) * self.row_bytes() as u64;
        match self.dtype {
            CacheDtype::F32 => {
                files.values.read_exact_at(bytemuck::cast_slice_mut(out), at)?;
                out.iter_mut().for_each(|value| *value = f32::from_bits(u32::from_le(value.to_bits())));
            }
            CacheDtype::F16 => {
                scratch.resize(self.width, f16::ZERO);
                files.values.read_exact_at(bytemuck::cast_slice_mut(scratch), at)?;
                scratch.iter_mut().for_each(|value| *value = f16::from_bits(u16::from_le(value.to_bits())));
                scratch.convert_to_f32_slice(out);
            }
        }
        Ok(())
    }

    /// Compares a row with its checksum, and remembers the outcome.
    fn check(&self, row: Row) -> bool {
        let expected = self.contents().index.checksum(row);
        let state = self.state_of(row, expected);
        self.contents().index.mark(row, state);
        state == State::Valid
    }

    fn check_in(&self, index: &mut FeatureIndex, row: Row) -> bool {
        let state = self.state_of(row, index.checksum(row));
        index.mark(row, state);
        state == State::Valid
    }

    fn state_of(&self, row: Row, expected: Option<[u8; 8]>) -> State {
        let Some(files) = &self.files else { return State::Valid };
        let mut bytes = vec![0; self.row_bytes()];
        let read = files.values.read_exact_at(&mut bytes, u64::from(row) * self.row_bytes() as u64);
        match read.is_ok() && expected == Some(checksum(&bytes)) {
            true => State::Valid,
            false => State::Invalid,
        }
    }

    /// The values as they stand in the file.
    fn encode(&self, features: &[f32]) -> Result<Vec<u8>, TrainError> {
        if self.dtype == CacheDtype::F32 {
            return Ok(features.iter().flat_map(|value| value.to_le_bytes()).collect());
        }
        let mut halves = vec![f16::ZERO; features.len()];
        halves.convert_from_f32_slice(features);
        match features.iter().zip(&halves).find(|(value, half)| value.is_finite() && !half.is_finite()) {
            Some((value, _)) => Err(TrainError::Usage(format!(
                "a feature has the value {value}, and `cache.dtype = \"f16\"` holds up to {}; write `cache.dtype = \"f32\"`",
                f16::MAX
            ))),
            None => Ok(halves.iter().flat_map(|value| value.to_le_bytes()).collect()),
        }
    }

    fn row_bytes(&self) -> usize {
        self.width * self.dtype.bytes()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // A panic while it is held leaves at most rows without a record in the file.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds the index against other processes.
struct IndexLock<'a>(&'a File);

impl Drop for IndexLock<'_> {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Files {
    fn lock(&self) -> Result<IndexLock<'_>, TrainError> {
        self.index.lock().map_err(TrainError::write(&self.index_path))?;
        Ok(IndexLock(&self.index))
    }

    /// Takes in the records that the index has and `known` has not: all of them, or those of other processes.
    fn catch_up(&self, known: &mut FeatureIndex) -> Result<(), TrainError> {
        let failed = TrainError::read(&self.index_path);
        let read = || {
            let whole = self.index.metadata()?.len() / RECORD_BYTES as u64;
            let new = (whole as usize).saturating_sub(known.len());
            if new == 0 {
                return Ok(());
            }
            // The rows of these records follow one another without end only in a file that is no index.
            if whole >= u64::from(Row::MAX) {
                return Err(std::io::Error::other(format!("it has {whole} records, the most is {}", Row::MAX - 1)));
            }
            known.reserve(new);
            (&self.index).seek(SeekFrom::Start((known.len() * RECORD_BYTES) as u64))?;
            let mut reader = BufReader::with_capacity(RECORD_BYTES << 15, &self.index);
            let mut record = [0; RECORD_BYTES];
            for _ in 0..new {
                reader.read_exact(&mut record)?;
                known.push_record(&record, &self.key);
            }
            Ok(())
        };
        let mut read = read;
        read().map_err(failed)
    }

    /// Cuts off half a record, and rows that have none.
    fn cut_torn(&self, index: &FeatureIndex, row_bytes: usize) -> Result<(), TrainError> {
        let cut = |file: &File, path: &Path, whole: usize| {
            let cut = || match file.metadata()?.len() > whole as u64 {
                true => file.set_len(whole as u64),
                false => Ok(()),
            };
            cut().map_err(TrainError::write(path))
        };
        cut(&self.index, &self.index_path, index.len() * RECORD_BYTES)?;
        cut(&self.values, &self.values_path, index.len() * row_bytes)
    }
}

#[cfg(test)]
mod tests;
