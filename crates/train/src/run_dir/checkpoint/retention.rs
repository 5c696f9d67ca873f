//! Which checkpoints stay on disk, and how the others go.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::TrainError;
use crate::run_dir::fail_point::fail_point;

/// What is kept when a new checkpoint stands: that one always, and with it the newest and the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How many of the newest, at least 1.
    pub keep: usize,
    /// The step of the best one, if one is called so.
    pub best: Option<u64>,
}

/// `step-N` directories of `dir`, by step.
pub fn list(dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok();
    let mut found: Vec<(u64, PathBuf)> =
        entries.filter_map(|entry| Some((step(&entry.path())?, entry.path()))).collect();
    found.sort();
    found
}

/// Removes what an earlier, killed process left behind.
///
/// # Errors
/// When it cannot be removed.
pub fn clean(dir: &Path) -> Result<(), TrainError> {
    for entry in fs::read_dir(dir).map_err(TrainError::read(dir))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(".tmp-") || name.starts_with(".trash-") {
            fs::remove_dir_all(entry.path()).map_err(TrainError::write(&entry.path()))?;
        }
    }
    Ok(())
}

/// Removes what `retention` does not keep once the checkpoint of `step` stands. Later ones are none of this run's: it went on
/// from before them because they were damaged. They neither count nor go.
pub(super) fn prune(dir: &Path, step: u64, retention: Retention) -> Result<(), TrainError> {
    let mut own = list(dir);
    own.retain(|(at, _)| *at <= step);
    let newest = own.len().saturating_sub(retention.keep.max(1));
    for (_, path) in own[..newest].iter().filter(|(at, _)| Some(*at) != retention.best) {
        discard(path)?;
        fail_point("while_pruning");
    }
    Ok(())
}

/// Takes a checkpoint's name away first, so that a kill cannot leave half of one under it.
pub(super) fn discard(path: &Path) -> Result<(), TrainError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let trash = path.with_file_name(format!(".trash-{name}"));
    let _ = fs::remove_dir_all(&trash);
    fs::rename(path, &trash).and_then(|()| fs::remove_dir_all(&trash)).map_err(TrainError::write(path))
}
