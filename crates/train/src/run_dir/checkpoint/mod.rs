//! Checkpoints: written, read, verified and pruned. A checkpoint directory gets its final name only when it is complete
//! and on the disk.
//!
//! Protocol: write and sync each file in `step-N.tmp-PID/`; write `manifest.json` with the size and the BLAKE3 hash of
//! each; sync the directory; rename it to `step-N/`; sync the parent; delete older checkpoints. A kill at any moment
//! leaves either no `step-N/` or a complete one. Loading verifies every hash.
//!
//! What goes into the tensors is decided by their owners, `optim` and `training`.
//!
//! - this file: the types, saving and loading
//! - `retention`: which checkpoints stay on the disk, and deleting the others
//! - `tensors`: tensors as bytes of a safetensors file

pub(crate) mod retention;
pub(crate) mod tensors;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dualenc_model::{HostTensor, read_safetensors};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::optim::state_tensor::StateTensor;
use crate::run_dir::atomic_file::{sync_parent, write_synced};
use crate::run_dir::checkpoint::retention::{Retention, discard, list, prune};
use crate::run_dir::checkpoint::tensors::serialize;
use crate::run_dir::fail_point::fail_point;

/// Version of the layout. Newer ones are refused.
const FORMAT: u32 = 1;

const MANIFEST: &str = "manifest.json";
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
/// Only in runs that average their weights.
const EMA: &str = "ema.safetensors";
const CONFIG: &str = "config.toml";

/// How far the run is, and fingerprints of what it was trained on. Part of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Updates so far.
    pub step: u64,
    /// Pairs seen so far.
    pub samples_seen: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Fingerprint of the training data.
    pub data: String,
    /// Fingerprint of the locked parameters.
    pub locked: String,
    /// CPU threads. A resumed run is bit-identical only with the same number.
    pub threads: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    #[serde(flatten)]
    progress: Progress,
    files: BTreeMap<String, FileEntry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileEntry {
    bytes: u64,
    blake3: String,
}

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
}

/// The tensors to write into a checkpoint.
#[derive(Debug, Default)]
pub struct Tensors<'a> {
    /// The trainable parameters, by path.
    pub model: BTreeMap<String, HostTensor>,
    /// The optimiser's state, by path and array name.
    pub optimizer: BTreeMap<String, StateTensor<'a>>,
    /// The averages, in a run that averages its weights.
    pub ema: Option<BTreeMap<String, StateTensor<'a>>>,
}

/// Directory of the checkpoint of `step` in `dir`.
pub fn path_of(dir: &Path, step: u64) -> PathBuf {
    dir.join(format!("step-{step:06}"))
}

/// Writes the checkpoint of `progress.step` into `dir`, then deletes the checkpoints that `retention` does not keep.
/// Returns the directory of the new checkpoint. The process must hold the run's lock.
///
/// # Errors
/// [`TrainError::Write`] when a file cannot be written; no older checkpoint is deleted then. [`TrainError::Checkpoint`]
/// when the tensors cannot be serialised.
pub fn save(
    dir: &Path,
    progress: &Progress,
    config: &str,
    tensors: Tensors<'_>,
    retention: Retention,
) -> Result<PathBuf, TrainError> {
    let target = path_of(dir, progress.step);
    let temporary = dir.join(format!("step-{:06}.tmp-{}", progress.step, std::process::id()));
    let written = write_files(&temporary, progress, config, tensors);
    if let Err(error) = written {
        let _ = fs::remove_dir_all(&temporary);
        return Err(error);
    }
    fail_point("before_rename");
    if target.exists() {
        // A resumed run reaches a step again if the checkpoint of that step was found damaged.
        discard(&target)?;
    }
    fs::rename(&temporary, &target).map_err(TrainError::write(&target))?;
    sync_parent(&target)?;
    fail_point("after_rename");
    prune(dir, progress.step, retention)?;
    Ok(target)
}

fn write_files(dir: &Path, progress: &Progress, config: &str, tensors: Tensors<'_>) -> Result<(), TrainError> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir(dir).map_err(TrainError::write(dir))?;
    let mut files = BTreeMap::new();
    let mut write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fail_point(&format!("before_{name}"));
        write_synced(&path, |file| {
            let half = bytes.len() / 2;
            file.write_all(&bytes[..half])?;
            fail_point(&format!("inside_{name}"));
            file.write_all(&bytes[half..])
        })
        .map_err(TrainError::write(&path))?;
        let entry = FileEntry { bytes: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() };
        files.insert(name.to_owned(), entry);
        Ok::<(), TrainError>(())
    };
    // One after the other, so that only one serialised file is in memory.
    write(MODEL, &serialize(tensors.model.into_iter().map(|(name, tensor)| (name, tensor.into())), dir)?)?;
    write(OPTIMIZER, &serialize(tensors.optimizer, dir)?)?;
    if let Some(ema) = tensors.ema {
        write(EMA, &serialize(ema, dir)?)?;
    }
    write(CONFIG, config.as_bytes())?;
    let manifest = Manifest { format: FORMAT, progress: progress.clone(), files };
    let path = dir.join(MANIFEST);
    fail_point("before_manifest");
    write_synced(&path, |file| serde_json::to_writer_pretty(file, &manifest).map_err(Into::into))
        .map_err(TrainError::write(&path))?;
    // The directory's entries must be on the disk before its final name appears.
    sync_parent(&path)
}

/// Loads the newest valid checkpoint in `dir`. Calls `on_invalid` with the error of each newer one that is damaged.
///
/// # Errors
/// [`TrainError::NewerFormat`] when a checkpoint was written by a newer version of the program.
pub fn newest_valid(dir: &Path, mut on_invalid: impl FnMut(&TrainError)) -> Result<Option<Checkpoint>, TrainError> {
    for (_, path) in list(dir).into_iter().rev() {
        match load(&path) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(error @ TrainError::NewerFormat { .. }) => return Err(error),
            Err(error) => on_invalid(&error),
        }
    }
    Ok(None)
}

/// Loads the checkpoint at `path` and verifies its files.
///
/// # Errors
/// - [`TrainError::Checkpoint`] when a file is missing, or its size or hash differs from the manifest.
/// - [`TrainError::NewerFormat`] when the checkpoint was written by a newer version of the program.
/// - [`TrainError::Model`] when a file holds no valid tensors in spite of its hash.
pub fn load(path: &Path) -> Result<Checkpoint, TrainError> {
    let invalid = |problem: String| TrainError::Checkpoint { path: path.to_owned(), problem };
    let text = fs::read_to_string(path.join(MANIFEST)).map_err(|error| invalid(format!("`{MANIFEST}`: {error}")))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| invalid(format!("`{MANIFEST}`: {error}")))?;
    if manifest.format > FORMAT {
        return Err(TrainError::NewerFormat { path: path.to_owned(), found: manifest.format, known: FORMAT });
    }
    let has_ema = manifest.files.contains_key(EMA);
    for name in [MODEL, OPTIMIZER, CONFIG].into_iter().chain(has_ema.then_some(EMA)) {
        let entry = manifest.files.get(name).ok_or_else(|| invalid(format!("`{MANIFEST}` does not list `{name}`")))?;
        let bytes = fs::read(path.join(name)).map_err(|error| invalid(format!("`{name}`: {error}")))?;
        let found = FileEntry { bytes: bytes.len() as u64, blake3: blake3::hash(&bytes).to_hex().to_string() };
        if found.bytes != entry.bytes {
            let (found, expected) = (found.bytes, entry.bytes);
            return Err(invalid(format!("`{name}` is damaged: it has {found} bytes, expected {expected}")));
        }
        if found != *entry {
            return Err(invalid(format!("`{name}` is damaged: its contents do not match their BLAKE3 hash")));
        }
    }
    let config = fs::read_to_string(path.join(CONFIG)).map_err(|error| invalid(error.to_string()))?;
    let model = read_safetensors(&path.join(MODEL))?;
    let ema = has_ema.then(|| read_safetensors(&path.join(EMA))).transpose()?;
    Ok(Checkpoint { path: path.to_owned(), progress: manifest.progress, config, model, ema })
}

impl Checkpoint {
    /// The trainable parameters for evaluation, by path: averaged, in a run that averages its weights.
    pub fn weights(&self) -> BTreeMap<String, HostTensor> {
        let mut weights = self.model.clone();
        weights.extend(self.ema.iter().flatten().map(|(path, average)| (path.clone(), average.clone())));
        weights
    }

    /// Reads the optimiser's state, by path and array name.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the file cannot be read as tensors.
    pub fn optimizer(&self) -> Result<BTreeMap<String, HostTensor>, TrainError> {
        Ok(read_safetensors(&self.path.join(OPTIMIZER))?)
    }
}
