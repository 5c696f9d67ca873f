//! Which checkpoint of a run is the best, and whether it is worth going on: a function of the evaluations in the run's
//! `metrics.jsonl` and of the checkpoints on the disk, so that a killed run comes to the same answers.

use std::path::Path;

use crate::config::{CheckpointSection, Goal, RunConfig};
use crate::error::TrainError;
use crate::run_dir::checkpoint::{self, Checkpoint};
use crate::run_dir::layout::{checkpoints_of, metrics_of};
use crate::run_dir::metrics_log::{EvalRecord, figures_of};

/// The best checkpoint of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// By which figure.
    pub goal: Goal,
    /// Updates it has seen.
    pub step: u64,
    /// The figure.
    pub value: f64,
}

/// What the evaluations have said so far.
#[derive(Debug, Clone)]
pub(crate) struct BestTracker {
    goal: Option<Goal>,
    patience: Option<u64>,
    min_delta: f64,
    best: Option<(u64, f64)>,
    /// Evaluations since then.
    stale: u64,
}

impl BestTracker {
    /// Nothing was evaluated yet.
    pub fn new(section: &CheckpointSection) -> Self {
        Self { goal: section.goal(), patience: section.patience, min_delta: section.min_delta, best: None, stale: 0 }
    }

    /// What the log of the run in `root` says up to `step`.
    ///
    /// Where the best figure's checkpoint is not there, since `best` was not asked for when it should have been kept, the best
    /// is told among the checkpoints that are.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn of_run(section: &CheckpointSection, root: &Path, step: u64) -> Result<Self, TrainError> {
        let fresh = Self::new(section);
        let Some(goal) = &fresh.goal else { return Ok(fresh) };
        let figures = figures_of(&metrics_of(root), goal, step)?;
        let there: Vec<u64> = checkpoint::list(&checkpoints_of(root)).into_iter().map(|(at, _)| at).collect();
        let replay = |figures: &[(u64, Option<f64>)]| {
            let mut selection = fresh.clone();
            figures.iter().for_each(|&(at, value)| selection.record_value(at, value));
            selection
        };
        let whole = replay(&figures);
        if whole.best.is_none_or(|(at, _)| there.contains(&at)) {
            return Ok(whole);
        }
        let kept: Vec<_> = figures.into_iter().filter(|(at, _)| there.contains(at)).collect();
        Ok(replay(&kept))
    }

    /// Takes the figures of an evaluation in; tells whether they are the goal's and better than all before.
    pub fn record(&mut self, record: &EvalRecord) -> bool {
        let Some(goal) = self.goal.as_ref().filter(|goal| goal.evaluation == record.name) else { return false };
        let value = record.metrics.get(&goal.metric).and_then(serde_json::Value::as_f64);
        self.record_value(record.step, value);
        self.best_step() == Some(record.step)
    }

    /// A figure that is no number is no improvement.
    fn record_value(&mut self, step: u64, value: Option<f64>) {
        let lower_is_better = self.goal.as_ref().is_some_and(|goal| goal.lower_is_better);
        let gain = |value: f64, best: f64| if lower_is_better { best - value } else { value - best };
        let better = |value: f64| self.best.is_none_or(|(_, best)| gain(value, best) > self.min_delta);
        match value.filter(|&value| better(value)) {
            Some(value) => (self.best, self.stale) = (Some((step, value)), 0),
            None => self.stale += 1,
        }
    }

    /// The step of the best checkpoint.
    pub fn best_step(&self) -> Option<u64> {
        self.best.map(|(step, _)| step)
    }

    /// The best checkpoint.
    pub fn best(&self) -> Option<Best> {
        let (step, value) = self.best?;
        Some(Best { goal: self.goal.clone()?, step, value })
    }

    /// Whether the figure has not improved for as long as it was given.
    pub fn is_exhausted(&self) -> bool {
        self.patience.is_some_and(|patience| self.stale >= patience)
    }

    /// Evaluations since the best one.
    pub fn stale(&self) -> u64 {
        self.stale
    }
}

/// The best checkpoint of the run in `root`, whose newest valid one is `newest`; `None`: none is called so.
///
/// # Errors
/// When config or log cannot be read.
pub(crate) fn best_of_run(root: &Path, newest: &Checkpoint) -> Result<Option<Best>, TrainError> {
    let config = RunConfig::load(&newest.path.join("config.toml"), &[])?;
    Ok(BestTracker::of_run(&config.checkpoint, root, newest.progress.step)?.best())
}

#[cfg(test)]
mod tests;
