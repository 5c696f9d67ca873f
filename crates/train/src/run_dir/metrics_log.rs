//! `metrics.jsonl`: one JSON object per line. Each step appears once, however often the run was killed and resumed.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::BestMetric;
use crate::error::TrainError;
use crate::run_dir::append_file::AppendFile;
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
    /// Contrastive loss before the update.
    pub loss: f64,
    /// The structure term before the update, without its weight, in a run with `train.structure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_structure: Option<f64>,
    /// The divergence from the teacher before the update, without its weight, in a run with `[train.teacher]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_teacher: Option<f64>,
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
    /// Pairs per second of wall-clock time in this step. Not reproducible.
    pub pairs_per_sec: f64,
    /// Fraction of the step's time spent waiting for the batch, from 0 to 1. Not reproducible. Lines of older versions
    /// have none, which reads as 0.
    #[serde(default)]
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

/// A line about heads that were fitted in closed form. Where a fit was repeated since the run was killed before its
/// first checkpoint, the last line counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FitRecord {
    /// Updates so far: 0.
    pub step: u64,
    /// `cca` or `ridge`.
    pub method: &'static str,
    /// Images that were used.
    pub images: usize,
    /// Pairs that the heads are fitted to.
    pub pairs: usize,
    /// Directions that both sides have in common.
    pub directions: usize,
    /// The ridge, as a fraction of the mean variance.
    pub ridge: f64,
    /// The exponent of the correlations.
    pub power: f64,
    /// Factor of the cosine similarities, as in training lines.
    pub logit_scale: f64,
    /// The bias of the sigmoid loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<f64>,
    /// Images that ridge and power were chosen by; 0: there were too few.
    pub held_out_images: usize,
    /// Mean of the recall at 1, 5 and 10 in both directions on those images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_recall: Option<f64>,
    /// Seconds of the fit, features included. Not reproducible.
    pub seconds: f64,
}

/// What a resumed run reads from its log.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The last training lines, oldest first.
    pub last_steps: VecDeque<TrainRecord>,
    /// All warnings.
    pub warnings: Vec<WarningRecord>,
}

/// What a line records.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Entry<'a> {
    /// A step.
    Train(&'a TrainRecord),
    /// A fit of the heads.
    Fit(&'a FitRecord),
    /// An evaluation.
    Eval(&'a EvalRecord),
    /// A warning.
    Warning(&'a WarningRecord),
}

/// A line of the log.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    #[serde(flatten)]
    entry: Entry<'a>,
    /// When it was recorded, in seconds since 1970, to the millisecond. Not reproducible.
    time: f64,
}

impl<'a> Line<'a> {
    /// The line of what happened just now.
    pub fn now(entry: Entry<'a>) -> Self {
        // A clock that is set before 1970 gives 0.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { entry, time: since_1970.as_millis() as f64 / 1e3 }
    }
}

/// The open log of a run.
///
/// A line that cannot be written, as when the disk is full, waits in memory and is written before the next one. The
/// training does not end for it: the next checkpoint does, if it cannot be written either.
#[derive(Debug)]
pub(crate) struct MetricsLog {
    file: AppendFile,
    /// The last step with an evaluation line, and the names of its evaluations.
    last_evals: (u64, Vec<String>),
    /// Complete lines that were removed when the log was opened, since they are not JSON or name no step.
    pub damaged_lines: usize,
    /// Steps with a training line, in the order of the log when it was opened.
    logged: Vec<u64>,
}

impl MetricsLog {
    /// Opens the log of a run that continues after `step`. Lines of later steps and an incomplete last line are
    /// removed.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`] when the file cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self, TrainError> {
        let (mut last_evals, mut damaged_lines, mut logged) = ((0, Vec::new()), 0, Vec::new());
        if path.exists() {
            let bytes = fs::read(path).map_err(TrainError::read(path))?;
            let valid;
            (valid, damaged_lines) = lines_until(&bytes, step, |line| {
                let (step, name) = (line["step"].as_u64(), line["name"].as_str());
                if let (true, Some(step), Some(name)) = (line["kind"] == "eval", step, name) {
                    note_eval(&mut last_evals, step, name);
                }
                logged.extend(step.filter(|_| line["kind"] == "train"));
            });
            if valid.len() != bytes.len() {
                write_whole(path, |file| file.write_all(&valid))?;
            }
        }
        Ok(Self { file: AppendFile::open(path)?, last_evals, damaged_lines, logged })
    }

    /// The steps up to `step` that had no training line when the log was opened, as ranges from the first to the last,
    /// both 1-based. `skipped`: steps without an update, from the first 0-based one to the one after the last, which
    /// have no line.
    pub fn missing_steps(&self, step: u64, skipped: &[[u64; 2]]) -> Vec<[u64; 2]> {
        let skipped = skipped.iter().map(|[first, end]| [first.saturating_add(1), *end]);
        let mut known: Vec<[u64; 2]> = self.logged.iter().map(|&at| [at, at]).chain(skipped).collect();
        known.sort_unstable();
        let (mut missing, mut next) = (Vec::new(), 1);
        for [first, last] in known.into_iter().chain([[step.saturating_add(1); 2]]) {
            if first > next {
                missing.push([next, first - 1]);
            }
            next = next.max(last.saturating_add(1));
        }
        missing
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`TrainError::Write`] when the file cannot be written; the line waits then.
    pub fn append(&mut self, line: &Line<'_>) -> Result<(), TrainError> {
        if let Entry::Eval(record) = line.entry {
            note_eval(&mut self.last_evals, record.step, &record.name);
        }
        let mut bytes =
            serde_json::to_vec(line).map_err(|error| TrainError::Internal(format!("a log line: {error}")))?;
        bytes.push(b'\n');
        self.file.append(&bytes)
    }

    /// Reads the last `steps` training lines and all warnings. Lines of older versions that lack a key are skipped.
    ///
    /// # Errors
    /// [`TrainError::Read`] when the file cannot be read.
    pub fn lines(&self, steps: usize) -> Result<Lines, TrainError> {
        let path = self.file.path();
        let text = fs::read_to_string(path).map_err(TrainError::read(path))?;
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
        self.file.sync()
    }

    /// Whether lines wait to be written.
    pub fn is_waiting(&self) -> bool {
        self.file.is_waiting()
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
    fn missing_steps_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let missing = |steps: &[u64], step, skipped: &[[u64; 2]]| {
            let lines: String = steps.iter().map(|at| format!("{{\"kind\":\"train\",\"step\":{at}}}\n")).collect();
            fs::write(&path, lines + "{\"kind\":\"eval\",\"step\":1,\"name\":\"a\"}\n").unwrap();
            MetricsLog::open(&path, step).unwrap().missing_steps(step, skipped)
        };
        assert_eq!(missing(&[], 4, &[]), [[1, 4]]);
        assert_eq!(missing(&[], 0, &[]), [[0; 2]; 0]);
        assert_eq!(missing(&[1, 2, 3], 3, &[]), [[0; 2]; 0]);
        assert_eq!(missing(&[2, 3, 7], 8, &[]), [[1, 1], [4, 6], [8, 8]]);
        // Steps 2 and 3, as people count them, were passed over.
        assert_eq!(missing(&[1, 4], 4, &[[1, 3]]), [[0; 2]; 0]);
    }

    #[test]
    fn resume_cuts_later_and_torn_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let line = |step| format!("{{\"kind\":\"train\",\"step\":{step}}}\n");
        fs::write(&path, format!("{}{}{}{{\"kind\":\"tr", line(1), line(2), line(3))).unwrap();
        let mut log = MetricsLog::open(&path, 2).unwrap();
        let metrics = json!({"acc1": 0.5}).as_object().unwrap().clone();
        let (name, task, fingerprint) = ("a".into(), "zero-shot".into(), "0a".into());
        log.append(&Line::now(Entry::Eval(&EvalRecord { step: 2, name, task, fingerprint, metrics }))).unwrap();
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

    #[test]
    fn line_starts_with_its_kind_and_has_a_time() {
        let warning = WarningRecord { step: 7, name: "n".into(), message: "m".into() };
        let line = serde_json::to_string(&Line::now(Entry::Warning(&warning))).unwrap();
        let start = r#"{"kind":"warning","step":7,"name":"n","message":"m","time":"#;
        let time: f64 = line.strip_prefix(start).unwrap().strip_suffix('}').unwrap().parse().unwrap();
        // Later than this test.
        assert!(time > 1.76e9, "{line}");
    }
}
