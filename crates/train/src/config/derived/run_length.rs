//! How long a run trains, in epochs and in steps.

use dualenc_data::{BatchPlan, Dataset, counted};

use crate::config::schema::RunConfig;

/// The length of a run, in the unit of its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunLength {
    /// Passes over the data.
    Epochs(u64),
    /// Optimiser updates.
    Steps(u64),
}

impl RunConfig {
    /// The length of the run.
    pub fn length(&self) -> RunLength {
        match (self.train.steps, self.train.epochs) {
            (Some(steps), _) => RunLength::Steps(steps),
            // Validation requires one of the two.
            (None, epochs) => RunLength::Epochs(epochs.unwrap_or(0)),
        }
    }

    /// The length of the run in optimiser updates.
    pub fn total_steps(&self, steps_per_epoch: u64) -> u64 {
        match self.length() {
            RunLength::Epochs(epochs) => epochs.saturating_mul(steps_per_epoch),
            RunLength::Steps(steps) => steps,
        }
    }

    /// What to say of a `data.shuffle_window` that makes no difference.
    pub(crate) fn window_note(&self, dataset: &Dataset) -> Option<String> {
        let plan = self.plan(dataset);
        let window = plan.window.filter(|&window| plan.shuffle && window >= plan.len)?;
        Some(format!(
            "`data.shuffle_window` = {window}, but an epoch has {}: it is one window, and shuffled as a whole",
            counted(plan.len, "sample")
        ))
    }

    /// How an epoch over `dataset` is split into batches.
    pub(crate) fn plan(&self, dataset: &Dataset) -> BatchPlan {
        BatchPlan {
            seed: self.run.seed,
            batch_size: self.train.batch_size,
            len: dataset.num_pairs(self.data.captions),
            shuffle: self.data.shuffle,
            window: self.data.shuffle_window,
        }
    }
}
