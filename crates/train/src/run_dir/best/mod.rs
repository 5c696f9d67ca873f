//! Which checkpoint of a run is the best, and whether training should stop early. Both follow from the evaluations in
//! `metrics.jsonl` and from the checkpoints on the disk, so that a resumed run decides the same.

use std::path::Path;

use crate::config::{BestMetric, CheckpointSection};
use crate::error::TrainError;
use crate::run_dir::checkpoint::{Checkpoint, retention};
use crate::run_dir::layout::{checkpoints_of, metrics_of};
use crate::run_dir::metrics_log::{EvalRecord, MetricValue, metric_values};

/// The best checkpoint of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// The metric that is compared.
    pub metric: BestMetric,
    /// Updates so far.
    pub step: u64,
    /// Value of the metric.
    pub value: f64,
    /// Its value before the first step, if it was measured.
    pub baseline: Option<f64>,
}

impl Best {
    /// The value before the first step, if this one is worse.
    #[must_use]
    pub fn better_baseline(&self) -> Option<f64> {
        let is_better = |baseline: &f64| {
            if self.metric.lower_is_better { *baseline < self.value } else { *baseline > self.value }
        };
        self.baseline.filter(is_better)
    }
}

/// The best evaluation so far. Without `checkpoint.best` in the config, there is none.
#[derive(Debug, Clone)]
pub(crate) struct BestTracker {
    metric: Option<BestMetric>,
    patience: Option<u64>,
    min_delta: f64,
    /// Step and value.
    best: Option<(u64, f64)>,
    /// The value at step 0, which is never the best.
    baseline: Option<f64>,
    /// Evaluations since the best one.
    stale: u64,
    /// Earlier evaluations that do not count, if the last one of the log measured something else than the next.
    num_other: usize,
    /// The step of the best evaluation before the evaluation changed.
    former_best: Option<u64>,
}

impl BestTracker {
    /// Creates a tracker before the first evaluation.
    pub fn new(section: &CheckpointSection) -> Self {
        Self {
            metric: section.best_metric(),
            patience: section.patience,
            min_delta: section.min_delta,
            best: None,
            baseline: None,
            stale: 0,
            num_other: 0,
            former_best: None,
        }
    }

    /// Replays the log of the run in `root` up to `step`. `measures`: the fingerprint of the evaluation that
    /// `checkpoint.best` names; default: that of its last line. Results with another fingerprint, or with none since an
    /// older version logged them, cannot be compared and do not count.
    ///
    /// If the best evaluation's checkpoint is missing, as when `checkpoint.best` was set only later, only evaluations
    /// of existing checkpoints count.
    ///
    /// # Errors
    /// [`TrainError::Read`] when the log cannot be read.
    pub fn of_run(
        section: &CheckpointSection,
        root: &Path,
        step: u64,
        measures: Option<&str>,
    ) -> Result<Self, TrainError> {
        let mut fresh = Self::new(section);
        let Some(metric) = &fresh.metric else { return Ok(fresh) };
        let values = metric_values(&metrics_of(root), metric, step)?;
        let last = values.last().map(|value| value.fingerprint.clone());
        let measures = measures.map(str::to_owned).or_else(|| last.clone().flatten());
        let (mut values, other): (Vec<_>, Vec<_>) = values.into_iter().partition(|value| value.fingerprint == measures);
        if last.is_some_and(|last| last != measures) {
            fresh.num_other = other.len();
        }
        if let Some(former) = other.last().map(|value| value.fingerprint.clone()) {
            let mut before = fresh.clone();
            let of_former = other.iter().filter(|value| value.fingerprint == former);
            of_former.for_each(|value| before.record_value(value.step, value.value));
            fresh.former_best = before.best_step();
        }
        let existing: Vec<u64> = retention::list(&checkpoints_of(root))?.into_iter().map(|(at, _)| at).collect();
        let replay = |values: &[MetricValue]| {
            let mut tracker = fresh.clone();
            values.iter().for_each(|value| tracker.record_value(value.step, value.value));
            tracker
        };
        let all = replay(&values);
        if all.best.is_none_or(|(at, _)| existing.contains(&at)) {
            return Ok(all);
        }
        values.retain(|value| value.step == 0 || existing.contains(&value.step));
        Ok(replay(&values))
    }

    /// Earlier evaluations that do not count, if the last one of the log measured something else than the next.
    pub fn num_other(&self) -> usize {
        self.num_other
    }

    /// Records an evaluation; returns true if it is a new best.
    pub fn record(&mut self, record: &EvalRecord) -> bool {
        let Some(metric) = self.metric.as_ref().filter(|metric| metric.evaluation == record.name) else { return false };
        let value = record.metrics.get(&metric.name).and_then(serde_json::Value::as_f64);
        self.record_value(record.step, value);
        self.best_step() == Some(record.step)
    }

    /// Records a value; `None`, for one that is not a number, is no improvement.
    fn record_value(&mut self, step: u64, value: Option<f64>) {
        // The baseline: an untrained model is never the best.
        if step == 0 {
            self.baseline = value.filter(|value| value.is_finite());
            return;
        }
        let value = value.filter(|value| value.is_finite());
        let lower_is_better = self.metric.as_ref().is_some_and(|metric| metric.lower_is_better);
        let gain = |value: f64, best: f64| if lower_is_better { best - value } else { value - best };
        let better = |value: f64| self.best.is_none_or(|(_, best)| gain(value, best) > self.min_delta);
        match value.filter(|&value| better(value)) {
            Some(value) => (self.best, self.stale) = (Some((step, value)), 0),
            None => self.stale += 1,
        }
    }

    /// The step of the best evaluation.
    pub fn best_step(&self) -> Option<u64> {
        self.best.map(|(step, _)| step)
    }

    /// The step of the checkpoint to keep: the best one or, before the first figure of a changed evaluation, the best
    /// one by the old figures.
    pub fn kept_step(&self) -> Option<u64> {
        self.best_step().or(self.former_best)
    }

    /// The best evaluation.
    pub fn best(&self) -> Option<Best> {
        let (step, value) = self.best?;
        Some(Best { metric: self.metric.clone()?, step, value, baseline: self.baseline })
    }

    /// The evaluation at step 0 as the best one, for a run that ends there: `dualenc fit`.
    pub fn start_as_best(&self) -> Option<Best> {
        let value = self.baseline?;
        Some(Best { metric: self.metric.clone()?, step: 0, value, baseline: None })
    }

    /// Whether the last `checkpoint.patience` evaluations brought no improvement.
    pub fn is_exhausted(&self) -> bool {
        self.patience.is_some_and(|patience| self.stale >= patience)
    }

    /// Evaluations since the best one.
    pub fn stale(&self) -> u64 {
        self.stale
    }
}

/// The best checkpoint of the run in `root`. `newest`: its newest valid checkpoint. `None` if `checkpoint.best` is not
/// set, or nothing was evaluated yet. The best of a fit is the fit.
///
/// # Errors
/// [`TrainError::Config`] or [`TrainError::Read`] when the config or the log cannot be read.
pub(crate) fn best_of_run(root: &Path, newest: &Checkpoint) -> Result<Option<Best>, TrainError> {
    let config = newest.run_config()?;
    let tracker = BestTracker::of_run(&config.checkpoint, root, newest.progress.step, None)?;
    Ok(if newest.progress.is_fit { tracker.start_as_best() } else { tracker.best() })
}

#[cfg(test)]
mod tests;
