//! The files of the feature cache. The store knows hashes and rows of numbers; it knows neither images nor texts.
//!
//! Each tower with its input processing has two files, named by the hash of both: `.index` has one record per row, and
//! `.values` has the rows. A row is written before its record, both while the index is locked, so a process killed at
//! any byte loses at most what it was writing. Complete rows are never moved, so several processes can fill one store.
//! Opening reads only the index. A row is found by the hash of its content: a changed input has no row, and an
//! unchanged one finds its row in every later run.
//!
//! - this file: the store: lookups, appends, reads, and repair after a crash.
//! - `index`: records on disk and the table in memory.
//! - `positioned_file`: reads and writes at an offset, on every platform.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dualenc_data::ContentHash;
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use crate::config::CacheDtype;
use crate::error::TrainError;
use crate::features::finite::first_not_finite;
use crate::features::store::index::{Checksum, FeatureIndex, RECORD_BYTES, Row, State, checksum, record_of};
use crate::features::store::positioned_file::{read_exact_at, write_all_at};

pub(crate) mod index;
mod positioned_file;
#[cfg(test)]
mod tests;

/// Part of every store's name. Raise it when the format of the files changes.
const FORMAT: &[u8] = b"dualenc features 2";

/// Most rows of a store: their numbers are 32 bits, and [`Row::MAX`] is none of them.
const MAX_ROWS: usize = Row::MAX as usize - 1;

/// Values that one thread reads sooner than more threads start: a millisecond's work.
const VALUES_OF_ONE_THREAD: usize = 1 << 20;

/// Features of one tower with one input processing.
#[derive(Debug)]
pub(crate) struct FeatureStore {
    width: usize,
    dtype: CacheDtype,
    max_rows: usize,
    /// `None`: the rows are in memory.
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

/// Rows on their way into a store.
#[derive(Default)]
struct NewRows {
    entries: Vec<(ContentHash, Checksum)>,
    rows: HashMap<ContentHash, Row>,
    /// As in the file.
    values: Vec<u8>,
    /// The same, for a store without files.
    memory: Vec<f32>,
}

#[derive(Debug, Default)]
struct Contents {
    index: FeatureIndex,
    /// Rows of a store without files.
    memory: Vec<f32>,
}

impl FeatureStore {
    /// A store in memory. `width`: values per row.
    pub fn in_memory(width: usize) -> Self {
        Self { width, dtype: CacheDtype::F32, max_rows: MAX_ROWS, files: None, state: Mutex::default() }
    }

    /// Opens the store of `key` in `dir`, or creates it. Partial rows of a killed process are removed. `width`: values
    /// per row.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`].
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
            files.truncate_partial(&contents.index, width * dtype.bytes())?;
        }
        Ok(Self { width, dtype, max_rows: MAX_ROWS, files: Some(files), state: Mutex::new(contents) })
    }

    /// Values per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Size of the file of values in bytes, and its path; `None` in memory.
    pub fn size(&self) -> Option<(u64, &Path)> {
        let files = self.files.as_ref()?;
        let bytes = files.values.metadata().map_or(0, |metadata| metadata.len());
        Some((bytes, files.values_path.as_path()))
    }

    /// The row of a content. Each process verifies the checksum of a row once; a damaged row is not returned.
    pub fn find(&self, content: &ContentHash) -> Option<Row> {
        let (row, state) = self.contents().index.find(content)?;
        match state {
            State::Unchecked => self.check(row).then_some(row),
            State::Valid => Some(row),
            State::Invalid => None,
        }
    }

    /// Adds one row per content and returns the rows. A content that already has a row, also from another process,
    /// keeps it. After an error, nothing was added for this process. `features`: shape `[contents, width]`, flat,
    /// finite.
    ///
    /// # Errors
    /// [`TrainError::Write`] or [`TrainError::Read`]; [`TrainError::Usage`] when a value is too large for the store's
    /// dtype, or the store is full.
    pub fn insert(&self, contents: &[ContentHash], features: &[f32]) -> Result<Vec<Row>, TrainError> {
        let bytes = self.encode(contents.len(), features)?;
        let row_bytes = self.row_bytes();
        let mut state = self.contents();
        let _lock = self.files.as_ref().map(Files::lock).transpose()?;
        if let Some(files) = &self.files {
            files.catch_up(&mut state.index)?;
        }
        let first = state.index.len();
        let mut rows = Vec::with_capacity(contents.len());
        let mut new = NewRows::default();
        for (at, content) in contents.iter().enumerate() {
            let existing = match state.index.find(content) {
                Some((row, State::Unchecked)) => self.check_in(&mut state.index, row).then_some(row),
                Some((row, _)) => Some(row),
                None => new.rows.get(content).copied(),
            };
            rows.push(match existing {
                Some(row) => row,
                None => {
                    let row = self.row_number(first + new.entries.len())?;
                    let values = &bytes[at * row_bytes..][..row_bytes];
                    new.entries.push((*content, checksum(values)));
                    new.rows.insert(*content, row);
                    new.values.extend_from_slice(values);
                    if self.files.is_none() {
                        new.memory.extend_from_slice(&features[at * self.width..][..self.width]);
                    }
                    row
                }
            });
        }
        if let Some(files) = &self.files {
            files.append(first, &new, row_bytes)?;
        }
        // Only now: after a failed write, the index must not name rows that the file lacks.
        for (content, checksum) in &new.entries {
            state.index.push(content, *checksum, State::Valid);
        }
        state.memory.append(&mut new.memory);
        Ok(rows)
    }

    /// The number of the row at `place`.
    fn row_number(&self, place: usize) -> Result<Row, TrainError> {
        let row = (place < self.max_rows).then(|| Row::try_from(place).ok()).flatten();
        row.ok_or_else(|| {
            let files =
                self.files.as_ref().map_or("in memory".to_owned(), |files| files.index_path.display().to_string());
            TrainError::Usage(format!(
                "the feature cache `{files}` is full: it holds at most {} rows; choose another `cache.dir`",
                self.max_rows
            ))
        })
    }

    /// The error about rows that were lost again right after they were written.
    pub fn lost_while_read(&self) -> TrainError {
        match &self.files {
            Some(files) => {
                let reason = "it was truncated while it was being read; run again";
                TrainError::read(&files.values_path)(std::io::Error::other(reason))
            }
            None => TrainError::Internal("a row of a feature store in memory cannot be read".to_owned()),
        }
    }

    /// Reads `rows` into `out`, shape `[rows, width]`. Returns the positions in `rows` of those that cannot be read any
    /// more, which [`FeatureStore::find`] does not return from now on.
    ///
    /// The reads do not go through a memory map: reading the map of a file that was truncated raises SIGBUS.
    pub fn read(&self, rows: &[Row], out: &mut [f32]) -> Vec<usize> {
        let read = |scratch: &mut Vec<f16>, at: usize, out: &mut [f32]| {
            let is_lost = self.read_row(rows[at], out, scratch).is_err();
            if is_lost {
                self.contents().index.mark(rows[at], State::Invalid);
            }
            is_lost.then_some(at)
        };
        // On all cores if it is much: rows of all tokens of an image.
        if self.files.is_none() || rows.len() * self.width < VALUES_OF_ONE_THREAD {
            let (mut scratch, out) = (Vec::new(), out.chunks_exact_mut(self.width).enumerate());
            return out.take(rows.len()).filter_map(|(at, out)| read(&mut scratch, at, out)).collect();
        }
        let out = out.par_chunks_exact_mut(self.width).take(rows.len()).enumerate();
        out.map_init(Vec::new, |scratch, (at, out)| read(scratch, at, out)).flatten().collect()
    }

    fn read_row(&self, row: Row, out: &mut [f32], scratch: &mut Vec<f16>) -> std::io::Result<()> {
        let Some(files) = &self.files else {
            out.copy_from_slice(&self.contents().memory[row as usize * self.width..][..self.width]);
            return Ok(());
        };
        let at = u64::from(row) * self.row_bytes() as u64;
        match self.dtype {
            CacheDtype::F32 => {
                read_exact_at(&files.values, bytemuck::cast_slice_mut(out), at)?;
                out.iter_mut().for_each(|value| *value = f32::from_bits(u32::from_le(value.to_bits())));
            }
            CacheDtype::F16 => {
                scratch.resize(self.width, f16::ZERO);
                read_exact_at(&files.values, bytemuck::cast_slice_mut(scratch), at)?;
                scratch.iter_mut().for_each(|value| *value = f16::from_bits(u16::from_le(value.to_bits())));
                scratch.convert_to_f32_slice(out);
            }
        }
        Ok(())
    }

    /// Verifies the checksum of a row, and records the result.
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
        let read = read_exact_at(&files.values, &mut bytes, u64::from(row) * self.row_bytes() as u64);
        let is_valid = read.is_ok() && expected == Some(checksum(&bytes)) && self.is_finite(&bytes);
        if is_valid { State::Valid } else { State::Invalid }
    }

    /// Whether the values of a row in the file are finite. Older versions also stored others.
    fn is_finite(&self, row: &[u8]) -> bool {
        match self.dtype {
            CacheDtype::F32 => row.as_chunks().0.iter().all(|bytes| f32::from_le_bytes(*bytes).is_finite()),
            CacheDtype::F16 => row.as_chunks().0.iter().all(|bytes| f16::from_le_bytes(*bytes).is_finite()),
        }
    }

    /// The values as bytes of the file.
    fn encode(&self, rows: usize, features: &[f32]) -> Result<Vec<u8>, TrainError> {
        if features.len() != rows * self.width {
            return Err(TrainError::Internal(format!(
                "{} values for {rows} features of width {}",
                features.len(),
                self.width
            )));
        }
        if let Some((row, value)) = first_not_finite(features, self.width) {
            // Whoever computes features names the input; see `check_outputs`.
            return Err(TrainError::Internal(format!(
                "feature {row} of {rows} holds {value} on its way into the cache"
            )));
        }
        if self.dtype == CacheDtype::F32 {
            return Ok(features.iter().flat_map(|value| value.to_le_bytes()).collect());
        }
        let mut halves = vec![f16::ZERO; features.len()];
        halves.convert_from_f32_slice(features);
        match features.iter().zip(&halves).find(|(_, half)| !half.is_finite()) {
            Some((value, _)) => Err(TrainError::Usage(format!(
                "a feature has the value {value}, but `cache.dtype = \"f16\"` ends at {}; set `cache.dtype = \"f32\"`",
                f16::MAX
            ))),
            None => Ok(halves.iter().flat_map(|value| value.to_le_bytes()).collect()),
        }
    }

    /// Bytes of a row in the file of values.
    pub fn row_bytes(&self) -> usize {
        self.width * self.dtype.bytes()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // A panic in another thread leaves at most rows without a record in the file.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps other processes out of the index until it is dropped.
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

    /// Writes `new` as the rows from `first` on: values before records.
    fn append(&self, first: usize, new: &NewRows, row_bytes: usize) -> Result<(), TrainError> {
        let records = new.entries.iter().enumerate();
        let records: Vec<u8> = records
            .flat_map(|(at, (content, checksum))| record_of(content, *checksum, first + at, &self.key))
            .collect();
        let write = |file: &File, path: &Path, bytes: &[u8], size: usize| {
            write_all_at(file, bytes, first as u64 * size as u64).map_err(TrainError::write(path))
        };
        write(&self.values, &self.values_path, &new.values, row_bytes)?;
        write(&self.index, &self.index_path, &records, RECORD_BYTES)
    }

    /// Reads the records that the file has and `known` lacks: all of them, or those that other processes have added.
    fn catch_up(&self, known: &mut FeatureIndex) -> Result<(), TrainError> {
        let failed = TrainError::read(&self.index_path);
        let mut read = || {
            let records = self.index.metadata()?.len() / RECORD_BYTES as u64;
            let new = (records as usize).saturating_sub(known.len());
            if new == 0 {
                return Ok(());
            }
            // Row numbers are 32 bits: a longer file is not an index.
            if records > MAX_ROWS as u64 {
                return Err(std::io::Error::other(format!("found {records} records, expected at most {MAX_ROWS}")));
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
        read().map_err(failed)
    }

    /// Removes a partial record, and rows without a record.
    fn truncate_partial(&self, index: &FeatureIndex, row_bytes: usize) -> Result<(), TrainError> {
        let truncate = |file: &File, path: &Path, len: usize| {
            let is_longer = file.metadata().map(|metadata| metadata.len() > len as u64);
            let truncated = is_longer.and_then(|is_longer| if is_longer { file.set_len(len as u64) } else { Ok(()) });
            truncated.map_err(TrainError::write(path))
        };
        truncate(&self.index, &self.index_path, index.len() * RECORD_BYTES)?;
        truncate(&self.values, &self.values_path, index.len() * row_bytes)
    }
}
