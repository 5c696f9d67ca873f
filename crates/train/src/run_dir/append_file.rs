//! A file that grows by whole pieces: a kill leaves at most the last one incomplete, and a full disk loses none.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::TrainError;
use crate::run_dir::atomic_file::is_still;

/// A file that is appended to.
///
/// A piece that cannot be written, as when the disk is full, waits in memory and is written before the next one.
#[derive(Debug)]
pub(crate) struct AppendFile {
    path: PathBuf,
    file: File,
    /// Bytes of the file that are complete pieces.
    complete: u64,
    /// Pieces that could not be written yet.
    waiting: Vec<u8>,
    /// Whether a part of a piece may follow the complete ones.
    is_torn: bool,
}

impl AppendFile {
    /// Opens the file at `path`, which may not exist yet.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(TrainError::write(path))?;
        let complete = file.metadata().map_err(TrainError::read(path))?.len();
        Ok(Self { path: path.to_owned(), file, complete, waiting: Vec::new(), is_torn: false })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether pieces wait to be written.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Appends a piece, after those that wait.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the file cannot be written; the piece waits then.
    pub fn append(&mut self, piece: &[u8]) -> Result<(), TrainError> {
        self.waiting.extend_from_slice(piece);
        self.write_waiting()
    }

    /// Writes the pieces that wait and syncs the file to the disk.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the disk fails; [`TrainError::LostFile`] when someone else deleted, replaced or
    /// changed the file.
    pub fn sync(&mut self) -> Result<(), TrainError> {
        self.write_waiting()?;
        let len = self.file.metadata().map_err(TrainError::write(&self.path))?.len();
        if len != self.complete || !is_still(&self.path, &self.file) {
            return Err(TrainError::LostFile { path: self.path.clone() });
        }
        self.file.sync_data().map_err(TrainError::write(&self.path))
    }

    /// Writes in one call, so that a kill can leave only the last piece incomplete.
    fn write_waiting(&mut self) -> Result<(), TrainError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if self.is_torn {
            self.file.set_len(self.complete).map_err(TrainError::write(&self.path))?;
        }
        self.is_torn = true;
        self.file.write_all(&self.waiting).map_err(TrainError::write(&self.path))?;
        self.is_torn = false;
        self.complete += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}
