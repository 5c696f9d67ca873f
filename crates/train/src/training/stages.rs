//! The stages of a run in steps: which stage a step belongs to, and how often each parameter was updated. All are
//! functions of the configuration and the step, so that a run resumes anywhere.

use dualenc_data::counted;
use dualenc_model::{DualEncoder, LayerDepths, Training};

use crate::config::{RunConfig, Stage};
use crate::error::TrainError;
use crate::optim::lr_schedule::LrSchedule;
use crate::optim::param_groups::LearningRate;

/// The stages of a run.
#[derive(Debug, Clone)]
pub(crate) struct Stages {
    /// Each with the number of steps before it.
    stages: Vec<(u64, Stage)>,
    total_steps: u64,
    depths: LayerDepths,
    /// Ranges of steps without an update, by the first step and the one after the last.
    skipped: Vec<[u64; 2]>,
}

impl Stages {
    /// The stages of `config` in a run of `total_steps` steps.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when a stage begins before its predecessor, or after the last step.
    pub fn new(
        config: &RunConfig,
        model: &DualEncoder,
        steps_per_epoch: u64,
        total_steps: u64,
    ) -> Result<Self, TrainError> {
        let stages: Vec<(u64, Stage)> =
            config.stages().into_iter().map(|stage| (stage.from.step(steps_per_epoch), stage)).collect();
        for (n, pair) in stages.windows(2).enumerate() {
            let (before, from) = (pair[0].0, pair[1].0);
            if from <= before {
                return Err(TrainError::Usage(format!(
                    "`train.stage` {} begins at step {from}, not after its predecessor at step {before}; order the \
                     stages by their start ({steps_per_epoch} steps per epoch)",
                    n + 2
                )));
            }
        }
        match stages.last() {
            Some((from, _)) if *from > 0 && *from >= total_steps => Err(TrainError::Usage(format!(
                "the last `train.stage` begins at step {from} and is never reached: the run has {} ({steps_per_epoch} \
                 per epoch); start it earlier, or lengthen the run",
                counted(total_steps as usize, "step")
            ))),
            _ => Ok(Self { stages, total_steps, depths: LayerDepths::of(model), skipped: Vec::new() }),
        }
    }

    /// Number of stages, at least 1.
    pub fn len(&self) -> usize {
        self.stages.len()
    }

    /// The stages in order.
    pub fn iter(&self) -> impl Iterator<Item = &Stage> {
        self.stages.iter().map(|(_, stage)| stage)
    }

    /// One line about the stage `number`, from 0.
    pub fn describe(&self, number: usize) -> String {
        let (from, stage) = &self.stages[number];
        let (lock, rate, of) = (stage.lock, stage.learning_rate, self.stages.len());
        let towers = [("image", stage.training.image), ("text", stage.training.text)];
        let exceptions: String = towers
            .into_iter()
            .flat_map(|(name, tower)| {
                let last = match tower.last {
                    0 => None,
                    1 => Some(format!(", the last block of the {name} tower unlocked")),
                    last => Some(format!(", the last {last} blocks of the {name} tower unlocked")),
                };
                last.into_iter().chain(tower.adapters.then(|| format!(", adapters in the {name} tower")))
            })
            .collect();
        format!("stage {} of {of}: `{lock}`{exceptions}, from step {from}, learning rate {rate:e}", number + 1)
    }

    /// The number, from 0, of the stage of the 0-based `step`.
    pub fn number(&self, step: u64) -> usize {
        self.stages.iter().rposition(|(from, _)| *from <= step).unwrap_or(0)
    }

    /// The stage of the 0-based `step`.
    pub fn at(&self, step: u64) -> &Stage {
        &self.stages[self.number(step)].1
    }

    /// Updates done when the stage of `step` is over.
    pub fn end(&self, step: u64) -> u64 {
        self.stages.get(self.number(step) + 1).map_or(self.total_steps, |(from, _)| *from)
    }

    /// The factor of a stage's learning rate at `step`, from 0 to 1, by the warm-up at its start.
    pub fn warmup_factor(&self, step: u64) -> f64 {
        let (from, stage) = &self.stages[self.number(step)];
        match stage.warmup_steps {
            0 => 1.0,
            steps => ((step - from + 1) as f64 / steps as f64).min(1.0),
        }
    }

    /// The learning rate of the 0-based `step` on `schedule`, for parameters without a rate of their own.
    pub fn learning_rate(&self, step: u64, schedule: &LrSchedule) -> LearningRate {
        let schedule = schedule.at(step) * self.warmup_factor(step);
        LearningRate { base: self.at(step).learning_rate * schedule, schedule }
    }

    /// Records that the steps from `first` up to, but not including, `end` make no update.
    pub fn skip(&mut self, [first, end]: [u64; 2]) {
        self.skipped.push([first, end]);
    }

    /// The ranges of steps that were skipped.
    pub fn skipped(&self) -> &[[u64; 2]] {
        &self.skipped
    }

    /// What the updates of the first `step` steps trained; `None` without an update.
    pub fn trained_before(&self, step: u64) -> Option<Training> {
        self.spans()
            .filter(|(_, from, end)| self.num_updates(*from, (*end).min(step)) > 0)
            .map(|(stage, ..)| stage.training)
            .reduce(Training::or)
    }

    /// How many of the first `step` updates included the parameter at `path`.
    pub fn updates_before(&self, path: &str, step: u64) -> u64 {
        let spans = self.spans().filter(|(stage, ..)| stage.training.trains(path, &self.depths));
        spans.map(|(_, from, end)| self.num_updates(from, end.min(step))).sum()
    }

    /// Each stage with its first step and the one after its last.
    fn spans(&self) -> impl Iterator<Item = (&Stage, u64, u64)> {
        let ends = self.stages.iter().skip(1).map(|(from, _)| *from).chain([u64::MAX]);
        self.stages.iter().zip(ends).map(|((from, stage), end)| (stage, *from, end))
    }

    /// Updates in the steps from `from` up to, but not including, `end`.
    fn num_updates(&self, from: u64, end: u64) -> u64 {
        let skipped = self.skipped.iter().map(|[first, last]| (*last).min(end).saturating_sub((*first).max(from)));
        end.saturating_sub(from) - skipped.sum::<u64>()
    }
}
