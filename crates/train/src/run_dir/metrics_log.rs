//! `metrics.jsonl`: one JSON object per line. Each step appears once, however often the run was killed and resumed.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::BestMetric;
use crate::error::TrainError;
use crate::run_dir::atomic_file::{is_still, write_whole};

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
///
/// A line that cannot be written, as when the disk is full, waits in memory and is written before the next one. The
/// training does not end for it: the next checkpoint does, if it cannot be written either.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    /// Bytes of the file that are complete lines.
    complete: u64,
    /// Lines that could not be written yet.
    waiting: Vec<u8>,
    /// Whether a part of a line may follow the complete ones.
    is_torn: bool,
    /// The last step with an evaluation line, and the names of its evaluations.
    last_evals: (u64, Vec<String>),
    /// Complete lines that were removed when the log was opened, since they are not JSON or name no step.
    pub damaged_lines: usize,
}

impl MetricsLog {
    /// Opens the log of a run that continues after `step`. Lines of later steps and an incomplete last line are
    /// removed.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when the file cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self, TrainError> {
        let (mut last_evals, mut damaged_lines) = ((0, Vec::new()), 0);
        if path.exists() {
            let bytes = fs::read(path).map_err(TrainError::read(path))?;
            let valid;
            (valid, damaged_lines) = lines_until(&bytes, step, |line| {
                let (step, name) = (line["step"].as_u64(), line["name"].as_str());
                if let (true, Some(step), Some(name)) = (line["kind"] == "eval", step, name) {
                    note_eval(&mut last_evals, step, name);
                }
            });
            if valid.len() != bytes.len() {
                write_whole(path, |file| file.write_all(&valid))?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(TrainError::write(path))?;
        let complete = file.metadata().map_err(TrainError::read(path))?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            complete,
            waiting: Vec::new(),
            is_torn: false,
            last_evals,
            damaged_lines,
        })
    }

    /// Appends a training line.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the file cannot be written; the line waits then.
    pub fn train(&mut self, record: &TrainRecord) -> Result<(), TrainError> {
        self.append(&Line { kind: "train", record })
    }

    /// Appends an evaluation line.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the file cannot be written; the line waits then.
    pub fn eval(&mut self, record: &EvalRecord) -> Result<(), TrainError> {
        note_eval(&mut self.last_evals, record.step, &record.name);
        self.append(&Line { kind: "eval", record })
    }

    /// Appends a warning line.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the file cannot be written; the line waits then.
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

    /// The names of the evaluations logged at `step`, the newest step with an evaluation or a later one.
    pub fn evals_at(&self, step: u64) -> &[String] {
        let (last, names) = &self.last_evals;
        if *last == step { names } else { &[] }
    }

    /// Writes the lines that wait and syncs the log to the disk, so that decisions based on it, such as which
    /// checkpoints to delete, are still the same after a power failure.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the disk fails; [`TrainError::LostFile`] when someone else deleted, replaced or
    /// changed the log.
    pub fn sync(&mut self) -> Result<(), TrainError> {
        self.write_waiting()?;
        let len = self.file.metadata().map_err(TrainError::write(&self.path))?.len();
        if len != self.complete || !is_still(&self.path, &self.file) {
            return Err(TrainError::LostFile { path: self.path.clone() });
        }
        self.file.sync_data().map_err(TrainError::write(&self.path))
    }

    /// Whether lines wait to be written.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn append(&mut self, line: &Line<'_, impl Serialize>) -> Result<(), TrainError> {
        let line = serde_json::to_vec(line).map_err(|error| TrainError::Internal(format!("a log line: {error}")))?;
        self.waiting.extend(line);
        self.waiting.push(b'\n');
        self.write_waiting()
    }

    /// Writes in one call, so that a kill can leave only the last line incomplete.
    fn write_waiting(&mut self) -> Result<(), TrainError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if self.is_torn {
            self.file.set_len(self.complete).map_err(TrainError::write(&self.path))?;
        }
        self.is_torn = true;
        self.file.write_all(&self.waiting).map_err(TrainError::write(&self.path))?;
        self.is_torn = false;
        self.complete += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

fn note_eval((last, names): &mut (u64, Vec<String>), step: u64, name: &str) {
    if *last != step {
        (*last, *names) = (step, Vec::new());
    }
    names.push(name.to_owned());
}

/// The step of the last complete line of the log at `path`; 0 without one.
///
/// # Errors
/// [`TrainError::Read`] when the file exists and cannot be read.
pub(crate) fn last_step(path: &Path) -> Result<u64, TrainError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        bytes => bytes.map_err(TrainError::read(path))?,
    };
    let mut last = 0;
    lines_until(&bytes, u64::MAX, |line| last = line["step"].as_u64().unwrap_or(last));
    Ok(last)
}

/// The value of a metric in an evaluation line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MetricValue {
    pub step: u64,
    /// `None`: not a number.
    pub value: Option<f64>,
    /// What was measured; `None` in lines of older versions.
    pub fingerprint: Option<String>,
}

/// Reads the values of `metric` in the log at `path`, of each evaluation up to `step`, in order. A missing log is
/// empty.
///
/// # Errors
/// [`TrainError::Read`] when the file exists and cannot be read.
pub(crate) fn metric_values(path: &Path, metric: &BestMetric, step: u64) -> Result<Vec<MetricValue>, TrainError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes.map_err(TrainError::read(path))?,
    };
    // The log may be torn or damaged: it is read before a run is accepted and repairs it.
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"{\"kind\":\"eval\""));
    let lines = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let of_metric = lines.filter(|line| line["kind"] == "eval" && line["name"] == *metric.evaluation);
    let values = of_metric.filter_map(|line| {
        let fingerprint = line["fingerprint"].as_str().map(str::to_owned);
        Some(MetricValue { step: line["step"].as_u64()?, value: line[&metric.name].as_f64(), fingerprint })
    });
    Ok(values.filter(|value| value.step <= step).collect())
}

/// The complete lines of steps up to `step`, and how many lines are damaged. Calls `visit` with each.
fn lines_until(bytes: &[u8], step: u64, mut visit: impl FnMut(&Value)) -> (Vec<u8>, usize) {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let (mut valid, mut damaged) = (Vec::with_capacity(end), 0);
    for line in bytes[..end].split_inclusive(|&byte| byte == b'\n') {
        let parsed: Option<Value> = serde_json::from_slice(line).ok();
        match parsed.as_ref().and_then(|parsed| Some((parsed, parsed["step"].as_u64()?))) {
            Some((parsed, at)) if at <= step => {
                visit(parsed);
                valid.extend_from_slice(line);
            }
            Some(_) => {}
            None => damaged += 1,
        }
    }
    (valid, damaged)
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
        assert_eq!(log.evals_at(2), ["a"]);
        assert!(log.evals_at(1).is_empty());
        drop(log);
        let log = MetricsLog::open(&path, 2).unwrap();
        assert_eq!(log.evals_at(2), ["a"]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&(line(1) + &line(2))), "{text}");
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with("\n") && text.contains("\"acc1\":0.5"), "{text}");
    }
}
