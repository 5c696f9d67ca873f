//! `metrics.jsonl`: one JSON object a line, each step once, whatever happened in between.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Goal;
use crate::error::TrainError;
use crate::run_dir::atomic_file::write_whole;

/// A training line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainRecord {
    /// Updates done, from 1.
    pub step: u64,
    /// Passes over the data done, a fraction.
    pub epoch: f64,
    /// Pairs seen.
    pub samples_seen: u64,
    /// Before the update.
    pub loss: f64,
    /// The least loss of this batch to a model that tells no two of its pairs apart.
    pub chance_loss: f64,
    /// Of the update.
    pub learning_rate: f64,
    /// The factor of the cosines, `exp` of the parameter, before the update.
    pub logit_scale: f64,
    /// Global L2 norm before clipping.
    pub grad_norm: f64,
    /// The same of each part that trains: `image_tower`, `text_tower`, `image_projection`, `text_projection`, `logit_scale`,
    /// `logit_bias`.
    pub grad_norms: BTreeMap<String, f64>,
    /// How far the image embeddings of the batch lie apart: 1 less their mean cosine; 0 where all are equal.
    pub image_spread: f64,
    /// The same of the text embeddings.
    pub text_spread: f64,
    /// Images for which the batch holds another pair's caption that is true of them too.
    pub num_duplicates: usize,
    /// Wall-clock speed of this step; the one figure that is not reproducible.
    pub pairs_per_sec: f64,
    /// Share of this step's time in which the loop waited for its batch, from 0 to 1. Told, not written: no two runs agree.
    #[serde(skip)]
    pub loader_wait: f64,
}

/// An evaluation line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvalRecord {
    /// Updates done.
    pub step: u64,
    /// The evaluation's name in the config.
    pub name: String,
    /// `zero-shot`, `retrieval` or `loss`.
    pub task: String,
    /// CLIP_benchmark's names.
    #[serde(flatten)]
    pub metrics: Map<String, Value>,
}

/// A line about something that goes wrong without being an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarningRecord {
    /// Updates done.
    pub step: u64,
    /// Such as `loss-at-chance`; each comes once a run.
    pub name: String,
    /// What was seen and what to change.
    pub message: String,
}

/// What a run that goes on wants to know of its log.
#[derive(Debug, Default)]
pub struct Lines {
    /// The last training lines, oldest first.
    pub last_steps: VecDeque<TrainRecord>,
    /// Every warning.
    pub warnings: Vec<WarningRecord>,
}

/// A record with the word that tells its kind, in front.
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
    /// Opens the log for a run that goes on after `step`: later lines and a torn last line are cut off.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self, TrainError> {
        if path.exists() {
            let bytes = fs::read(path).map_err(TrainError::read(path))?;
            let kept = lines_until(&bytes, step);
            if kept.len() != bytes.len() {
                write_whole(path, |file| file.write_all(&kept))?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(TrainError::write(path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends a training line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn train(&mut self, record: &TrainRecord) -> Result<(), TrainError> {
        self.append(&Line { kind: "train", record })
    }

    /// Appends an evaluation line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn eval(&mut self, record: &EvalRecord) -> Result<(), TrainError> {
        self.append(&Line { kind: "eval", record })
    }

    /// Appends a warning.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn warning(&mut self, record: &WarningRecord) -> Result<(), TrainError> {
        self.append(&Line { kind: "warning", record })
    }

    /// The last `steps` training lines, and all warnings. Lines of older versions, which lack a figure, are passed over.
    ///
    /// # Errors
    /// When the file cannot be read.
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

    /// The names of the evaluations that stand at `step`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn evals_at(&self, step: u64) -> Result<Vec<String>, TrainError> {
        let text = fs::read_to_string(&self.path).map_err(TrainError::read(&self.path))?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines
            .filter(|line| line["kind"] == "eval" && line["step"] == step)
            .filter_map(|line| line["name"].as_str().map(str::to_owned))
            .collect())
    }

    /// Brings what was written to the disk: what is concluded from it, such as which checkpoints may go, then outlives a
    /// machine that stops.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn sync(&self) -> Result<(), TrainError> {
        self.file.sync_data().map_err(TrainError::write(&self.path))
    }

    /// One write a line: a kill tears at most the last one.
    fn append(&mut self, line: &Line<'_, impl Serialize>) -> Result<(), TrainError> {
        let written = serde_json::to_vec(line).map_err(std::io::Error::from).and_then(|mut bytes| {
            bytes.push(b'\n');
            self.file.write_all(&bytes)
        });
        written.map_err(TrainError::write(&self.path))
    }
}

/// The figures that `goal` names in the log at `path`, up to `step`, in their order. One that is no number is `None`.
///
/// # Errors
/// When the file is there and cannot be read.
pub(crate) fn figures_of(path: &Path, goal: &Goal, step: u64) -> Result<Vec<(u64, Option<f64>)>, TrainError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(TrainError::read(path))?,
    };
    // A training line is not parsed: there are many.
    let lines = text.lines().filter(|line| line.contains("\"eval\""));
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_goal = lines.filter(|line| line["kind"] == "eval" && line["name"] == *goal.evaluation);
    let figures = of_goal.filter_map(|line| Some((line["step"].as_u64()?, line[&goal.metric].as_f64())));
    Ok(figures.filter(|(at, _)| *at <= step).collect())
}

/// The whole lines whose step is at most `step`.
fn lines_until(bytes: &[u8], step: u64) -> Vec<u8> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    bytes[..whole]
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
    fn a_torn_line_and_later_steps_are_cut_at_resume() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let line = |step| format!("{{\"kind\":\"train\",\"step\":{step}}}\n");
        fs::write(&path, format!("{}{}{}{{\"kind\":\"tr", line(1), line(2), line(3))).unwrap();
        let mut log = MetricsLog::open(&path, 2).unwrap();
        let metrics = json!({"acc1": 0.5}).as_object().unwrap().clone();
        log.eval(&EvalRecord { step: 2, name: "a".into(), task: "zero-shot".into(), metrics }).unwrap();
        assert_eq!(log.evals_at(2).unwrap(), ["a"]);
        assert!(log.evals_at(1).unwrap().is_empty());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&(line(1) + &line(2))), "{text}");
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with("\n") && text.contains("\"acc1\":0.5"), "{text}");
    }
}
