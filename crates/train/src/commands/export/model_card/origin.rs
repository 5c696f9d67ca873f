//! What the log of a run says about one of its checkpoints.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::config::narrower_metric;
use crate::error::TrainError;
use crate::eval::metrics::bootstrap::INTERVAL;
use crate::models::load::LoadedModel;
use crate::run_dir::layout::metrics_of;
use crate::run_dir::log_points::NO_METRICS;

/// What is known of the training of a model.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// The name of the run or the model.
    pub name: Option<String>,
    /// Updates that the exported weights have seen.
    pub step: Option<u64>,
    /// The line of the last step up to there.
    pub last_step: Option<Map<String, Value>>,
    /// The last figures of each evaluation up to there. None of a mixture, which was never evaluated.
    pub figures: Vec<Figures>,
}

/// The figures of one evaluation.
#[derive(Debug)]
pub(crate) struct Figures {
    pub name: String,
    pub task: String,
    pub step: u64,
    pub metrics: Map<String, Value>,
    /// The figures of the same evaluation before the first step.
    pub before: Option<Map<String, Value>>,
    fingerprint: Option<String>,
}

impl Origin {
    /// What is known of `loaded`, which was read from `path`: a run, one of its checkpoints or a model without run.
    ///
    /// # Errors
    /// [`TrainError::Read`] when the run has a log that cannot be read.
    pub fn new(loaded: &LoadedModel, path: Option<&Path>, alpha: Option<f64>) -> Result<Self, TrainError> {
        let root = path.and_then(root_of);
        let name = root.as_ref().and_then(|root| Some(root.file_name()?.to_string_lossy().into_owned()));
        let mut origin = Self { name, step: loaded.step, ..Self::default() };
        let log = root.map(|root| metrics_of(&root)).filter(|log| log.is_file());
        let (Some(step), Some(log)) = (loaded.step, log) else { return Ok(origin) };
        let lines = BufReader::new(File::open(&log).map_err(TrainError::read(&log))?);
        origin.read(lines, step, alpha.is_none()).map_err(TrainError::read(&log))?;
        if loaded.truncated_from.is_some() {
            origin.keep_width(loaded.model.embed_dim());
        }
        Ok(origin)
    }

    /// Keeps the figures of embeddings of `dim` values alone, under the names of whole ones.
    pub(super) fn keep_width(&mut self, dim: usize) {
        let end = narrower_metric("", dim);
        let interval_end = format!("{end}{INTERVAL}");
        let keep = |metrics: &mut Map<String, Value>| {
            let kept = std::mem::take(metrics).into_iter().filter_map(|(name, value)| {
                let interval = name.strip_suffix(&interval_end).map(|whole| format!("{whole}{INTERVAL}"));
                match interval.or_else(|| Some(name.strip_suffix(&end)?.to_owned())) {
                    Some(whole) => Some((whole, value)),
                    None => value.is_u64().then_some((name, value)),
                }
            });
            *metrics = kept.collect();
            metrics.values().any(Value::is_f64)
        };
        self.figures.retain_mut(|figures| {
            figures.before.iter_mut().for_each(|before| {
                keep(before);
            });
            keep(&mut figures.metrics)
        });
    }

    /// Reads the lines of steps up to `step`.
    pub(super) fn read(&mut self, lines: impl BufRead, step: u64, with_figures: bool) -> io::Result<()> {
        let mut before: Vec<Figures> = Vec::new();
        for line in lines.split(b'\n') {
            // The last line of a run that goes on may be torn.
            let Ok(Value::Object(line)) = serde_json::from_slice(&line?) else { continue };
            let at = line.get("step").and_then(Value::as_u64);
            match (line.get("kind").and_then(Value::as_str), at.filter(|&at| at <= step)) {
                (Some("train"), Some(_)) => self.last_step = Some(line),
                (Some("eval"), Some(at)) if with_figures => {
                    let Some(figures) = Figures::new(line, at) else { continue };
                    // Of weights at step 0, such as those of a fit, they are the figures themselves.
                    if at == 0 && step > 0 {
                        before.push(figures);
                    } else {
                        self.figures.retain(|other| other.name != figures.name);
                        self.figures.push(figures);
                    }
                }
                _ => {}
            }
        }
        for figures in &mut self.figures {
            let same = |other: &&Figures| other.name == figures.name && other.fingerprint == figures.fingerprint;
            figures.before = before.iter().find(same).map(|before| before.metrics.clone());
        }
        self.figures.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }
}

impl Figures {
    fn new(mut line: Map<String, Value>, step: u64) -> Option<Self> {
        let text = |key: &str| line.get(key).and_then(Value::as_str).map(str::to_owned);
        let (name, task, fingerprint) = (text("name")?, text("task")?, text("fingerprint"));
        line.retain(|key, _| !NO_METRICS.contains(&key.as_str()));
        Some(Self { name, task, step, metrics: line, before: None, fingerprint })
    }
}

/// The directory of the run that the checkpoint at `path` belongs to, or else `path` itself.
fn root_of(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let of_checkpoint = path.parent().filter(|dir| dir.ends_with("checkpoints")).and_then(Path::parent);
    Some(of_checkpoint.map_or_else(|| path.clone(), Path::to_owned))
}
