//! Which checkpoints stay on the disk, and how the others are deleted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::TrainError;
use crate::run_dir::checkpoint::manifest::{name_of, step_of};
use crate::run_dir::fail_point::fail_point;

/// Between the name of a checkpoint and the random end of its temporary name.
const TEMPORARY: &str = ".tmp-";

/// Before the name of a checkpoint that is being deleted.
const TRASH: &str = ".trash-";

/// Which checkpoints to keep: always the one just written, besides it the newest and the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Number of newest checkpoints, at least 1.
    pub keep: usize,
    /// Step of the best checkpoint, if there is one.
    pub best: Option<u64>,
}

/// The `step-N` directories in `dir` with their steps, in ascending order. They may be damaged. A missing `dir` is
/// empty.
///
/// # Errors
/// [`TrainError::Read`] when `dir` cannot be read.
pub fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let mut found = Vec::new();
    for path in entries(dir)? {
        found.extend(step_of(&path).map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}

/// The paths in `dir`; none if it does not exist.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(TrainError::read(dir))?,
    };
    entries.map(|entry| Ok(entry.map_err(TrainError::read(dir))?.path())).collect()
}

/// Creates the directory that becomes the checkpoint of `step`. It is removed when dropped. Its name is random, so that
/// processes on machines that share a disk cannot choose the same.
///
/// # Errors
/// [`TrainError::Write`] when it cannot be created.
pub(super) fn temporary_dir(dir: &Path, step: u64) -> Result<TempDir, TrainError> {
    let prefix = format!("{}{TEMPORARY}", name_of(step));
    tempfile::Builder::new().prefix(&prefix).tempdir_in(dir).map_err(TrainError::write(dir))
}

/// Removes unfinished and half-deleted checkpoints of a killed process.
///
/// # Errors
/// [`TrainError::Read`] when `dir` cannot be read, [`TrainError::Write`] when something in it cannot be removed.
pub fn clean(dir: &Path) -> Result<(), TrainError> {
    for path in entries(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.contains(TEMPORARY) || name.starts_with(TRASH) {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(TrainError::write(&path))?;
        }
    }
    Ok(())
}

/// Deletes the checkpoints that `retention` does not keep, once the checkpoint of `step` is written. Checkpoints of
/// later steps were found damaged and skipped on resume; they are not counted and never deleted.
pub(crate) fn prune(dir: &Path, step: u64, retention: Retention) -> Result<(), TrainError> {
    let mut valid = list(dir)?;
    valid.retain(|(at, _)| *at <= step);
    let first_kept = valid.len().saturating_sub(retention.keep.max(1));
    for (_, path) in valid[..first_kept].iter().filter(|(at, _)| Some(*at) != retention.best) {
        discard(path)?;
        fail_point("while_pruning");
    }
    Ok(())
}

/// Deletes a checkpoint. Renames it first, so that a kill cannot leave an incomplete one under its name.
pub(super) fn discard(path: &Path) -> Result<(), TrainError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let trash = path.with_file_name(format!("{TRASH}{name}"));
    let _ = fs::remove_dir_all(&trash);
    fs::rename(path, &trash).and_then(|()| fs::remove_dir_all(&trash)).map_err(TrainError::write(path))
}
