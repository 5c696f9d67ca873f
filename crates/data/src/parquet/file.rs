//! Reads parts of a file, again after an error that may pass.

use std::io::Error;
use std::path::Path;
use std::sync::Arc;

use crate::error::DataError;
use crate::files;
use crate::images::disk::read_entry;

/// Why a part of a file cannot be used.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The system cannot read it.
    Disk(Error),
    /// What is wrong with it.
    Malformed(String),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Malformed(reason)
    }
}

impl Fault {
    /// The error about the file at `path`.
    pub(crate) fn at(self, path: &Path) -> DataError {
        match self {
            Self::Disk(source) => DataError::Read { path: path.to_owned(), source },
            Self::Malformed(reason) => DataError::Malformed { path: path.to_owned(), reason },
        }
    }
}

/// A file of known length. It is opened for each read, so that any number of files can be in use.
#[derive(Clone, Debug)]
pub(crate) struct ParquetFile {
    path: Arc<Path>,
    len: u64,
}

impl ParquetFile {
    /// # Errors
    /// [`DataError::NotAFile`], [`DataError::Read`]; [`DataError::Malformed`] in a program without the feature
    /// `parquet`.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        if !cfg!(feature = "parquet") {
            let reason = "this program was built without parquet; build it with `--features parquet`".to_owned();
            return Err(DataError::Malformed { path: path.to_owned(), reason });
        }
        let metadata = match files::metadata(path)? {
            Some(metadata) => metadata,
            None => std::fs::metadata(path).map_err(DataError::read(path))?,
        };
        if !metadata.is_file() {
            return Err(DataError::NotAFile { path: path.to_owned() });
        }
        Ok(Self { path: Arc::from(path), len: metadata.len() })
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Reads `len` bytes at `at`.
    pub(crate) fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, Fault> {
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Fault::Malformed(
                "a page goes past the end of the file; download or write it again".to_owned(),
            ));
        }
        read_entry(&self.path, at, len).map_err(Fault::Disk)
    }
}
