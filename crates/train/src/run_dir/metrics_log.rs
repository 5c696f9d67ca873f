//! `metrics.jsonl`: one JSON object per line. Each step appears once, however often the run was killed and resumed.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::BestMetric;
use crate::error::TrainError;
use crate::run_dir::atomic_file::write_whole;

/// A training line: one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainRecord {
    /// Updates so far, this one included.
    pub step: u64,
    /// Epochs so far, as a fraction.
    pub epoch: f64,
    /// Pairs seen so far.
    pub samples_seen: u64,
    /// Loss before the update.
    pub loss: f64,
    /// The lowest loss that a model can have on this batch if it cannot tell any two pairs apart.
    pub chance_loss: f64,
    /// Learning rate of the update, for parameters without a rate of their own.
    pub learning_rate: f64,
    /// Factor of the cosine similarities before the update: `exp` of the parameter `logit_scale`.
    pub logit_scale: f64,
    /// Global L2 norm of the gradients, before clipping.
    pub grad_norm: f64,
    /// L2 norm of the gradients of each part that trains: `image_tower`, `text_tower`, `image_projection`,
    /// `text_projection`, `logit_scale`, `logit_bias`.
    pub grad_norms: BTreeMap<String, f64>,
    /// Spread of the image embeddings: 1 minus the mean cosine of two of them; 0 if all are equal.
    pub image_spread: f64,
    /// Spread of the text embeddings.
    pub text_spread: f64,
    /// Images that match the caption of another pair in the batch.
    pub num_duplicates: usize,
    /// Pairs per second of wall-clock time in this step: the only value that is not reproducible.
    pub pairs_per_sec: f64,
    /// Fraction of the step's time spent waiting for the batch, from 0 to 1. Reported but not logged, since it is not
    /// reproducible.
    #[serde(skip)]
    pub loader_wait: f64,
}

/// An evaluation line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvalRecord {
    /// Updates so far.
    pub step: u64,
    /// Name of the evaluation in the config.
    pub name: String,
    /// `zero-shot`, `retrieval` or `loss`.
    pub task: String,
    /// What was measured, as a hash ([`Evaluation::fingerprint`](crate::Evaluation::fingerprint)). Lines of older
    /// versions have none.
    pub fingerprint: String,
    /// Metrics by CLIP_benchmark's names.
    #[serde(flatten)]
    pub metrics: Map<String, Value>,
}

/// A warning line: something that goes wrong without being an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarningRecord {
    /// Updates so far.
    pub step: u64,
    /// Kind of warning, such as `loss-at-chance`. Each appears once per run.
    pub name: String,
    /// What was observed, and what to change.
    pub message: String,
}

/// What a resumed run reads from its log.
#[derive(Debug, Default)]
pub struct Lines {
    /// The last training lines, oldest first.
    pub last_steps: VecDeque<TrainRecord>,
    /// All warnings.
    pub warnings: Vec<WarningRecord>,
}

/// A record, preceded by its kind.
#[derive(Serialize)]
struct Line<'a, R> {
    kind: &'static str,
    #[serde(flatten)]
    record: &'a R,
}

/// The open log of a run.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens the log of a run that continues after `step`. Lines of later steps and an incomplete last line are
    /// removed.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when the file cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self, TrainError> {
        if path.exists() {
            let bytes = fs::read(path).map_err(TrainError::read(path))?;
            let valid = lines_until(&bytes, step);
            if valid.len() != bytes.len() {
                write_whole(path, |file| file.write_all(&valid))?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(TrainError::write(path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends a training line.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the file cannot be written.
    pub fn train(&mut self, record: &TrainRecord) -> Result<(), TrainError> {
        self.append(&Line { kind: "train", record })
    }

    /// Appends an evaluation line.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the file cannot be written.
    pub fn eval(&mut self, record: &EvalRecord) -> Result<(), TrainError> {
        self.append(&Line { kind: "eval", record })
    }

    /// Appends a warning line.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the file cannot be written.
    pub fn warning(&mut self, record: &WarningRecord) -> Result<(), TrainError> {
        self.append(&Line { kind: "warning", record })
    }

    /// Reads the last `steps` training lines and all warnings. Lines of older versions that lack a key are skipped.
    ///
    /// # Errors
    /// [`TrainError::Read`] when the file cannot be read.
    pub fn lines(&self, steps: usize) -> Result<Lines, TrainError> {
        let text = fs::read_to_string(&self.path).map_err(TrainError::read(&self.path))?;
        let mut lines = Lines::default();
        for line in text.lines() {
            if line.starts_with("{\"kind\":\"warning\"") {
                lines.warnings.extend(serde_json::from_str::<WarningRecord>(line));
            }
        }
        let train = text.lines().rev().filter(|line| line.starts_with("{\"kind\":\"train\"")).take(steps);
        train.filter_map(|line| serde_json::from_str(line).ok()).for_each(|record| lines.last_steps.push_front(record));
        Ok(lines)
    }

    /// Reads the names of the evaluations logged at `step`.
    ///
    /// # Errors
    /// [`TrainError::Read`] when the file cannot be read.
    pub fn evals_at(&self, step: u64) -> Result<Vec<String>, TrainError> {
        let text = fs::read_to_string(&self.path).map_err(TrainError::read(&self.path))?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines
            .filter(|line| line["kind"] == "eval" && line["step"] == step)
            .filter_map(|line| line["name"].as_str().map(str::to_owned))
            .collect())
    }

    /// Syncs the log to the disk, so that decisions based on it, such as which checkpoints to delete, are still the
    /// same after a power failure.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the sync fails.
    pub fn sync(&self) -> Result<(), TrainError> {
        self.file.sync_data().map_err(TrainError::write(&self.path))
    }

    /// Writes the line in one call, so that a kill can leave only the last line incomplete.
    fn append(&mut self, line: &Line<'_, impl Serialize>) -> Result<(), TrainError> {
        let written = serde_json::to_vec(line).map_err(std::io::Error::from).and_then(|mut bytes| {
            bytes.push(b'\n');
            self.file.write_all(&bytes)
        });
        written.map_err(TrainError::write(&self.path))
    }
}

/// Reads the values of `metric` in the log at `path`: step and value of each evaluation up to `step`, in order.
/// A value that is not a number is `None`. A missing log is empty.
///
/// # Errors
/// [`TrainError::Read`] when the file exists and cannot be read.
pub(crate) fn metric_values(
    path: &Path,
    metric: &BestMetric,
    step: u64,
) -> Result<Vec<(u64, Option<f64>)>, TrainError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(TrainError::read(path))?,
    };
    // Skips training lines before parsing: there are many.
    let lines = text.lines().filter(|line| line.contains("\"eval\""));
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_metric = lines.filter(|line| line["kind"] == "eval" && line["name"] == *metric.evaluation);
    let values = of_metric.filter_map(|line| Some((line["step"].as_u64()?, line[&metric.name].as_f64())));
    Ok(values.filter(|(at, _)| *at <= step).collect())
}

/// The complete lines of steps up to `step`.
fn lines_until(bytes: &[u8], step: u64) -> Vec<u8> {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    bytes[..end]
        .split_inclusive(|&byte| byte == b'\n')
        .filter(|line| {
            let parsed: Option<Value> = serde_json::from_slice(line).ok();
            parsed.and_then(|line| line["step"].as_u64()).is_some_and(|at| at <= step)
        })
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn resume_cuts_later_and_torn_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let line = |step| format!("{{\"kind\":\"train\",\"step\":{step}}}\n");
        fs::write(&path, format!("{}{}{}{{\"kind\":\"tr", line(1), line(2), line(3))).unwrap();
        let mut log = MetricsLog::open(&path, 2).unwrap();
        let metrics = json!({"acc1": 0.5}).as_object().unwrap().clone();
        log.eval(&EvalRecord {
            step: 2,
            name: "a".into(),
            task: "zero-shot".into(),
            fingerprint: "0a".into(),
            metrics,
        })
        .unwrap();
        assert_eq!(log.evals_at(2).unwrap(), ["a"]);
        assert!(log.evals_at(1).unwrap().is_empty());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&(line(1) + &line(2))), "{text}");
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with("\n") && text.contains("\"acc1\":0.5"), "{text}");
    }
}
