//! Reading the files of a checkpoint: damage is distinguished from a disk that cannot be read at the moment.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use dualenc_model::HostTensor;

use crate::error::TrainError;
use crate::run_dir::checkpoint::manifest::FileEntry;
use crate::run_dir::checkpoint::tensors::deserialize;

/// Reads a file of the checkpoint at `dir`.
///
/// # Errors
/// [`TrainError::Checkpoint`] when it is missing or not a file: the checkpoint is damaged. [`TrainError::Read`] when
/// the system fails to read it: that says nothing about the checkpoint.
pub(super) fn read_file(dir: &Path, name: &str) -> Result<Vec<u8>, TrainError> {
    let path = dir.join(name);
    fs::read(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
            TrainError::Checkpoint {
                path: dir.to_owned(),
                problem: format!("`{name}` is missing or not a file: {source}"),
            }
        }
        _ => TrainError::Read { path, source },
    })
}

/// Reads a file and compares it with its entry in the manifest.
///
/// # Errors
/// Those of [`read_file`]; [`TrainError::Checkpoint`] when size or hash differ.
pub(super) fn read_verified(dir: &Path, name: &str, entry: &FileEntry) -> Result<Vec<u8>, TrainError> {
    let bytes = read_file(dir, name)?;
    match entry.difference(&FileEntry::of(&bytes)) {
        None => Ok(bytes),
        Some(difference) => Err(damaged(dir, name, &difference)),
    }
}

/// Reads a safetensors file, by name of the tensor.
///
/// # Errors
/// Those of [`read_verified`]; [`TrainError::Checkpoint`] when the file is no safetensors file, or a value is NaN or
/// infinite.
pub(super) fn read_tensors(
    dir: &Path,
    name: &str,
    entry: &FileEntry,
) -> Result<BTreeMap<String, HostTensor>, TrainError> {
    let bytes = read_verified(dir, name, entry)?;
    deserialize(&bytes).map_err(|problem| damaged(dir, name, &problem))
}

/// Reads a text file.
///
/// # Errors
/// Those of [`read_verified`]; [`TrainError::Checkpoint`] when it is not UTF-8.
pub(super) fn read_text(dir: &Path, name: &str, entry: &FileEntry) -> Result<String, TrainError> {
    String::from_utf8(read_verified(dir, name, entry)?).map_err(|error| damaged(dir, name, &error.to_string()))
}

fn damaged(dir: &Path, name: &str, problem: &str) -> TrainError {
    TrainError::Checkpoint { path: dir.to_owned(), problem: format!("`{name}` is damaged: {problem}") }
}
