//! Checkpoints: a directory appears under its final name only when it is complete and on the disk.
//!
//! Protocol: write every file into `step-N.tmp-PID/`, sync each, write `manifest.json` with the size and blake3 of each,
//! sync the directory, rename it to `step-N/`, sync the parent. A kill at any moment leaves either no `step-N/` or a
//! valid one. A checkpoint counts as valid only if every file has its hash. Older ones are pruned after the new one stands.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dualenc_model::{HostTensor, is_count, read_safetensors};
use safetensors::tensor::{Dtype, View};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::files::{sync_parent, write_synced};

/// Version of the layout; a newer one is refused.
const FORMAT: u32 = 1;

const MANIFEST: &str = "manifest.json";
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
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
    /// The parameters that train.
    pub model: BTreeMap<String, HostTensor>,
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

/// Writes the checkpoint of `progress.step` below `dir` and prunes all but the newest `keep`.
///
/// # Errors
/// When the disk does not take it; an older checkpoint is never touched then.
pub fn save(
    dir: &Path,
    progress: &Progress,
    config: &str,
    model: BTreeMap<String, HostTensor>,
    optimizer: BTreeMap<String, Saved<'_>>,
    keep: usize,
) -> Result<PathBuf, TrainError> {
    let target = dir.join(format!("step-{:06}", progress.step));
    let temporary = dir.join(format!("step-{:06}.tmp-{}", progress.step, std::process::id()));
    let written = write_files(&temporary, progress, config, model, optimizer);
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
    prune(dir, keep)?;
    Ok(target)
}

fn write_files(
    dir: &Path,
    progress: &Progress,
    config: &str,
    model: BTreeMap<String, HostTensor>,
    optimizer: BTreeMap<String, Saved<'_>>,
) -> Result<(), TrainError> {
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
    write(MODEL, &serialize(model.into_iter().map(|(name, tensor)| (name, tensor.into())), dir)?)?;
    write(OPTIMIZER, &serialize(optimizer, dir)?)?;
    write(CONFIG, config.as_bytes())?;
    let manifest = Manifest { format: FORMAT, progress: progress.clone(), files };
    let path = dir.join(MANIFEST);
    fail_point("before_manifest");
    write_synced(&path, |file| serde_json::to_writer_pretty(file, &manifest).map_err(Into::into))
        .map_err(TrainError::write(&path))?;
    // The directory's entries must be on the disk before its final name is.
    sync_parent(&path)
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

fn prune(dir: &Path, keep: usize) -> Result<(), TrainError> {
    let all = list(dir);
    for (_, path) in &all[..all.len().saturating_sub(keep.max(1))] {
        discard(path)?;
        fail_point("while_pruning");
    }
    Ok(())
}

/// Takes a checkpoint's name away first, so that a kill cannot leave half of one under it.
fn discard(path: &Path) -> Result<(), TrainError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let trash = path.with_file_name(format!(".trash-{name}"));
    let _ = fs::remove_dir_all(&trash);
    fs::rename(path, &trash).and_then(|()| fs::remove_dir_all(&trash)).map_err(TrainError::write(path))
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
    for name in [MODEL, OPTIMIZER, CONFIG] {
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
    Ok(Checkpoint { path: path.to_owned(), progress: manifest.progress, config, model })
}

impl Checkpoint {
    /// The optimiser's state.
    ///
    /// # Errors
    /// When the file is malformed.
    pub fn optimizer(&self) -> Result<BTreeMap<String, HostTensor>, TrainError> {
        Ok(read_safetensors(&self.path.join(OPTIMIZER))?)
    }
}

/// The bytes of a safetensors file of f32 tensors.
pub(crate) fn serialize<'a>(
    tensors: impl IntoIterator<Item = (String, Saved<'a>)>,
    context: &Path,
) -> Result<Vec<u8>, TrainError> {
    // transformers refuses a file without this entry.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let views = tensors.into_iter().map(|(name, tensor)| {
        let bytes = Bytes::new(tensor, is_count(&name));
        (name, bytes)
    });
    safetensors::serialize(views, Some(metadata))
        .map_err(|error| TrainError::Checkpoint { path: context.to_owned(), problem: error.to_string() })
}

/// A tensor to be saved, from where its values lie.
#[derive(Debug, Clone)]
pub struct Saved<'a> {
    /// Its sides.
    pub shape: Vec<usize>,
    /// Row by row.
    pub values: Cow<'a, [f32]>,
}

impl From<HostTensor> for Saved<'_> {
    fn from(tensor: HostTensor) -> Self {
        Self { shape: tensor.shape, values: tensor.values.into() }
    }
}

/// A tensor as it stands in a file: little-endian.
struct Bytes<'a> {
    shape: Vec<usize>,
    values: Stored<'a>,
}

enum Stored<'a> {
    Floats(Cow<'a, [f32]>),
    Counts(Vec<i64>),
}

impl<'a> Bytes<'a> {
    fn new(tensor: Saved<'a>, is_count: bool) -> Self {
        let values = match is_count {
            true => Stored::Counts(tensor.values.iter().map(|value| (*value as i64).to_le()).collect()),
            false if cfg!(target_endian = "big") => {
                Stored::Floats(tensor.values.iter().map(|value| f32::from_bits(value.to_bits().to_le())).collect())
            }
            // Not copied: a checkpoint of a large tower is large enough as it is.
            false => Stored::Floats(tensor.values),
        };
        Self { shape: tensor.shape, values }
    }

    fn bytes(&self) -> &[u8] {
        match &self.values {
            Stored::Floats(values) => bytemuck::cast_slice(values),
            Stored::Counts(values) => bytemuck::cast_slice(values),
        }
    }
}

impl View for Bytes<'_> {
    fn dtype(&self) -> Dtype {
        match self.values {
            Stored::Floats(_) => Dtype::F32,
            Stored::Counts(_) => Dtype::I64,
        }
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.bytes().into()
    }
    fn data_len(&self) -> usize {
        self.bytes().len()
    }
}

/// Ends the process at a named moment when `DUALENC_FAIL_AT` names it, so that tests can kill a save anywhere.
/// Builds without debug assertions have no such moments.
pub(crate) fn fail_point(name: &str) {
    if cfg!(debug_assertions) && std::env::var("DUALENC_FAIL_AT").is_ok_and(|at| at == name) {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(step: u64) -> Progress {
        Progress { step, samples_seen: step * 8, total_steps: 9, data: "d".into(), locked: "l".into(), threads: 2 }
    }

    fn tensors(value: f32) -> BTreeMap<String, HostTensor> {
        [("a.weight".to_owned(), HostTensor { shape: vec![2, 3], values: vec![value; 6] })].into()
    }

    fn saved(tensors: BTreeMap<String, HostTensor>) -> BTreeMap<String, Saved<'static>> {
        tensors.into_iter().map(|(name, tensor)| (name, tensor.into())).collect()
    }

    fn save_steps(dir: &Path, steps: impl IntoIterator<Item = u64>, keep: usize) {
        for step in steps {
            save(dir, &progress(step), "x = 1\n", tensors(step as f32), saved(tensors(-1.0)), keep).unwrap();
        }
    }

    #[test]
    fn what_is_saved_is_what_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        save_steps(dir.path(), [3], 2);
        let loaded = load(&dir.path().join("step-000003")).unwrap();
        assert_eq!((loaded.progress.clone(), loaded.config.as_str()), (progress(3), "x = 1\n"));
        assert_eq!((loaded.optimizer().unwrap(), loaded.model), (tensors(-1.0), tensors(3.0)));
    }

    #[test]
    fn only_the_newest_are_kept_and_leftovers_go() {
        let dir = tempfile::tempdir().unwrap();
        save_steps(dir.path(), 1..=5, 2);
        fs::create_dir(dir.path().join("step-000009.tmp-1")).unwrap();
        fs::create_dir(dir.path().join(".trash-step-000001")).unwrap();
        clean(dir.path()).unwrap();
        let mut names: Vec<String> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["step-000004", "step-000005"]);
    }

    #[test]
    fn every_damage_is_detected_and_an_older_checkpoint_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let mut cases = 0;
        for name in [MODEL, OPTIMIZER, CONFIG, MANIFEST] {
            save_steps(dir.path(), [1, 2], 3);
            let path = dir.path().join("step-000002").join(name);
            let whole = fs::read(&path).unwrap();
            let mut damaged: Vec<Vec<u8>> =
                (0..whole.len()).step_by(whole.len().div_ceil(60)).map(|end| whole[..end].to_vec()).collect();
            if name != MANIFEST {
                damaged.extend((0..whole.len()).step_by(7).map(|at| {
                    let mut bytes = whole.clone();
                    bytes[at] ^= 1 << (at % 8);
                    bytes
                }));
            }
            for bytes in damaged {
                fs::write(&path, bytes).unwrap();
                let mut told = Vec::new();
                let found = newest_valid(dir.path(), |error| told.push(error.to_string())).unwrap().unwrap();
                assert_eq!(found.progress.step, 1, "{name}");
                assert!(told.len() == 1 && told[0].contains("step-000002"), "{told:?}");
                cases += 1;
            }
            fs::remove_file(&path).unwrap();
            assert_eq!(newest_valid(dir.path(), |_| ()).unwrap().unwrap().progress.step, 1);
        }
        assert!(cases > 150, "{cases}");
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        save_steps(dir.path(), [1], 1);
        let path = dir.path().join("step-000001");
        let text = fs::read_to_string(path.join(MANIFEST)).unwrap().replace("\"format\": 1", "\"format\": 2");
        fs::write(path.join(MANIFEST), text).unwrap();
        let error = newest_valid(dir.path(), |_| ()).unwrap_err().to_string();
        assert!(error.contains("has the format 2, this program reads up to 1"), "{error}");
    }
}
