//! Checkpoints: a directory appears under its final name only when it is complete and on the disk.
//!
//! Protocol: write every file into `step-N.tmp-PID/`, sync each, write `manifest.json` with the size and blake3 of each,
//! sync the directory, rename it to `step-N/`, sync the parent. A kill at any moment leaves either no `step-N/` or a
//! valid one. A checkpoint counts as valid only if every file has its hash. Older ones are pruned after the new one stands.

mod retention;
mod tensors;
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
use crate::run_dir::fail_point::fail_point;

pub use retention::{Retention, clean, list};
use retention::{discard, prune};
pub(crate) use tensors::serialize;

/// Version of the layout; a newer one is refused.
const FORMAT: u32 = 1;

const MANIFEST: &str = "manifest.json";
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
/// Only of a run that averages its weights.
const EMA: &str = "ema.safetensors";
const CONFIG: &str = "config.toml";

/// What a checkpoint knows beside tensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Updates done.
    pub step: u64,
    /// Pairs seen.
    pub samples_seen: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Fingerprint of the training data.
    pub data: String,
    /// Fingerprint of the locked parameters.
    pub locked: String,
    /// Threads of the CPU; bits are promised only for the same number.
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

/// Everything a run needs to go on.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where it was read from.
    pub path: PathBuf,
    /// Counters and fingerprints.
    pub progress: Progress,
    /// The run's config as TOML.
    pub config: String,
    /// The parameters that train, as the last update left them.
    pub model: BTreeMap<String, HostTensor>,
    /// Their moving averages, in a run that keeps them: of those that were updated.
    pub ema: Option<BTreeMap<String, HostTensor>>,
}

/// The tensors of a checkpoint that is to be written.
#[derive(Debug, Default)]
pub struct Tensors<'a> {
    /// The parameters that train.
    pub model: BTreeMap<String, HostTensor>,
    /// The optimiser's state.
    pub optimizer: BTreeMap<String, StateTensor<'a>>,
    /// The averages, in a run that keeps them.
    pub ema: Option<BTreeMap<String, StateTensor<'a>>>,
}

/// Where the checkpoint of `step` stands below `dir`.
pub fn path_of(dir: &Path, step: u64) -> PathBuf {
    dir.join(format!("step-{step:06}"))
}

/// Writes the checkpoint of `progress.step` below `dir` and prunes all that `retention` does not keep.
///
/// # Errors
/// When the disk does not take it; an older checkpoint is never touched then.
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
        // The same step again: a resumed run that had lost this checkpoint's successor, or found it invalid.
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
    // Each is in memory only while it is written.
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
    // The directory's entries must be on the disk before its final name is.
    sync_parent(&path)
}

/// The newest checkpoint below `dir` that is whole; `on_invalid` hears of those that are not.
///
/// # Errors
/// When a checkpoint was written by a newer version.
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

/// Reads and verifies one checkpoint.
///
/// # Errors
/// When a file is missing, has another size or hash, or the format is newer.
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
        if found != *entry {
            return Err(invalid(format!(
                "`{name}` is not what was written ({} bytes, expected {})",
                found.bytes, entry.bytes
            )));
        }
    }
    let config = fs::read_to_string(path.join(CONFIG)).map_err(|error| invalid(error.to_string()))?;
    let model = read_safetensors(&path.join(MODEL))?;
    let ema = has_ema.then(|| read_safetensors(&path.join(EMA))).transpose()?;
    Ok(Checkpoint { path: path.to_owned(), progress: manifest.progress, config, model, ema })
}

impl Checkpoint {
    /// The parameters that train as they are evaluated: averaged, in a run that averages them.
    pub fn weights(&self) -> BTreeMap<String, HostTensor> {
        let mut weights = self.model.clone();
        weights.extend(self.ema.iter().flatten().map(|(path, average)| (path.clone(), average.clone())));
        weights
    }

    /// The optimiser's state.
    ///
    /// # Errors
    /// When the file is malformed.
    pub fn optimizer(&self) -> Result<BTreeMap<String, HostTensor>, TrainError> {
        Ok(read_safetensors(&self.path.join(OPTIMIZER))?)
    }
}
