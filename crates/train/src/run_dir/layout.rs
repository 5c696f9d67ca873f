//! The directory of a run: one owner at a time, and no run over another.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::TrainError;
use crate::run_dir::checkpoint;

/// A run directory held by this process until it is dropped.
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    /// Held, not read: the lock goes with it.
    _lock: File,
}

impl RunDir {
    /// Takes `root`, creating it if need be.
    ///
    /// # Errors
    /// When it cannot be written, when another process trains in it, or when it holds a run and `resume` is false.
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
        let step = checkpoint::list(&run.checkpoints()).last().map(|(step, _)| *step);
        // What stopped before its first step left nothing that could be lost.
        let started = step.is_some() || fs::metadata(run.metrics()).is_ok_and(|file| file.len() > 0);
        if started && !resume {
            let step = step.unwrap_or(0);
            return Err(TrainError::RunExists { dir: root.to_owned(), step });
        }
        fs::create_dir_all(run.checkpoints()).map_err(TrainError::write(&run.checkpoints()))?;
        Ok(run)
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `config.toml`, as resolved.
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

/// The checkpoints of the run in `root`.
pub(crate) fn checkpoints_of(root: &Path) -> PathBuf {
    root.join("checkpoints")
}
