//! `manifest.json`: what a checkpoint holds and how far its run is, with a checksum of every file and of itself.

use std::collections::BTreeMap;
use std::path::Path;

use dualenc_data::Skipped;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::run_dir::checkpoint::pair_counts::PairCounts;
use crate::run_dir::checkpoint::tower_forms::TowerForms;

pub(super) const MANIFEST: &str = "manifest.json";

/// Version of the layout. Newer ones are refused.
const FORMAT: u32 = 2;

/// The only format without a checksum in its manifests.
const WITHOUT_CHECKSUM: u32 = 1;

/// What stands between the fields that the checksum covers and the checksum.
const BEFORE_CHECKSUM: &str = ",\n  \"checksum\": \"";
const AFTER_CHECKSUM: &str = "\"\n}\n";

/// How far the run is, and fingerprints of what it was trained on. Part of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps so far: updates, and steps that were skipped.
    pub step: u64,
    /// Pairs seen so far.
    pub samples_seen: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Fingerprint of the training data.
    pub data: String,
    /// How many pairs the data had; `None` in checkpoints from before this was saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<PairCounts>,
    /// Fingerprint of the locked parameters.
    pub locked: String,
    /// How the towers compute and what they read; `None` in checkpoints from before this was saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub towers: Option<TowerForms>,
    /// Fingerprint of the teacher, in a run with `[train.teacher]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// CPU threads. A resumed run is bit-identical only with the same number.
    pub threads: usize,
    /// Ranges of steps without an update, each from its first 0-based step to the one after its last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_steps: Vec<[u64; 2]>,
    /// The images that these steps found bad. They stay out even if they are repaired, as in an uninterrupted run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_images: Vec<Skipped>,
    /// Whether it was saved because the next step failed. Older checkpoints stay until a regular one is written, since
    /// the weights may be beyond help.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_rescue: bool,
    /// Whether `dualenc fit` saved it: what it holds was fitted in closed form, and no step is to follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_fit: bool,
}

/// The contents of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    #[serde(flatten)]
    pub progress: Progress,
    pub files: BTreeMap<String, FileEntry>,
}

/// Size and hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    pub bytes: u64,
    pub blake3: String,
}

impl FileEntry {
    /// The entry of a file that holds `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() }
    }

    /// How `found`, the entry of the file on the disk, differs from this one; `None`: not at all.
    pub fn difference(&self, found: &Self) -> Option<String> {
        if found.bytes != self.bytes {
            return Some(format!("it has {} bytes, expected {}", found.bytes, self.bytes));
        }
        (found != self).then(|| "its contents do not match their BLAKE3 hash".to_owned())
    }
}

/// The one field that every format has.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Manifest {
    pub fn new(progress: Progress, files: BTreeMap<String, FileEntry>) -> Self {
        Self { format: FORMAT, progress, files }
    }

    /// The text of the file. Its last field is the BLAKE3 hash of every byte before it, so that no field can change
    /// unnoticed. Later formats must keep this rule: this is how a damaged format number is detected.
    ///
    /// # Errors
    /// [`TrainError::Internal`] when the fields cannot be written as JSON.
    pub fn to_text(&self) -> Result<String, TrainError> {
        let text = serde_json::to_string_pretty(self).ok();
        let fields = text.as_deref().and_then(|text| text.strip_suffix("\n}"));
        let fields = fields.ok_or_else(|| TrainError::Internal(format!("`{MANIFEST}` cannot be written as JSON")))?;
        Ok(format!("{fields}{BEFORE_CHECKSUM}{}{AFTER_CHECKSUM}", checksum(fields)))
    }

    /// Reads the manifest of the checkpoint at `dir`.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] when the text is damaged, or the directory is named after another step;
    /// [`TrainError::NewerFormat`] when a newer version of the program wrote it.
    pub fn parse(text: &str, dir: &Path) -> Result<Self, TrainError> {
        let damaged = |problem: String| TrainError::Checkpoint {
            path: dir.to_owned(),
            problem: format!("`{MANIFEST}` is damaged: {problem}"),
        };
        let parts = text.strip_suffix(AFTER_CHECKSUM).and_then(|text| text.rsplit_once(BEFORE_CHECKSUM));
        if parts.is_some_and(|(fields, found)| found != checksum(fields)) {
            return Err(damaged("its contents do not match their checksum".to_owned()));
        }
        let Version { format } = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        if format > FORMAT {
            return Err(TrainError::NewerFormat { path: dir.to_owned(), found: format, known: FORMAT });
        }
        if parts.is_none() && format != WITHOUT_CHECKSUM {
            return Err(damaged(format!("format {format} must end with a checksum, and there is none")));
        }
        let manifest: Self = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        let step = manifest.progress.step;
        match step_of(dir) {
            Some(named) if named != step => {
                Err(damaged(format!("it is of step {step}, its directory of step {named}")))
            }
            _ => Ok(manifest),
        }
    }
}

fn checksum(fields: &str) -> String {
    blake3::hash(fields.as_bytes()).to_hex().to_string()
}

/// The name of the checkpoint of `step`.
pub(super) fn name_of(step: u64) -> String {
    format!("step-{step:06}")
}

/// The step in the name of a checkpoint directory; `None`: it has another name.
pub(super) fn step_of(dir: &Path) -> Option<u64> {
    dir.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}
