//! Checkpoints: written, read, verified and pruned. A checkpoint directory gets its final name only when it is complete
//! and on the disk.
//!
//! Protocol: write and sync each file in `step-N.tmp-XXXXXX/`; write `manifest.json` with the size and the BLAKE3 hash
//! of each, and a checksum of its own; sync the directory; rename it to `step-N/`; sync the parent; delete older
//! checkpoints. A kill at any moment leaves either no `step-N/` or a complete one. Loading verifies every hash.
//!
//! What goes into the tensors is decided by their owners, `optim` and `training`.
//!
//! - this file: the types, saving and loading
//! - `finite`: values that are NaN or infinite
//! - `manifest`: the file that lists the others
//! - `pair_counts`: how many pairs a run trains on
//! - `reading`: verified reading of each file
//! - `retention`: which checkpoints stay on the disk, and deleting the others
//! - `tensors`: tensors as bytes of a safetensors file
//! - `tower_forms`: what determines the outputs of a model beside its weights
//! - `writing`: files that are hashed while they are written

pub(crate) mod finite;
pub(crate) mod manifest;
pub(crate) mod pair_counts;
mod reading;
pub(crate) mod retention;
pub(crate) mod tensors;
#[cfg(test)]
mod tests;
pub(crate) mod tower_forms;
mod writing;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dualenc_model::HostTensor;

use crate::config::{ConfigError, RunConfig};
use crate::error::TrainError;
use crate::optim::state_tensor::StateTensor;
use crate::run_dir::atomic_file::sync_parent;
use crate::run_dir::checkpoint::manifest::{FileEntry, MANIFEST, Manifest, Progress, name_of};
use crate::run_dir::checkpoint::reading::{read_file, read_tensors, read_text, read_verified};
use crate::run_dir::checkpoint::retention::{Retention, discard, list, prune};
use crate::run_dir::checkpoint::tensors::TensorFile;
use crate::run_dir::checkpoint::tower_forms::TowerForms;
use crate::run_dir::checkpoint::writing::{write_bytes, write_tensors};
use crate::run_dir::fail_point::fail_point;

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
/// Only in runs that average their weights.
const EMA: &str = "ema.safetensors";
const CONFIG: &str = "config.toml";

/// Everything needed to resume a run.
#[derive(Debug)]
pub struct Checkpoint {
    /// Directory of the checkpoint.
    pub path: PathBuf,
    /// Counters and fingerprints.
    pub progress: Progress,
    /// The run's config as TOML.
    pub config: String,
    /// The trainable parameters after the last update, by path.
    pub model: BTreeMap<String, HostTensor>,
    /// The averages of the parameters that were updated, in a run that averages its weights.
    pub ema: Option<BTreeMap<String, HostTensor>>,
    /// What the manifest says of the optimiser's state, which is read only when a run is resumed.
    optimizer: FileEntry,
}

/// A checkpoint that was written.
#[derive(Debug)]
pub struct Saved {
    /// Its directory.
    pub path: PathBuf,
    /// Why an older checkpoint could not be deleted, if so. It is deleted after a later save.
    pub not_pruned: Option<TrainError>,
}

/// The newest checkpoint that can be used.
#[derive(Debug)]
pub struct Newest {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Why each newer one cannot be used.
    pub damaged: Vec<TrainError>,
}

/// The tensors to write into a checkpoint.
#[derive(Debug, Default)]
pub struct Tensors<'a> {
    /// The trainable parameters, by path.
    pub model: BTreeMap<String, StateTensor<'a>>,
    /// The optimiser's state, by path and array name.
    pub optimizer: BTreeMap<String, StateTensor<'a>>,
    /// The averages, in a run that averages its weights.
    pub ema: Option<BTreeMap<String, StateTensor<'a>>>,
}

/// Directory of the checkpoint of `step` in `dir`.
pub fn path_of(dir: &Path, step: u64) -> PathBuf {
    dir.join(name_of(step))
}

/// Writes the checkpoint of `progress.step` into `dir`, then deletes the checkpoints that `retention` does not keep,
/// unless it is a rescue. The process must hold the run's lock.
///
/// # Errors
/// [`TrainError::SpoiledWeights`] when a value is not finite; [`TrainError::Write`] when a file cannot be written;
/// [`TrainError::Checkpoint`] when the tensors cannot be serialised; [`TrainError::Model`] when the device cannot
/// return its data. Checkpoints of other steps are left alone then.
pub fn save(
    dir: &Path,
    progress: &Progress,
    config: &str,
    tensors: Tensors<'_>,
    retention: Retention,
) -> Result<Saved, TrainError> {
    let target = path_of(dir, progress.step);
    let temporary = retention::temporary_dir(dir, progress.step)?;
    write_files(temporary.path(), progress, config, tensors)?;
    fail_point("before_rename");
    if target.exists() {
        // A resumed run reaches a step again if the checkpoint of that step was found damaged.
        discard(&target)?;
    }
    fs::rename(temporary.path(), &target).map_err(TrainError::write(&target))?;
    // It no longer exists under its temporary name.
    let _ = temporary.keep();
    sync_parent(&target)?;
    fail_point("after_rename");
    let pruned = if progress.is_rescue { Ok(()) } else { prune(dir, progress.step, retention) };
    Ok(Saved { path: target, not_pruned: pruned.err() })
}

fn write_files(dir: &Path, progress: &Progress, config: &str, tensors: Tensors<'_>) -> Result<(), TrainError> {
    let mut files = BTreeMap::new();
    let mut write = |name: &str, tensors: BTreeMap<String, StateTensor<'_>>| {
        files.insert(name.to_owned(), write_tensors(dir, name, progress.step, &TensorFile::new(tensors, dir)?)?);
        Ok::<(), TrainError>(())
    };
    write(MODEL, tensors.model)?;
    write(OPTIMIZER, tensors.optimizer)?;
    if let Some(ema) = tensors.ema {
        write(EMA, ema)?;
    }
    files.insert(CONFIG.to_owned(), write_bytes(dir, CONFIG, config.as_bytes())?);
    let manifest = Manifest::new(progress.clone(), files).to_text()?;
    write_bytes(dir, MANIFEST, manifest.as_bytes())?;
    // The directory's entries must be on the disk before its final name appears.
    sync_parent(&dir.join(MANIFEST))
}

/// Loads the newest checkpoint in `dir` that is not damaged; `None`: there is no checkpoint.
///
/// # Errors
/// - [`TrainError::NoValidCheckpoint`] when there are checkpoints and all are damaged.
/// - [`TrainError::NewerFormat`] when a checkpoint was written by a newer version of the program.
/// - [`TrainError::Read`] when the disk cannot be read.
pub fn newest_valid(dir: &Path) -> Result<Option<Newest>, TrainError> {
    let mut damaged = Vec::new();
    for (_, path) in list(dir)?.into_iter().rev() {
        match load(&path) {
            Ok(checkpoint) => return Ok(Some(Newest { checkpoint, damaged })),
            Err(error @ TrainError::Checkpoint { .. }) => damaged.push(error),
            Err(error) => return Err(error),
        }
    }
    if damaged.is_empty() {
        return Ok(None);
    }
    let problems = damaged.iter().map(ToString::to_string).collect();
    Err(TrainError::NoValidCheckpoint { dir: dir.to_owned(), problems })
}

/// Loads the checkpoint at `path` and verifies its files.
///
/// # Errors
/// - [`TrainError::Checkpoint`] when a file is missing or damaged, or a weight is not finite.
/// - [`TrainError::NewerFormat`] when the checkpoint was written by a newer version of the program.
/// - [`TrainError::Read`] when the disk cannot be read.
pub fn load(path: &Path) -> Result<Checkpoint, TrainError> {
    let damaged = |problem: String| TrainError::Checkpoint { path: path.to_owned(), problem };
    let text = String::from_utf8(read_file(path, MANIFEST)?)
        .map_err(|error| damaged(format!("`{MANIFEST}` is damaged: {error}")))?;
    let Manifest { progress, files, .. } = Manifest::parse(&text, path)?;
    let entry = |name: &str| {
        files.get(name).ok_or_else(|| damaged(format!("`{MANIFEST}` is damaged: it does not list `{name}`")))
    };
    let optimizer = entry(OPTIMIZER)?.clone();
    read_verified(path, OPTIMIZER, &optimizer)?;
    Ok(Checkpoint {
        path: path.to_owned(),
        progress,
        config: read_text(path, CONFIG, entry(CONFIG)?)?,
        model: read_tensors(path, MODEL, entry(MODEL)?)?,
        ema: files.get(EMA).map(|entry| read_tensors(path, EMA, entry)).transpose()?,
        optimizer,
    })
}

impl Checkpoint {
    /// The trainable parameters for evaluation, by path: averaged, in a run that averages its weights.
    pub fn weights(&self) -> BTreeMap<String, HostTensor> {
        let mut weights = self.model.clone();
        weights.extend(self.ema.iter().flatten().map(|(path, average)| (path.clone(), average.clone())));
        weights
    }

    /// The run's config when the checkpoint was written.
    ///
    /// # Errors
    /// [`TrainError::Config`] when this version of the program does not accept it.
    pub fn run_config(&self) -> Result<RunConfig, TrainError> {
        let path = self.path.join(CONFIG);
        RunConfig::from_bytes(self.config.as_bytes(), &path, &self.path, &[])
            .map_err(|problems| ConfigError::Invalid { path, problems }.into())
    }

    /// Refuses a model of which towers compute otherwise, or read other inputs, than those that were trained.
    ///
    /// # Errors
    /// [`TrainError::TowersChanged`].
    pub(crate) fn refuse_other_towers(&self, found: &TowerForms) -> Result<(), TrainError> {
        match self.progress.towers.as_ref().and_then(|towers| found.difference(towers)) {
            Some(what) => Err(TrainError::TowersChanged { what, checkpoint: self.path.clone() }),
            None => Ok(()),
        }
    }

    /// Reads the optimiser's state, by path and array name.
    ///
    /// # Errors
    /// As for [`load`].
    pub fn optimizer(&self) -> Result<BTreeMap<String, HostTensor>, TrainError> {
        read_tensors(&self.path, OPTIMIZER, &self.optimizer)
    }
}
