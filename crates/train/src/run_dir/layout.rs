//! Paths in a run directory, and the lock that gives it one owner at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::TrainError;
use crate::run_dir::atomic_file::{is_still, remove_leftovers};
use crate::run_dir::checkpoint::retention;
use crate::run_dir::metrics_log::last_step;
use crate::run_dir::tensorboard::event_file::TEMPORARY_NAME;

/// A run directory, locked for this process until dropped.
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    /// Dropping it releases the lock. It is not empty if the run has saved a checkpoint.
    lock: File,
    /// Whether checkpoints were saved, and their directory is empty or gone.
    lost_checkpoints: bool,
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
        refuse_config_of_user(root)?;
        fs::create_dir_all(root).map_err(unwritable)?;
        let lock_path = root.join("run.lock");
        let lock = OpenOptions::new().create(true).truncate(false).append(true).open(&lock_path).map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TrainError::RunInUse { dir: root.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(TrainError::Write { path: lock_path, source }),
        }
        let mut run = Self { root: root.to_owned(), lock, lost_checkpoints: false };
        let step = retention::list(&run.checkpoints())?.last().map(|(step, _)| *step);
        // A run that stopped before its first step has nothing to lose.
        let has_log = fs::metadata(run.metrics()).is_ok_and(|file| file.len() > 0);
        let started = step.is_some() || has_log;
        let has_saved = run.lock.metadata().map_err(unwritable)?.len() > 0;
        run.lost_checkpoints = has_log && step.is_none() && (has_saved || !run.checkpoints().exists());
        if started && !resume {
            let step = step.map_or_else(|| last_step(&run.metrics()), Ok)?;
            return Err(TrainError::RunExists { dir: root.to_owned(), step });
        }
        Ok(run)
    }

    /// Checks that the directory is still the one that was opened.
    ///
    /// # Errors
    /// [`TrainError::LostFile`] when it was deleted or moved.
    pub fn check_present(&self) -> Result<(), TrainError> {
        let path = self.root.join("run.lock");
        if is_still(&path, &self.lock) { Ok(()) } else { Err(TrainError::LostFile { path }) }
    }

    /// Whether the run has saved checkpoints, and none is there.
    pub fn has_lost_checkpoints(&self) -> bool {
        self.lost_checkpoints
    }

    /// Notes that the run has saved a checkpoint, so that an empty directory of checkpoints is not taken for the start
    /// of a run. A failure is ignored: the number of steps in the log mostly shows the same.
    pub fn note_saved(&mut self) {
        if self.lock.metadata().is_ok_and(|file| file.len() == 0) {
            let _ = self.lock.write_all(b"saved\n");
        }
    }

    /// Removes what a killed process left half-written, and creates what is missing.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when it cannot be found, removed or created.
    pub fn prepare(&self) -> Result<(), TrainError> {
        fs::create_dir_all(self.checkpoints()).map_err(TrainError::write(&self.checkpoints()))?;
        retention::clean(&self.checkpoints())?;
        remove_leftovers(&self.root, |target| {
            ["config.toml", "metrics.jsonl", "bad_samples.jsonl", TEMPORARY_NAME].contains(&target)
                || target.starts_with("not-finite-step-")
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

    /// `bad_samples.jsonl`.
    pub fn bad_samples(&self) -> PathBuf {
        self.root.join("bad_samples.jsonl")
    }

    /// `checkpoints/`.
    pub fn checkpoints(&self) -> PathBuf {
        checkpoints_of(&self.root)
    }
}

/// Refuses a directory with a `config.toml` that does not belong to a run: a run would overwrite it.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn refuse_config_of_user(root: &Path) -> Result<(), TrainError> {
    let config = root.join("config.toml");
    // A run has its lock before it writes its config. A copy of a run may have its checkpoints alone.
    let is_of_run = [root.join("run.lock"), metrics_of(root), checkpoints_of(root)].iter().any(|path| path.exists());
    if config.exists() && !is_of_run {
        return Err(TrainError::Usage(format!(
            "`{}` does not belong to a run, and a run would overwrite it; choose another `run.dir`",
            config.display()
        )));
    }
    Ok(())
}

/// `metrics.jsonl` of the run in `root`.
pub(crate) fn metrics_of(root: &Path) -> PathBuf {
    root.join("metrics.jsonl")
}

/// Whether there is something at `path`. In a directory that may not be read, the answer is an error.
///
/// # Errors
/// [`TrainError::Read`].
pub(crate) fn exists(path: &Path) -> Result<bool, TrainError> {
    match path.try_exists() {
        // A part of the path is a file.
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(false),
        found => found.map_err(TrainError::read(path)),
    }
}

/// `checkpoints/` of the run in `root`.
pub(crate) fn checkpoints_of(root: &Path) -> PathBuf {
    root.join("checkpoints")
}
