//! Paths in a run directory, and the lock that gives it one owner at a time.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::TrainError;
use crate::run_dir::atomic_file::remove_leftovers;
use crate::run_dir::checkpoint::retention;

/// A run directory, locked for this process until dropped.
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    /// Never read: dropping it releases the lock.
    _lock: File,
}

impl RunDir {
    /// Locks `root` and creates it if necessary. Nothing that an earlier process wrote is changed.
    ///
    /// # Errors
    /// - [`TrainError::RunUnwritable`] when the directory or its lock file cannot be created.
    /// - [`TrainError::RunInUse`] when another process holds the lock.
    /// - [`TrainError::RunExists`] when the directory holds a run and `resume` is false.
    /// - [`TrainError::Write`] or [`TrainError::Read`] when anything else in it cannot be written or read.
    pub fn open(root: &Path, resume: bool) -> Result<Self, TrainError> {
        let unwritable = |source| TrainError::RunUnwritable { dir: root.to_owned(), source };
        fs::create_dir_all(root).map_err(unwritable)?;
        let lock_path = root.join("run.lock");
        let lock = File::create(&lock_path).map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TrainError::RunInUse { dir: root.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(TrainError::Write { path: lock_path, source }),
        }
        let run = Self { root: root.to_owned(), _lock: lock };
        let step = retention::list(&run.checkpoints())?.last().map(|(step, _)| *step);
        // A run that stopped before its first step has nothing to lose.
        let started = step.is_some() || fs::metadata(run.metrics()).is_ok_and(|file| file.len() > 0);
        if started && !resume {
            let step = step.unwrap_or(0);
            return Err(TrainError::RunExists { dir: root.to_owned(), step });
        }
        fs::create_dir_all(run.checkpoints()).map_err(TrainError::write(&run.checkpoints()))?;
        Ok(run)
    }

    /// Removes what a killed process left half-written.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when it cannot be found or removed.
    pub fn clean(&self) -> Result<(), TrainError> {
        retention::clean(&self.checkpoints())?;
        remove_leftovers(&self.root, |target| {
            ["config.toml", "metrics.jsonl"].contains(&target) || target.starts_with("not-finite-step-")
        })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `config.toml`: the resolved config.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        metrics_of(&self.root)
    }

    /// `checkpoints/`.
    pub fn checkpoints(&self) -> PathBuf {
        checkpoints_of(&self.root)
    }
}

/// `metrics.jsonl` of the run in `root`.
pub(crate) fn metrics_of(root: &Path) -> PathBuf {
    root.join("metrics.jsonl")
}

/// `checkpoints/` of the run in `root`.
pub(crate) fn checkpoints_of(root: &Path) -> PathBuf {
    root.join("checkpoints")
}
