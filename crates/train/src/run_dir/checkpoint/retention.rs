//! Which checkpoints stay on the disk, and how the others are deleted.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::TrainError;
use crate::run_dir::fail_point::fail_point;

/// Which checkpoints to keep: always the one just written, besides it the newest and the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Number of newest checkpoints, at least 1.
    pub keep: usize,
    /// Step of the best checkpoint, if there is one.
    pub best: Option<u64>,
}

/// The `step-N` directories in `dir` with their steps, in ascending order. They may be damaged.
pub fn list(dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok();
    let mut found: Vec<(u64, PathBuf)> =
        entries.filter_map(|entry| Some((step(&entry.path())?, entry.path()))).collect();
    found.sort();
    found
}

/// Removes unfinished and half-deleted checkpoints of a killed process.
///
/// # Errors
/// [`TrainError::Read`] when `dir` cannot be read, [`TrainError::Write`] when something in it cannot be removed.
pub fn clean(dir: &Path) -> Result<(), TrainError> {
    for entry in fs::read_dir(dir).map_err(TrainError::read(dir))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(".tmp-") || name.starts_with(".trash-") {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(TrainError::write(&path))?;
        }
    }
    Ok(())
}

/// Deletes the checkpoints that `retention` does not keep, once the checkpoint of `step` is written. Checkpoints of
/// later steps were found damaged and skipped on resume; they are not counted and never deleted.
pub(crate) fn prune(dir: &Path, step: u64, retention: Retention) -> Result<(), TrainError> {
    let mut valid = list(dir);
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
    let trash = path.with_file_name(format!(".trash-{name}"));
    let _ = fs::remove_dir_all(&trash);
    fs::rename(path, &trash).and_then(|()| fs::remove_dir_all(&trash)).map_err(TrainError::write(path))
}
