//! The files of a checkpoint, hashed while they are written: a tensor is in memory once more at most, and only where
//! its owner does not hold it in host memory.

use std::io::{self, Write};
use std::path::Path;

use dualenc_model::ModelError;

use crate::error::TrainError;
use crate::run_dir::atomic_file::write_synced;
use crate::run_dir::checkpoint::finite::check_finite;
use crate::run_dir::checkpoint::manifest::FileEntry;
use crate::run_dir::checkpoint::tensors::TensorFile;
use crate::run_dir::fail_point::fail_point;

/// Writes a safetensors file into the checkpoint of `step` at `dir`.
///
/// # Errors
/// [`TrainError::Write`] with the size of the file, since a full disk is the usual cause; [`TrainError::Model`] when
/// the device cannot return its data; [`TrainError::SpoiledWeights`] when a value is not finite.
pub(super) fn write_tensors(dir: &Path, name: &str, step: u64, file: &TensorFile<'_>) -> Result<FileEntry, TrainError> {
    write(dir, name, file.num_bytes(), |to| {
        to.put(file.header())?;
        file.each(|tensor| {
            check_finite(step, tensor.name, tensor.values)?;
            Ok(to.put(tensor.bytes)?)
        })
    })
}

/// Writes `bytes` as a file of the checkpoint at `dir`.
///
/// # Errors
/// [`TrainError::Write`] as for [`write_tensors`].
pub(super) fn write_bytes(dir: &Path, name: &str, bytes: &[u8]) -> Result<FileEntry, TrainError> {
    write(dir, name, bytes.len() as u64, |to| Ok(to.put(bytes)?))
}

/// Why a file is not written.
enum Failure {
    Disk(io::Error),
    Tensor(TrainError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Self::Tensor(error.into())
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        Self::Tensor(error)
    }
}

/// Writes the file `name` with `fill`, which puts `num_bytes` bytes, and syncs it to the disk.
fn write(
    dir: &Path,
    name: &str,
    num_bytes: u64,
    fill: impl FnOnce(&mut HashedFile<'_>) -> Result<(), Failure>,
) -> Result<FileEntry, TrainError> {
    let path = dir.join(name);
    fail_point(&format!("before_{name}"));
    let mut hasher = blake3::Hasher::new();
    let written = write_synced(&path, |file| {
        fill(&mut HashedFile { file, hasher: &mut hasher, until_half: num_bytes / 2, name })
    });
    match written {
        Ok(()) => Ok(FileEntry { bytes: hasher.count(), blake3: hasher.finalize().to_hex().to_string() }),
        Err(Failure::Tensor(error)) => Err(error),
        Err(Failure::Disk(error)) => {
            let with_size = format!("{error} (the file has {num_bytes} bytes)");
            Err(TrainError::write(&path)(io::Error::new(error.kind(), with_size)))
        }
    }
}

/// A file on its way to the disk.
struct HashedFile<'a> {
    file: &'a mut dyn Write,
    hasher: &'a mut blake3::Hasher,
    /// Bytes that are missing to the first half.
    until_half: u64,
    name: &'a str,
}

impl HashedFile<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update_rayon(bytes);
        match usize::try_from(self.until_half) {
            // A kill in the middle of a file is the hardest for who reads it.
            Ok(rest @ 1..) if rest <= bytes.len() => {
                self.until_half = 0;
                self.file.write_all(&bytes[..rest])?;
                fail_point(&format!("inside_{}", self.name));
                self.file.write_all(&bytes[rest..])
            }
            _ => {
                self.until_half = self.until_half.saturating_sub(bytes.len() as u64);
                self.file.write_all(bytes)
            }
        }
    }
}
