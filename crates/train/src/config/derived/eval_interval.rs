//! When an evaluation runs.

use crate::config::schema::default;
use crate::config::schema::eval::EvalSection;

/// When an evaluation runs, besides at the end of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvalInterval {
    /// Every this many epochs.
    Epochs(u64),
    /// Every this many steps.
    Steps(u64),
    /// Only at the end of training.
    End,
}

impl EvalSection {
    /// When the evaluation runs, besides at the end of training.
    pub fn interval(&self) -> EvalInterval {
        match (self.every_steps, self.every_epochs) {
            (Some(steps), _) => EvalInterval::Steps(steps),
            (None, Some(0)) => EvalInterval::End,
            (None, epochs) => EvalInterval::Epochs(epochs.unwrap_or(default::EVAL_EVERY_EPOCHS)),
        }
    }
}
