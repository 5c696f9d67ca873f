//! A step with numbers that are not read yet. A device computes a step while the host queues the next one: the update
//! does not wait for the host, which reads and logs the numbers of a step after it has queued the one that follows.

use dualenc_data::Batch;

use crate::error::TrainError;
use crate::optim::param_groups::LearningRate;
use crate::training::step::{PendingOutcome, StepOutcome};

/// A step of which the update is made or queued.
pub(crate) struct Unfinished {
    pub batch: Batch,
    pub rate: LearningRate,
    pub numbers: Numbers,
}

/// The numbers of a step: on the host, or on their way there.
pub(crate) enum Numbers {
    Known(Box<StepOutcome>),
    OnTheirWay(Box<PendingOutcome>),
}

impl Numbers {
    /// Waits for them, if they are not known.
    ///
    /// # Errors
    /// Those of [`PendingOutcome::wait`].
    pub fn wait(self) -> Result<StepOutcome, TrainError> {
        match self {
            Self::Known(outcome) => Ok(*outcome),
            Self::OnTheirWay(pending) => pending.wait(),
        }
    }
}
